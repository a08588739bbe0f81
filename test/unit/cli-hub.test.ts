// Checkpoints by hub id, against a real server on loopback: what is fetched, what the cache then looks like (as Python's
// client lays it out), and how every failure is named. Nothing half fetched is ever used.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, readlink, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { GavelError } from '../../src/errors.js';
import { parseHubId, resolveCheckpoint, type ResolveOptions } from '../../src/engine/hub.js';
import { hubSettings } from '../../src/engine/hub-options.js';
import { commit, FakeHub, type FakeHubOptions } from '../support/fake-hub.js';

const micro = join(import.meta.dirname, '../goldens/micro-text');

async function temporary(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-hub-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function failureOf(action: Promise<unknown>): Promise<GavelError> {
  const error: unknown = await action.then(
    () => undefined,
    (cause: unknown) => cause,
  );
  if (GavelError.is(error)) return error;
  throw new Error(`expected a GavelError but received ${String(error)}`);
}

interface Setup {
  hub: FakeHub;
  cacheFolder: string;
  resolve: (name?: string, options?: ResolveOptions) => Promise<string>;
}

async function setUp(options: Partial<FakeHubOptions> = {}): Promise<Setup> {
  const hub = await FakeHub.start({ folder: micro, ...options });
  const cacheFolder = await temporary();
  const resolve = (name = 'org/model', more: ResolveOptions = {}): Promise<string> =>
    resolveCheckpoint(name, { endpoint: hub.url, cacheFolder, offline: false, ...more });
  return { hub, cacheFolder, resolve };
}

const partsOf = async (cacheFolder: string): Promise<string[]> =>
  (await readdir(join(cacheFolder, 'models--org--model/blobs'))).filter((name) => name.endsWith('.incomplete'));
const sent = (hub: FakeHub): string[] => hub.requests.filter((line) => line.includes('/resolve/'));

describe('a hub id', () => {
  it('is told apart from a path', () => {
    expect(parseHubId('org/model')).toEqual({ repo: 'org/model', revision: 'main' });
    expect(parseHubId('Org-1/model.v2_x@refs/pr/3')).toEqual({ repo: 'Org-1/model.v2_x', revision: 'refs/pr/3' });
    for (const path of [
      './org/model',
      '/org/model',
      '../model',
      'model',
      'a/b/c',
      'a/b@../../x',
      'a/b@',
      'a--b/c',
      '~/m',
    ]) {
      expect(parseHubId(path), path).toBeUndefined();
    }
  });

  it('becomes a folder of the cache, laid out as Python does, with the same bytes', async () => {
    const { cacheFolder, resolve } = await setUp();
    const said = vi.spyOn(process.stdout, 'write');
    const folder = await resolve();
    expect(said).not.toHaveBeenCalled();
    said.mockRestore();
    const repo = join(cacheFolder, 'models--org--model');
    expect(folder).toBe(join(repo, 'snapshots', commit));
    expect(await readFile(join(repo, 'refs/main'), 'utf8')).toBe(commit);
    const names = await readdir(micro);
    expect((await readdir(folder)).sort()).toEqual(names.sort());
    for (const name of names) {
      const bytes = await readFile(join(micro, name));
      expect(bytes.equals(await readFile(join(folder, name))), name).toBe(true);
      expect(await readlink(join(folder, name))).toMatch(/^\.\.\/\.\.\/blobs\/[0-9a-f]+$/);
    }
    const weights = await readFile(join(micro, 'model.safetensors'));
    const digest = createHash('sha256').update(weights).digest('hex');
    expect(await realpath(join(folder, 'model.safetensors'))).toBe(await realpath(join(repo, 'blobs', digest)));
    expect(await partsOf(cacheFolder)).toEqual([]);
  });

  it('is fetched once: then only its commit is asked for, and nothing for a commit or offline', async () => {
    const { hub, resolve } = await setUp();
    const folder = await resolve('org/model@v1');
    hub.requests.length = 0;
    expect(await resolve('org/model@v1')).toBe(folder);
    expect(hub.requests).toEqual(['GET /api/models/org/model/revision/v1']);
    hub.requests.length = 0;
    expect(await resolve(`org/model@${commit}`)).toBe(folder);
    expect(await resolve('org/model@v1', { offline: true })).toBe(folder);
    expect(hub.requests).toEqual([]);
  });

  it('gives way to a local folder of that name', async () => {
    const { hub } = await setUp();
    const folder = await temporary();
    await mkdir(join(folder, 'org/model'), { recursive: true });
    const before = process.cwd();
    process.chdir(folder);
    onTestFinished(() => process.chdir(before));
    expect(await resolveCheckpoint('org/model', { endpoint: hub.url })).toBe('org/model');
    expect(hub.requests).toEqual([]);
  });

  it('brings shards, and leaves what a checkpoint does not need', async () => {
    const source = join(await temporary(), 'model');
    await cp(micro, source, { recursive: true });
    await rm(join(source, 'model.safetensors'));
    const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
    for (const name of [...shards, 'optimizer.bin', 'onnx.onnx', 'unlisted.safetensors'])
      await writeFile(join(source, name), name);
    await writeFile(
      join(source, 'model.safetensors.index.json'),
      JSON.stringify({ weight_map: { a: shards[0], b: shards[1] } }),
    );
    const { resolve } = await setUp({ folder: source });
    const found = await readdir(await resolve());
    expect(found).toEqual(expect.arrayContaining([...shards, 'model.safetensors.index.json', 'config.json']));
    expect(found.filter((name) => /bin|onnx|unlisted/.test(name))).toEqual([]);
  });

  it('is found by Python in the same cache', async (context) => {
    const python = process.env['GAVEL_PYTHON'] ?? 'python3';
    const { cacheFolder, resolve } = await setUp();
    const folder = await resolve();
    const code =
      'import sys\ntry:\n from huggingface_hub import snapshot_download\nexcept ImportError: sys.exit(9)\n' +
      'print(snapshot_download("org/model", local_files_only=True, cache_dir=sys.argv[1]))';
    const { status, stdout, stderr } = spawnSync(python, ['-c', code, cacheFolder], {
      encoding: 'utf8',
      env: { ...process.env, HF_HUB_OFFLINE: '1' },
    });
    if (status === null || status === 9) context.skip('huggingface_hub is not installed for Python (GAVEL_PYTHON)');
    expect({ status, folder: stdout.trim() }, stderr).toEqual({ status: 0, folder });
  });
});

describe('an interrupted download', () => {
  it('goes on where the connection broke, within one call while anything arrives', async () => {
    const { hub, cacheFolder, resolve } = await setUp();
    hub.breaks = [50_000, 70_000];
    const progress: number[] = [];
    const folder = await resolve(undefined, {
      onProgress: ({ file, receivedBytes }) => void (file === 'model.safetensors' && progress.push(receivedBytes)),
    });
    const bytes = await readFile(join(micro, 'model.safetensors'));
    expect(bytes.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true);
    expect(progress.at(-1)).toBe(bytes.length);
    expect([...progress].sort((a, b) => a - b)).toEqual(progress);
    expect(await partsOf(cacheFolder)).toEqual([]);
  });

  it('is an error when nothing arrives any more, keeps what came, and the next call asks for the rest only', async () => {
    const { hub, cacheFolder, resolve } = await setUp();
    hub.breaks = [50_000, 0];
    const failure = await failureOf(resolve());
    expect(failure.code).toBe('io');
    expect(failure.fields['reason']).toBe('unreachable');
    expect(await partsOf(cacheFolder)).toHaveLength(1);
    // Half a checkpoint is none, also offline.
    expect((await failureOf(resolve(undefined, { offline: true }))).fields['reason']).toBe('offline');
    const seen: number[] = [];
    await resolve(undefined, {
      onProgress: ({ file, receivedBytes }) => void (file === 'model.safetensors' && seen.push(receivedBytes)),
    });
    expect(seen[0]).toBe(50_000);
    expect(await partsOf(cacheFolder)).toEqual([]);
  });

  it('by a signal rejects with its reason', async () => {
    const { resolve } = await setUp();
    const controller = new AbortController();
    const reason = new Error('enough');
    const running = resolve(undefined, { signal: controller.signal, onProgress: () => controller.abort(reason) });
    await expect(running).rejects.toBe(reason);
    await expect(resolve()).resolves.toContain(commit);
  });

  it('whose part is damaged begins again and ends whole', async () => {
    const { hub, cacheFolder, resolve } = await setUp();
    hub.breaks = [50_000, 0];
    await failureOf(resolve());
    const [part] = await partsOf(cacheFolder);
    await writeFile(join(cacheFolder, 'models--org--model/blobs', part!), Buffer.alloc(50_000, 7));
    const folder = await resolve();
    const bytes = await readFile(join(micro, 'model.safetensors'));
    expect(bytes.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true);
    expect(sent(hub).length).toBeGreaterThan(0);
  });
});

describe('what the hub refuses', () => {
  it.each([
    [
      'a model that does not exist',
      'org/none',
      {},
      'io',
      'not_found',
      /no such model.*Check the spelling; there is no local folder/,
    ],
    [
      'a revision that does not exist',
      'org/model@v9',
      {},
      'io',
      'not_found',
      /no revision "v9".*Name a branch, a tag or a whole commit/,
    ],
    ['a private model', 'org/model', { token: 'hf_right' }, 'io', 'not_found', /A private model needs HF_TOKEN/],
    [
      'a gated model',
      'org/model',
      { token: 'hf_right', gated: true },
      'permission_denied',
      'gated',
      /gated.*Accept its terms.*HF_TOKEN/,
    ],
  ] as const)('%s', async (_what, name, options, code, reason, message) => {
    const { cacheFolder, resolve } = await setUp(options);
    const failure = await failureOf(resolve(name));
    expect({ code: failure.code, reason: failure.fields['reason'] }).toEqual({ code, reason });
    expect(failure.message).toMatch(message);
    expect(failure.message).toContain(`"${name.split('@')[0]}"`);
    expect(await readdir(cacheFolder)).toEqual([]);
  });

  it('a token opens, and never stands in a message', async () => {
    const { resolve } = await setUp({ token: 'hf_right', gated: true });
    await expect(resolve(undefined, { token: 'hf_right' })).resolves.toContain(commit);
    const failure = await failureOf(resolve('org/none', { token: 'hf_right' }));
    expect(JSON.stringify({ ...failure.fields, message: failure.message })).not.toContain('hf_right');
    expect(() => hubSettings({}, { HF_TOKEN: 'secret' })).toThrow(/begins with "hf_"/);
    expect(() => hubSettings({}, { HF_TOKEN: 'secret' })).not.toThrow(/secret/);
  });

  it('offline and not cached', async () => {
    const { hub, resolve } = await setUp();
    const failure = await failureOf(resolve(undefined, { offline: true }));
    expect({ code: failure.code, reason: failure.fields['reason'] }).toEqual({ code: 'io', reason: 'offline' });
    expect(failure.message).toMatch(/HF_HUB_OFFLINE.*Fetch it once with the network/);
    expect(hub.requests).toEqual([]);
  });

  it('no hub at that address', async () => {
    const failure = await failureOf(
      resolveCheckpoint('org/model', { endpoint: 'http://127.0.0.1:9', cacheFolder: await temporary() }),
    );
    expect({ code: failure.code, reason: failure.fields['reason'] }).toEqual({ code: 'io', reason: 'unreachable' });
    expect(failure.message).toMatch(/HF_HUB_OFFLINE=1/);
  });

  it('weights for which the disk has no room, before any is fetched', async () => {
    const folder = join(await temporary(), 'model');
    await cp(micro, folder, { recursive: true });
    await rm(join(folder, 'model.safetensors'));
    const { hub, resolve } = await setUp({ folder, alsoListed: [{ name: 'model.safetensors', sizeBytes: 2 ** 52 }] });
    const failure = await failureOf(resolve());
    expect(failure.code).toBe('disk_full');
    expect(failure.message).toMatch(/4503599627370496 free bytes.*HF_HUB_CACHE/);
    expect(sent(hub).some((line) => line.endsWith('model.safetensors'))).toBe(false);
  });

  it('bytes that are not what was announced', async () => {
    const { hub, cacheFolder, resolve } = await setUp();
    const bytes = await readFile(join(micro, 'model.safetensors'));
    bytes[bytes.length - 1]! ^= 1;
    hub.damaged.set('model.safetensors', bytes);
    const failure = await failureOf(resolve());
    expect(failure.code).toBe('corrupt_checkpoint');
    expect(failure.message).toMatch(/model\.safetensors.*another checksum/);
    expect(await partsOf(cacheFolder)).toEqual([]);
    expect((await failureOf(resolve(undefined, { offline: true }))).fields['reason']).toBe('offline');
  });

  it('a model without safetensors', async () => {
    const folder = await temporary();
    await writeFile(join(folder, 'config.json'), '{}');
    await writeFile(join(folder, 'model-q4.gguf'), 'GGUF');
    const failure = await failureOf((await setUp({ folder })).resolve());
    expect(failure.code).toBe('unsupported');
    expect(failure.message).toMatch(/model-q4\.gguf.*Download its \.gguf file/);
  });
});

describe('settings', () => {
  it('come from options, then from the environment as Python reads it', () => {
    const home = process.env['HOME'];
    expect(hubSettings({}, {})).toEqual({
      ...{ offline: false, endpoint: undefined, token: undefined },
      cacheFolder: `${home}/.cache/huggingface/hub`,
    });
    expect(hubSettings({}, { HF_HOME: '/h' }).cacheFolder).toBe('/h/hub');
    expect(hubSettings({}, { HF_HOME: '/h', HF_HUB_CACHE: '/c' }).cacheFolder).toBe('/c');
    expect(hubSettings({}, { XDG_CACHE_HOME: '/x' }).cacheFolder).toBe('/x/huggingface/hub');
    expect(hubSettings({}, { HF_HUB_OFFLINE: '1', HF_ENDPOINT: 'http://h/' })).toMatchObject({
      offline: true,
      endpoint: 'http://h',
    });
    expect(hubSettings({ offline: false }, { HF_HUB_OFFLINE: 'ON' }).offline).toBe(false);
    expect(hubSettings({}, { HF_HUB_OFFLINE: '0', HF_TOKEN: 'hf_a' })).toMatchObject({ offline: false, token: 'hf_a' });
  });
});
