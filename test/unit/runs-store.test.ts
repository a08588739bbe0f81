import { appendFile, chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CheckpointStore } from '../../src/runs/checkpoints.js';
import { fileError } from '../../src/runs/file-errors.js';
import { JsonLinesLog, readJsonLines, scanJsonLines } from '../../src/runs/json-lines.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { SamplePool, type MarkedSample } from '../../src/runs/sample-pool.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-runs-'));
});
afterEach(async () => {
  await rm(folder, { recursive: true, force: true });
});

async function collect<T>(values: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const value of values) list.push(value);
  return list;
}

describe('JSONL logs', () => {
  test('lines come back in order with their places', async () => {
    const path = join(folder, 'log.jsonl');
    const log = await JsonLinesLog.open(path);
    const places = [{ a: 1 }, { text: 'é\n"' }, [3]].map((value) => log.append(value));
    expect(await log.read(places[1]!)).toEqual({ text: 'é\n"' });
    await log.close();
    expect(await collect(readJsonLines(path))).toEqual([{ a: 1 }, { text: 'é\n"' }, [3]]);
    expect((await collect(scanJsonLines(path))).map(({ offset, length }) => ({ offset, length }))).toEqual(places);
  });

  test('a torn last line is skipped by readers and cut by the next writer', async () => {
    const path = join(folder, 'log.jsonl');
    await writeFile(path, '{"a":1}\n{"b":2}\n{"torn":');
    expect(await collect(readJsonLines(path))).toEqual([{ a: 1 }, { b: 2 }]);
    const log = await JsonLinesLog.open(path);
    log.append({ c: 3 });
    await log.close();
    expect(await collect(readJsonLines(path))).toEqual([{ a: 1 }, { b: 2 }, { c: 3 }]);
  });

  test('opening with a length forgets what came after it, also inside a line', async () => {
    const path = join(folder, 'log.jsonl');
    await writeFile(path, '{"a":1}\n{"b":2}\n{"c":3}\n');
    await (await JsonLinesLog.open(path, 18)).close();
    expect(await readFile(path, 'utf8')).toBe('{"a":1}\n{"b":2}\n');
    await (await JsonLinesLog.open(path, 8)).close();
    expect(await readFile(path, 'utf8')).toBe('{"a":1}\n');
  });

  test('a line that is not JSON is an error that names it', async () => {
    const path = join(folder, 'log.jsonl');
    await writeFile(path, '{"a":1}\nnonsense\n{"b":2}\n');
    await expect(collect(readJsonLines(path))).rejects.toMatchObject({ code: 'bad_data', fields: { line: 2 } });
  });

  test('long files are read in pieces', async () => {
    const path = join(folder, 'log.jsonl');
    const log = await JsonLinesLog.open(path);
    for (let i = 0; i < 5000; i++) log.append({ i, text: 'x'.repeat(50) });
    await log.close();
    expect((await collect(readJsonLines(path))).map((line) => (line as { i: number }).i)).toEqual([
      ...Array(5000).keys(),
    ]);
  });
});

describe('checkpoints', () => {
  const save = (content: string) => (to: string) => writeFile(join(to, 'model.safetensors'), content);

  test('a saved checkpoint comes back whole, state included', async () => {
    const store = new CheckpointStore(folder);
    await store.save(3, { cursor: [1, 2] }, { events: 7 }, save('weights'));
    const last = await store.last();
    expect(last).toMatchObject({ step: 3, state: { cursor: [1, 2] }, manifest: { logs: { events: 7 } } });
    expect(await readFile(join(last!.modelFolder, 'model.safetensors'), 'utf8')).toBe('weights');
  });

  test('a failing save leaves the older checkpoint and nothing else', async () => {
    const store = new CheckpointStore(folder);
    await store.save(1, {}, {}, save('old'));
    const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
    await expect(store.save(2, {}, {}, () => Promise.reject(full))).rejects.toMatchObject({ code: 'disk_full' });
    expect(await readdir(folder)).toEqual(['step-000001']);
    expect((await store.last())?.step).toBe(1);
  });

  test('a changed or missing file is a corrupt checkpoint', async () => {
    const store = new CheckpointStore(folder);
    const path = await store.save(1, {}, {}, save('weights'));
    const file = join(path, 'model', 'model.safetensors');
    await writeFile(file, 'weightz');
    await expect(store.last()).rejects.toMatchObject({
      code: 'corrupt_checkpoint',
      fields: { path: 'model/model.safetensors' },
    });
    await truncate(file, 2);
    await expect(store.last()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await rm(file);
    await expect(store.last()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await writeFile(join(path, 'manifest.json'), '{');
    await expect(store.last()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
  });

  test('keeps the newest and the pinned, and forgets what comes after a step', async () => {
    const store = new CheckpointStore(folder);
    for (const step of [1, 2, 3, 4, 5]) await store.save(step, {}, {}, save(String(step)));
    await store.prune(2, [1]);
    expect(await store.steps()).toEqual([1, 4, 5]);
    await mkdir(join(folder, 'step-000009.tmp'));
    await store.removeAfter(4);
    expect(await store.steps()).toEqual([1, 4]);
    expect(await readdir(folder)).toEqual(['step-000001', 'step-000004']);
  });
});

describe('sample pool', () => {
  const sample = (item: string, index: number, correct = true): MarkedSample => ({
    item,
    checkpoint: 'step-7',
    sample: index,
    seed: 1,
    temperature: 1,
    recency: 0,
    text: `${item} ${index}`,
    numTokens: 3,
    finishReason: 'stop',
    rewards: { format: 1, accuracy: Number(correct) },
    answer: 'Image 1 is better',
    correct,
  });

  test.each(['on disk', 'in memory'])('%s: a key is kept once, and texts come back', async (where) => {
    const pool = where === 'on disk' ? await SamplePool.open(join(folder, 'pool.jsonl')) : SamplePool.inMemory();
    pool.add(sample('b', 1, false));
    pool.add(sample('a', 0));
    pool.add(sample('b', 0));
    pool.add({ ...sample('b', 0), text: 'again' });
    expect(pool.size).toBe(3);
    expect(pool.entries('step-7', 'b').map((entry) => entry.correct)).toEqual([true, false]);
    expect((await pool.read(pool.entries('step-7', 'b')[0]!)).text).toBe('b 0');
    expect(pool.entries('step-8', 'b')).toEqual([]);
    await pool.close();
  });

  test('a reopened pool knows what it has, but for a torn line', async () => {
    const path = join(folder, 'pool.jsonl');
    const pool = await SamplePool.open(path);
    pool.add(sample('a', 0));
    pool.add(sample('a', 1));
    await pool.close();
    await appendFile(path, '{"item":"a","checkpo');
    const again = await SamplePool.open(path);
    expect(again.size).toBe(2);
    expect(again.has('step-7', 'a', 1)).toBe(true);
    again.add(sample('a', 2));
    expect((await again.read(again.entries('step-7', 'a')[2]!)).text).toBe('a 2');
    await again.close();
  });
});

describe('run folder', () => {
  const config = { model: { path: 'm' }, stages: [{ seed: 1 }] };

  test('resuming cuts the logs to the last checkpoint and hands its state back', async () => {
    const path = join(folder, 'run');
    const run = await RunFolder.open(path, config);
    run.logEvent({ type: 'stage-start' });
    run.logMetrics({ step: 1 });
    await run.saveCheckpoint(1, { done: 1 }, (to) => writeFile(join(to, 'w'), 'one'));
    run.logMetrics({ step: 2 });
    await run.close();
    const again = await RunFolder.open(path, config, { resume: true });
    expect(again.restored).toMatchObject({ step: 1, state: { done: 1 } });
    again.logMetrics({ step: 2, again: true });
    await again.close();
    expect(await collect(readJsonLines(join(path, 'metrics.jsonl')))).toEqual([{ step: 1 }, { step: 2, again: true }]);
    expect(await collect(readJsonLines(join(path, 'events.jsonl')))).toHaveLength(1);
  });

  test('refuses a folder that holds a run, unless it is resumed with the same configuration', async () => {
    const path = join(folder, 'run');
    await (await RunFolder.open(path, config)).close();
    await expect(RunFolder.open(path, config)).rejects.toMatchObject({ code: 'invalid_argument' });
    const other = { model: { path: 'm' }, stages: [{ seed: 2 }] };
    await expect(RunFolder.open(path, other, { resume: true })).rejects.toMatchObject({
      code: 'invalid_config',
      fields: { key: 'stages.0.seed' },
    });
    await (await RunFolder.open(path, config, { resume: true })).close();
  });

  test('is written by one living process', async () => {
    const path = join(folder, 'run');
    await mkdir(path);
    await writeFile(join(path, 'run.lock'), '1\n');
    await expect(RunFolder.open(path, config)).rejects.toMatchObject({ code: 'io', fields: { owner: 1 } });
    // Process ids stop at 2^22: this one is dead.
    await writeFile(join(path, 'run.lock'), '99999999\n');
    await using run = await RunFolder.open(path, config);
    expect((await stat(run.file('run.lock'))).isFile()).toBe(true);
  });

  test.skipIf(process.getuid?.() === 0)('says that a folder cannot be written', async () => {
    await chmod(folder, 0o500);
    await expect(RunFolder.open(join(folder, 'run'), config)).rejects.toMatchObject({ code: 'permission_denied' });
    await chmod(folder, 0o700);
  });
});

test('a full disk surfaces from a log as disk_full and earlier lines stay', async () => {
  // Every write to this device fails with ENOSPC, as a full disk does.
  const log = await JsonLinesLog.open('/dev/full').catch((error: unknown) => error);
  if (!(log instanceof JsonLinesLog)) throw log;
  log.append({ a: 1 });
  await expect(log.flush()).rejects.toMatchObject({
    code: 'disk_full',
    message: expect.stringContaining('Free some space') as string,
  });
  await expect(log.close()).rejects.toMatchObject({ code: 'disk_full' });
});

test.each([
  ['ENOSPC', 'disk_full'],
  ['EDQUOT', 'disk_full'],
  ['EACCES', 'permission_denied'],
  ['EROFS', 'permission_denied'],
  ['ENOENT', 'io'],
  ['EIO', 'io'],
])('%s becomes %s', (errno, code) => {
  const error = fileError(Object.assign(new Error(errno), { code: errno }), 'write', '/x');
  expect(error).toMatchObject({ code, fields: { errno, path: '/x' } });
});
