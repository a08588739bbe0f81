import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { z } from 'zod';
import { dataFiles } from '../../src/data/data-files.js';
import { idHash } from '../../src/data/id-hash.js';
import { inspectData } from '../../src/data/inspect-data.js';
import { localOrder } from '../../src/data/local-order.js';
import { mixture, type MixturePart } from '../../src/data/mixture.js';
import { dataConfigSchema, dataSourceSchema, openData, openPairs, type DataConfig } from '../../src/data/open-data.js';
import { sampleOf, sampledIndex, sampleSize, samplingSchema } from '../../src/data/sampling.js';
import { batches, type Cursor } from '../../src/data/shuffle.js';

const goldens = join(import.meta.dirname, '../goldens/data');
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-mixture-'));
  for (const [name, count] of [
    ['a.jsonl', 10],
    ['b.jsonl', 6],
  ] as const) {
    const rows = Array.from({ length: count }, (_, i) => ({ id: `${name[0]!}${i}`, prompt: `${name} ${i}` }));
    await writeFile(join(folder, name), rows.map((row) => JSON.stringify(row)).join('\n'));
  }
});
afterAll(() => rm(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);

async function idsOf(config: DataConfig): Promise<string[]> {
  await using data = await openData(config);
  return Promise.all(Array.from({ length: data.size }, async (_, index) => (await data.row(index)).id));
}

describe('sampling', () => {
  it.each([
    ['all', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
    ['first:3', [0, 1, 2]],
    ['end:2', [8, 9]],
    ['first:25%', [0, 1, 2]],
    ['end:0.1%', [9]],
    ['first:100%', [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]],
  ])('%s', (text, indices) => {
    const sample = sampleOf(text, 'set', 10);
    expect(Array.from({ length: sampleSize(sample) }, (_, i) => sampledIndex(sample, i))).toEqual(indices);
  });

  it('random:N takes distinct rows by the seed', () => {
    const take = (seed: number): number[] => {
      const sample = sampleOf('random:40', 'set', 1000, seed);
      return Array.from({ length: sampleSize(sample) }, (_, i) => sampledIndex(sample, i));
    };
    expect(new Set(take(1)).size).toBe(40);
    expect(take(1)).toEqual(take(1));
    expect(take(1)).toEqual([...take(1)].sort((a, b) => a - b));
    expect(take(2)).not.toEqual(take(1));
    expect(take(1)).not.toEqual(Array.from({ length: 40 }, (_, i) => i));
  });

  it.each(['first:0', 'first:11', 'random:101%', 'end:0%', 'random:11'])('refuses %s of ten rows', (text) => {
    expect(() => sampleOf(text, 'set', 10)).toThrow(/1 to 10 rows/);
  });

  it.each(['', 'first', 'first:', 'first:-1', 'first:1.5', 'middle:3', 'random:x%', 'All'])(
    'refuses the text %j',
    (text) => {
      expect(samplingSchema.safeParse(text).success).toBe(false);
      expect(() => sampleOf(text, 'set', 10)).toThrow(/sampling/);
    },
  );
});

describe('mixtures', () => {
  it('samples files and puts them after each other', async () => {
    const config = [
      { path: at('a.jsonl'), sampling: 'first:2' },
      { path: at('b.jsonl'), sampling: 'end:50%' },
    ];
    expect(await idsOf(config)).toEqual(['a0', 'a1', 'b3', 'b4', 'b5']);
    expect(await idsOf(at('a.jsonl'))).toHaveLength(10);
    expect(await idsOf({ path: at('a.jsonl'), sampling: 'random:3', seed: 5 })).toHaveLength(3);
  });

  it('repeats rows by weight, a seeded part for its fraction', async () => {
    const ids = await idsOf([
      { path: at('a.jsonl'), weight: 2.5 },
      { path: at('b.jsonl'), weight: 0.5 },
    ]);
    expect(ids).toHaveLength(25 + 3);
    expect(new Set(ids).size).toBe(28);
    expect(ids.slice(10, 12)).toEqual(['a0#2', 'a1#2']);
    expect(ids.slice(20, 25).every((id) => /^a\d#3$/.test(id))).toBe(true);
    expect(ids.slice(25).every((id) => /^b\d$/.test(id))).toBe(true);
    expect(await idsOf([{ path: at('a.jsonl'), weight: 0.5, seed: 1 }])).not.toEqual(
      await idsOf([{ path: at('a.jsonl'), weight: 0.5, seed: 2 }]),
    );
    await expect(openData({ path: at('a.jsonl'), weight: 0.01 })).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it('makes ids distinct where files clash, and only there', async () => {
    const twice = [
      { path: at('a.jsonl'), sampling: 'first:2' },
      { path: at('b.jsonl'), sampling: 'first:1' },
      { path: at('a.jsonl'), sampling: 'first:1' },
    ];
    expect(await idsOf(twice)).toEqual(['a/a0', 'a/a1', 'b0', 'a-2/a0']);
  });

  it('has a fingerprint of sources, samples, weights and the seeds that matter', async () => {
    const print = async (config: DataConfig): Promise<string> => {
      await using data = await openData(config);
      return data.fingerprint;
    };
    const a = at('a.jsonl');
    const whole = await print(a);
    expect(await print([{ path: a }])).toBe(whole);
    expect(await print({ path: a, seed: 3 })).toBe(whole);
    const others = [
      { path: a, sampling: 'first:9' },
      { path: a, weight: 2 },
      { path: a, sampling: 'random:9' },
      { path: a, sampling: 'random:9', seed: 1 },
      { path: a, instruction: 'Think.' },
      [{ path: a }, { path: at('b.jsonl') }],
      [{ path: at('b.jsonl') }, { path: a }],
    ];
    expect(new Set([whole, ...(await Promise.all(others.map(print)))]).size).toBe(others.length + 1);
  });

  it('mixes Parquet and text, shuffled by blocks, resumed from any cursor', async () => {
    const config = [
      { path: join(goldens, 'snappy.parquet'), sampling: 'random:80%', weight: 1.5 },
      { path: at('a.jsonl') },
      { path: join(goldens, 'hub'), split: 'train' },
    ];
    await using data = await openData(config);
    expect(data.size).toBe(19 + 10 + 10 + 7);
    expect([...data.formats].sort()).toEqual([
      ['gavel', 10],
      ['problem', 30],
    ]);
    expect(data.locality!.rows.reduce((sum, rows) => sum + rows, 0)).toBe(data.size);
    const run = async (cursor?: Cursor): Promise<{ ids: string[]; cursor: Cursor }[]> => {
      const found: { ids: string[]; cursor: Cursor }[] = [];
      const from = cursor === undefined ? { seed: 9 } : { cursor };
      for await (const batch of batches(data, { batchSize: 5, epochs: 2, ...from }))
        found.push({ ids: batch.rows.map(({ id }) => id), cursor: batch.cursor });
      return found;
    };
    const whole = await run();
    expect(new Set(whole.slice(0, 10).flatMap(({ ids }) => ids)).size).toBe(data.size);
    for (const stop of [0, 4, 9, 13]) expect(await run(whole[stop]!.cursor)).toEqual(whole.slice(stop + 1));
    await expect(data.row(data.size)).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it('opens pairs of several forms', async () => {
    await writeFile(at('pairs.jsonl'), JSON.stringify({ id: 'x', prompt: 'p', chosen: 'a', rejected: 'b' }));
    await using data = await openPairs([
      { path: at('pairs.jsonl'), weight: 2 },
      { path: join(goldens, 'preferences.parquet') },
    ]);
    expect([data.size, data.numSkipped]).toEqual([5, 0]);
    const second = await data.pair(1);
    expect([second.id, second.first.id, second.second.id]).toEqual(['x#2', 'x/1#2', 'x/2#2']);
    await expect(openPairs(at('a.jsonl'))).rejects.toMatchObject({ code: 'bad_data', fields: { format: 'gavel' } });
  });

  it('closes what it opened when a later source fails', async () => {
    await expect(openData([{ path: at('a.jsonl') }, { path: at('none.jsonl') }])).rejects.toMatchObject({ code: 'io' });
    await expect(openData([{ path: at('a.jsonl'), sampling: 'first:99' }])).rejects.toMatchObject({
      code: 'invalid_argument',
    });
  });

  it.each([
    [{ path: 'x', smapling: 'all' }, /smapling.*Did you mean `sampling`/],
    [[{ path: 'x' }, { path: '' }], /data\[1\]\.path/],
    [[], /data/],
    [{ path: 'x', sampling: 'first:two' }, /first:N/],
    [{ path: 'x', weight: 0 }, /data\.weight/],
  ] as [DataConfig, RegExp][])('refuses the configuration %j', async (config, message) => {
    await expect(openData(config)).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(message) as string,
    });
  });

  it('has a schema that describes itself, and errors of the branch that was meant', () => {
    const json = JSON.stringify(z.toJSONSchema(dataConfigSchema, { io: 'input' }));
    for (const key of Object.keys(dataSourceSchema.shape)) expect(json).toContain(`"${key}"`);
    const problem = (value: unknown): string => {
      const [issue] = dataConfigSchema.safeParse(value).error!.issues;
      return `${issue!.path.join('.')} ${issue!.message}`;
    };
    expect(problem([{ path: 'x', weight: -1 }])).toContain('0.weight');
    expect(problem({ path: 3 })).toContain('path');
    expect(problem({ path: 'x', smapling: 'all' })).toContain('smapling');
    expect(problem([{ path: 'x' }, { path: 'y', smapling: 'all' }])).toContain('smapling');
  });

  it('mixes whatever has an index', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ size: fc.integer({ min: 1, max: 30 }), weight: fc.constantFrom(1, 2, 0.5, 1.5) }), {
          minLength: 1,
          maxLength: 4,
        }),
        async (shapes) => {
          const parts = shapes
            .filter(({ size, weight }) => size * weight >= 1)
            .map(({ size, weight }, source): MixturePart<string> => {
              const ids = Array.from({ length: size }, (_, i) => `${source % 2}-${i}`);
              const read = async (index: number, rename: (id: string) => string): Promise<string> =>
                rename(ids[index]!);
              const idHashes = ids.map(idHash);
              return { source: { name: `s${source}`, size, fingerprint: `${size}`, idHashes, read }, weight };
            });
          if (parts.length === 0) return;
          const mixed = mixture('all', parts);
          const sizes = parts.map(
            ({ source, weight = 1 }) => Math.floor(weight) * source.size + Math.round((weight % 1) * source.size),
          );
          expect(mixed.size).toBe(sizes.reduce((sum, size) => sum + size, 0));
          const ids = await Promise.all(Array.from({ length: mixed.size }, (_, i) => mixed.read(i)));
          expect(new Set(ids).size).toBe(ids.length);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('the order of blocks', () => {
  const blocks = fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 1, maxLength: 20 });

  it('is a permutation for every seed, epoch and limit', () => {
    fc.assert(
      fc.property(blocks, fc.nat(), fc.nat(50), fc.integer({ min: 1, max: 100 }), (rows, seed, epoch, limit) => {
        const size = rows.reduce((sum, count) => sum + count, 0);
        if (size === 0) return;
        const order = localOrder({ rows, bytes: rows.map(() => 10) }, seed, epoch, limit);
        const seen = Array.from({ length: size }, (_, position) => order(position));
        expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: size }, (_, i) => i));
        // Asked for anywhere, it says the same.
        for (const position of [0, size - 1, size >> 1]) expect(order(position)).toBe(seen[position]);
      }),
      { numRuns: 300 },
    );
  });

  it('never needs more blocks at once than a window holds', () => {
    const rows = Array.from({ length: 30 }, () => 10);
    const order = localOrder({ rows, bytes: rows.map(() => 10) }, 4, 1, 50);
    for (let window = 0; window < 6; window++) {
      const touched = Array.from({ length: 50 }, (_, at) => Math.floor(order(window * 50 + at) / 10));
      expect(new Set(touched).size).toBe(5);
    }
    const first = Array.from({ length: 300 }, (_, at) => order(at));
    const other = localOrder({ rows, bytes: rows.map(() => 10) }, 4, 2, 50);
    expect(Array.from({ length: 300 }, (_, at) => other(at))).not.toEqual(first);
  });
});

describe('data files', () => {
  it('finds shards, splits, and Parquet under any name', async () => {
    expect(await dataFiles(join(goldens, 'hub'), 'test')).toEqual({
      kind: 'parquet',
      paths: [join(goldens, 'hub/data/test-00000-of-00001.parquet')],
    });
    expect(await dataFiles(join(goldens, 'hub/data'), 'train')).toMatchObject({ paths: { length: 2 } });
    await expect(dataFiles(join(goldens, 'hub'))).rejects.toMatchObject({ fields: { splits: 'test, train' } });
    await expect(dataFiles(join(goldens, 'hub'), 'dev')).rejects.toMatchObject({ code: 'bad_data' });
    await expect(dataFiles(folder)).rejects.toMatchObject({ code: 'bad_data' });
    await expect(dataFiles(at('none'))).rejects.toMatchObject({ code: 'io' });
    await expect(dataFiles(at('a.jsonl'), 'train')).rejects.toMatchObject({ code: 'invalid_argument' });
    await writeFile(at('nameless'), await readFile(join(goldens, 'chat.parquet')));
    expect(await dataFiles(at('nameless'))).toMatchObject({ kind: 'parquet' });
  });

  it('are described without being trained on', async () => {
    await writeFile(
      at('mixed.jsonl'),
      ['{"prompt":"a"}', 'x', '{"prompt":"<image>"}', '{"prompt":"<image><image>"}'].join('\n'),
    );
    const found = await inspectData(at('mixed.jsonl'));
    expect(found).toMatchObject({ kind: 'json', rows: 1, gives: 'rows', formats: { gavel: 1 }, numBad: 3 });
    expect(found.bad.map(({ count }) => count)).toEqual([2, 1]);
    expect(found.bad[0]!.first).toMatchObject({ line: 3, unit: 'line' });
    expect(found.first).toMatchObject({ prompt: 'a' });
    await writeFile(at('nothing.jsonl'), 'x\ny\n');
    expect(await inspectData(at('nothing.jsonl'))).toMatchObject({ rows: 0, gives: null, first: null, numBad: 2 });
    expect(await inspectData(join(goldens, 'bad.parquet'))).toMatchObject({ kind: 'parquet', rows: 2, numBad: 4 });
    expect(await inspectData(join(goldens, 'preferences.parquet'))).toMatchObject({ gives: 'pairs', rows: 3 });
    await sharp({ create: { width: 4, height: 4, channels: 3, background: 'red' } })
      .png()
      .toFile(at('here.png'));
    const rows = ['gone.png', 'here.png', 'away.png'].map((image) => ({ prompt: '<image>', images: [image] }));
    await writeFile(at('pictures.jsonl'), rows.map((row) => JSON.stringify(row)).join('\n'));
    expect(await inspectData(at('pictures.jsonl'))).toMatchObject({
      rows: 1,
      numBad: 2,
      bad: [{ count: 2, reason: `picture "${at('gone.png')}" does not exist`, first: { line: 1 } }],
      first: { id: 'pictures.jsonl:2' },
    });
    await writeFile(at('both.jsonl'), '{"prompt":"a"}\n{"prompt":"a","chosen":"b","rejected":"c"}');
    expect(await inspectData(at('both.jsonl'))).toMatchObject({ gives: null, rows: 2, first: null });
  });
});
