/**
 * What a model may be called: a local folder or file, or, when there is none of that name, a hub id "org/name" or
 * "org/name@revision". A hub id becomes a folder of the cache that holds every file a checkpoint needs, or an error.
 */
import { existsSync, statSync } from 'node:fs';
import { expected, GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';
import { ggufFolder } from './gguf-import.js';
import { HubCache } from './hub-cache.js';
import { HubClient } from './hub-client.js';
import { hubOptionsSchema, hubSettings, type HubOptions, type HubSettings } from './hub-options.js';
import { HubSnapshot, isWhole, type FetchProgress } from './hub-snapshot.js';
import { parseOptions } from './parse-options.js';
import type { TensorIndex } from './safetensors.js';

export interface HubId {
  repo: string;
  /** A branch, a tag or a commit of 40 digits. */
  revision: string;
}

export type ResolveOptions = HubOptions & {
  /** Ends the download; what was fetched is kept and continued the next time. */
  signal?: AbortSignal | undefined;
  /** Called as bytes arrive. */
  onProgress?: FetchProgress | undefined;
};

/** The parts of a hub id; undefined for what can only be a path. */
export function parseHubId(name: string): HubId | undefined {
  const found = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([\w][\w./-]*))?$/.exec(name);
  if (found === null || name.includes('..') || name.includes('--') || name.endsWith('/')) return undefined;
  return { repo: found[1]!, revision: found[2] ?? 'main' };
}

/**
 * The local path of a checkpoint: the name itself when it is one or cannot be a hub id, else a folder of the hub's cache,
 * fetched when needed. Errors: 'io' (no such model or revision, offline and not cached, no connection: `fields.reason`),
 * 'permission_denied' (gated, private), 'disk_full', 'unsupported' (no safetensors in it, or no @huggingface/hub),
 * 'corrupt_checkpoint' (another checksum than announced), 'invalid_argument'.
 */
export async function resolveCheckpoint(name: string, options: ResolveOptions = {}): Promise<string> {
  const { signal, onProgress, ...given } = options;
  const parsed = parseOptions(hubOptionsSchema, given, 'hub');
  if (typeof name !== 'string' || name === '') throw expected('invalid_argument', 'model', 'a path or a hub id', name);
  // A GGUF file's folder is in the cache: its configuration and tokenizer, and a link to the file.
  if (name.endsWith('.gguf')) return ggufFolder(name);
  const id = existsSync(name) ? undefined : parseHubId(name);
  if (id === undefined) {
    if (statSync(name, { throwIfNoEntry: false })?.isFile() !== true) return name;
    throw expected(
      'invalid_argument',
      'model',
      'a folder, a .gguf file or a hub id',
      name,
      'Name the folder of the file.',
    );
  }
  const settings = hubSettings(parsed);
  const cache = new HubCache(settings.cacheFolder, id.repo);
  const cached = await cachedSnapshot(cache, id, settings);
  if (cached !== undefined) return cached;
  const client = await HubClient.open(id.repo, id.revision, settings, signal);
  try {
    const commit = await client.commit();
    if (!(await isWhole(cache, commit))) await new HubSnapshot(cache, client, commit, id.repo, onProgress).fetch();
    await cache.remember(id.revision, commit);
    return cache.snapshot(commit);
  } catch (error) {
    throw GavelError.is(error) || signal?.aborted === true || (error as NodeJS.ErrnoException).code === undefined
      ? error
      : fileError(error, cache.folder, 'and write the hub cache');
  }
}

/** Without the network: a commit that is cached whole, or offline what the revision last stood at. */
async function cachedSnapshot(
  cache: HubCache,
  { repo, revision }: HubId,
  { offline }: HubSettings,
): Promise<string | undefined> {
  const isCommit = /^[0-9a-f]{40}$/.test(revision);
  const commit = isCommit ? revision : offline ? await cache.commitOf(revision) : undefined;
  if (commit !== undefined && (await isWhole(cache, commit))) return cache.snapshot(commit);
  if (!offline) return undefined;
  throw new GavelError(
    'io',
    `Expected "${repo}" at revision "${revision}" in the hub cache, since HF_HUB_OFFLINE or \`offline\` is set, but received ` +
      `${commit === undefined ? 'no such revision' : 'only a part of it'} in "${cache.folder}". ` +
      'Fetch it once with the network, or name a local folder.',
    { fields: { model: repo, revision, path: cache.folder, reason: 'offline' } },
  );
}

/**
 * A checkpoint's small files in its folder, and what the headers of its weights say, which stay where they are: of a hub id
 * that is not cached, a few kilobytes are read instead of gigabytes. Errors: as resolveCheckpoint().
 */
export async function resolveHeaders(
  name: string,
  options: ResolveOptions = {},
): Promise<{ folder: string; tensors: TensorIndex | undefined }> {
  const { signal, onProgress: _onProgress, ...given } = options;
  const id = existsSync(name) ? undefined : parseHubId(name);
  if (id === undefined) return { folder: await resolveCheckpoint(name, options), tensors: undefined };
  const settings = hubSettings(parseOptions(hubOptionsSchema, given, 'hub'));
  const cache = new HubCache(settings.cacheFolder, id.repo);
  const cached = await cachedSnapshot(cache, id, settings);
  if (cached !== undefined) return { folder: cached, tensors: undefined };
  const client = await HubClient.open(id.repo, id.revision, settings, signal);
  const commit = await client.commit();
  const folder = cache.snapshot(commit);
  if (await isWhole(cache, commit)) return { folder, tensors: undefined };
  return { folder, tensors: await new HubSnapshot(cache, client, commit, id.repo).readHeaders() };
}
