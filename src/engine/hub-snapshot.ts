/**
 * One commit of a model in the hub's cache: which files of it a checkpoint needs, whether they are all there, and fetching
 * those that are not. Weights come last, so where they are complete, everything is.
 */
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { companionFiles } from './checkpoint.js';
import { corruptFile, readOptionalJson } from './checkpoint-files.js';
import type { HubCache, HubFile } from './hub-cache.js';
import type { HubClient } from './hub-client.js';
import { rewardHeadConfigFile, rewardHeadWeightsFile } from './reward-head.js';
import { headerLength, parseSafetensorsHeader, type TensorIndex } from './safetensors.js';

export type FetchProgress = (progress: { file: string; receivedBytes: number; totalBytes: number }) => void;

const weightsFile = 'model.safetensors';
const indexFile = 'model.safetensors.index.json';
const adapterFile = 'adapter_model.safetensors';
/** The card names licence and base model, which an export passes on. */
const smallFiles = ['config.json', 'adapter_config.json', 'README.md', rewardHeadConfigFile, ...companionFiles];

/** Whether everything that a checkpoint cannot do without is cached. */
export async function isWhole(cache: HubCache, commit: string): Promise<boolean> {
  if (await cache.has(commit, adapterFile)) return cache.has(commit, 'adapter_config.json');
  const needed = ['config.json', 'tokenizer.json', ...(await shardNames(cache, commit))];
  const present = await Promise.all(needed.map((name) => cache.has(commit, name)));
  return present.every(Boolean);
}

async function shardNames(cache: HubCache, commit: string): Promise<string[]> {
  if (await cache.has(commit, weightsFile)) return [weightsFile];
  const map = (await readOptionalJson(cache.snapshot(commit), indexFile))?.['weight_map'];
  if (typeof map !== 'object' || map === null) return [weightsFile];
  const names = [...new Set(Object.values(map) as unknown[])];
  const odd = names.find((name) => typeof name !== 'string' || !/^[\w.-]+\.safetensors$/.test(name));
  if (odd !== undefined) throw corruptFile(join(cache.snapshot(commit), indexFile), `it names ${JSON.stringify(odd)}`);
  return names as string[];
}

export class HubSnapshot {
  readonly #cache: HubCache;
  readonly #client: HubClient;
  readonly #commit: string;
  readonly #repo: string;
  readonly #onProgress: FetchProgress | undefined;

  constructor(cache: HubCache, client: HubClient, commit: string, repo: string, onProgress?: FetchProgress) {
    this.#cache = cache;
    this.#client = client;
    this.#commit = commit;
    this.#repo = repo;
    this.#onProgress = onProgress;
  }

  /** Fetches what is missing. Errors: 'unsupported' without safetensors, 'disk_full', those of client and cache. */
  async fetch(): Promise<void> {
    const shards = await this.#fetchCompanions();
    const missing = await Promise.all(shards.map((file) => this.#cache.missingBytes(this.#commit, file)));
    await this.#cache.checkSpace(missing.reduce((sum, bytes) => sum + bytes, 0));
    for (const file of shards) await this.#fetchFile(file);
  }

  /** Fetches the small files, and of the weights reads the headers alone: kilobytes instead of gigabytes. */
  async readHeaders(): Promise<TensorIndex> {
    const index: TensorIndex = { tensors: new Map(), metadata: {} };
    for (const file of await this.#fetchCompanions()) {
      const path = `${this.#repo}/${file.name}`;
      const headerBytes = headerLength(await this.#read(file, 0, 8), path, file.sizeBytes);
      const header = await this.#read(file, 8, 8 + headerBytes);
      const { tensors, metadata } = parseSafetensorsHeader(header, path, file.sizeBytes);
      for (const [name, entry] of tensors) index.tensors.set(name, entry);
      index.metadata = { ...index.metadata, ...metadata };
    }
    return index;
  }

  /** Everything but the weights; returns the files that hold those. */
  async #fetchCompanions(): Promise<HubFile[]> {
    const listed = new Map((await this.#client.files(this.#commit)).map((file) => [file.name, file]));
    const weights = [weightsFile, indexFile, adapterFile].find((name) => listed.has(name));
    if (weights === undefined) throw noWeights(this.#repo, [...listed.keys()]);
    const small = [...smallFiles, ...(weights === indexFile ? [indexFile] : [])];
    for (const name of small) if (listed.has(name)) await this.#fetchFile(listed.get(name)!);
    const names = weights === indexFile ? await shardNames(this.#cache, this.#commit) : [weights];
    if (listed.has(rewardHeadWeightsFile)) names.push(rewardHeadWeightsFile);
    return names.map((name) => {
      const file = listed.get(name);
      if (file !== undefined) return file;
      throw corruptFile(`${this.#repo}/${indexFile}`, `it names ${name}, which the model does not have`);
    });
  }

  async #fetchFile(file: HubFile): Promise<void> {
    await this.#cache.store(
      this.#commit,
      file,
      (start) => this.#client.bytes(this.#commit, file, start),
      (receivedBytes) => this.#onProgress?.({ file: file.name, receivedBytes, totalBytes: file.sizeBytes }),
    );
  }

  async #read(file: HubFile, start: number, end: number): Promise<Buffer> {
    const parts: Uint8Array[] = [];
    for await (const bytes of this.#client.bytes(this.#commit, file, start, end)) parts.push(bytes);
    const whole = Buffer.concat(parts);
    if (whole.length === end - start) return whole;
    throw corruptFile(`${this.#repo}/${file.name}`, `the hub sent ${whole.length} bytes of a part of ${end - start}`);
  }
}

function noWeights(repo: string, names: readonly string[]): GavelError {
  const other = names.find((name) => /\.(gguf|bin|pt|pth|h5|msgpack)$/.test(name));
  const advice =
    other?.endsWith('.gguf') === true
      ? 'Download its .gguf file and name that.'
      : 'Convert it with transformers: save_pretrained writes safetensors.';
  return new GavelError(
    'unsupported',
    `Expected ${weightsFile}, ${indexFile} or ${adapterFile} in the model "${repo}" but received ${other ?? 'none of them'}. ${advice}`,
    { fields: { model: repo, found: other ?? '' } },
  );
}
