// Parts and mappings of a data set keep what is known of its blocks, so that an epoch still reads each block once.
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { datasetFromRows, type Dataset } from '../../src/data/dataset.js';
import { localityOfParts } from '../../src/data/local-order.js';
import { ParquetDataset } from '../../src/data/parquet.js';
import type { Row } from '../../src/data/rows.js';
import { batches } from '../../src/data/shuffle.js';
import { datasetPart, mappedDataset } from '../../src/recipes/dataset-part.js';
import { r3vMixture } from '../../src/recipes/r3v-mixture.js';
import { r3vPrompts } from '../../src/recipes/r3v-prompts.js';
import { SamplePool } from '../../src/runs/sample-pool.js';

const goldens = join(import.meta.dirname, '../goldens/data');
const blockRows = 100;
const numBlocks = 10;

/** A file of ten blocks, of which two are kept at once, as the reader of Parquet keeps them; counts what it decodes. */
function blockedFile(): { data: Dataset; decoded: () => number } {
  const kept: number[] = [];
  let decoded = 0;
  const data: Dataset = {
    name: 'file',
    size: numBlocks * blockRows,
    fingerprint: 'file',
    locality: { rows: Array(numBlocks).fill(blockRows), bytes: Array(numBlocks).fill(64 << 20) },
    row: async (index) => {
      const block = Math.floor(index / blockRows);
      const at = kept.indexOf(block);
      if (at >= 0) kept.splice(at, 1);
      else decoded++;
      kept.push(block);
      if (kept.length > 2) kept.shift();
      return { id: `r${index}`, prompt: 'x', images: [], solution: '1', completion: 'y' };
    },
  };
  return { data, decoded: () => decoded };
}

async function epochOf(data: Dataset): Promise<string[]> {
  const ids: string[] = [];
  for await (const { rows } of batches(data, { batchSize: 8, seed: 3, epochs: 1 }))
    ids.push(...rows.map(({ id }) => id));
  return ids;
}

const everyThird = Array.from({ length: 333 }, (_, i) => 3 * i);

describe('an epoch', () => {
  it.each<[string, (whole: Dataset) => Dataset, number]>([
    ['a part', (whole) => datasetPart(whole, 'part', everyThird), 333],
    ['a mapping', (whole) => mappedDataset(whole, 'asked', (row) => ({ ...row, prompt: 'z' })), 1000],
    [
      'a mapped part of a part',
      (whole) =>
        mappedDataset(
          datasetPart(
            datasetPart(whole, 'part', everyThird),
            'half',
            everyThird.flatMap((_, i) => (i % 2 === 0 ? [i] : [])),
          ),
          'asked',
          (row) => row,
        ),
      167,
    ],
  ])('of %s gives every row once, shuffled, and decodes each block once', async (_, make, size) => {
    const { data, decoded } = blockedFile();
    const ids = await epochOf(make(data));
    expect([ids.length, new Set(ids).size]).toEqual([size, size]);
    const inOrder = [...ids].sort((a, b) => Number(a.slice(1)) - Number(b.slice(1)));
    expect(ids).not.toEqual(inOrder);
    expect(decoded()).toBe(numBlocks);
    // Without what is known of the blocks most rows would decode one.
    const free = blockedFile();
    const part = make(free.data);
    await epochOf({ ...part, locality: undefined });
    expect(free.decoded()).toBeGreaterThan(size / 2);
  });

  it('of what R3V trains on does so too, warm-up and questions', async () => {
    const { data, decoded } = blockedFile();
    const warm = blockedFile();
    const warmUp = datasetPart(warm.data, 'warm', [0, 1, 150, 151]);
    const kindWeights = { direct: 1, warmUp: 1, selfCot: 1, refine: 1, selectA: 1, selectB: 1 };
    const mixture = await r3vMixture({
      ...{ name: 'mixture', data, warmUp, direct: true, prompts: r3vPrompts(), pool: SamplePool.inMemory() },
      ...{ weights: [], selectTarget: 'gold', kindWeights, candidates: 3, refine: true, select: true, seed: 0 },
      signal: new AbortController().signal,
    });
    // Making it read every row in order.
    const [before, warmBefore] = [decoded(), warm.decoded()];
    expect(mixture.data!.locality!.rows).toEqual([2, 2, ...Array<number>(10).fill(100)]);
    expect(new Set(await epochOf(mixture.data!)).size).toBe(1004);
    // A window may hold blocks of both files, of which each keeps two.
    expect(decoded() - before).toBeLessThanOrEqual(numBlocks);
    expect(warm.decoded() - warmBefore).toBeLessThanOrEqual(2);
  });
});

describe('locality of parts', () => {
  const locality = { rows: [3, 0, 2, 4], bytes: [30, 0, 20, 40] };

  it('keeps runs from one block, which cost the whole block', () => {
    expect(localityOfParts([{ locality, indices: [0, 2, 4, 5, 8] }])).toEqual({ rows: [2, 1, 2], bytes: [30, 20, 40] });
    // Out of order a block may come again.
    expect(localityOfParts([{ locality, indices: [5, 0, 6, 7] }])).toEqual({ rows: [1, 1, 2], bytes: [40, 30, 40] });
    expect(localityOfParts([{ locality, indices: [3, 3, 3] }])).toEqual({ rows: [3], bytes: [20] });
  });

  it('cuts sources without blocks into some, beside others that have them', () => {
    const indices = Array.from({ length: 300 }, (_, i) => i);
    expect(localityOfParts([{ locality: undefined, indices }])).toBeUndefined();
    const joined = localityOfParts([
      { locality: undefined, indices },
      { locality, indices: [0, 1] },
    ]);
    expect(joined).toEqual({ rows: [256, 44, 2], bytes: [0, 0, 30] });
  });

  it('is none for rows in memory, and that of the file for Parquet', async () => {
    const rows: Row[] = [0, 1, 2].map((i) => ({ id: `${i}`, prompt: 'x', images: [] }));
    expect(datasetPart(datasetFromRows('rows', rows), 'part', [0, 2]).locality).toBeUndefined();
    await using file = await ParquetDataset.open(join(goldens, 'snappy.parquet'));
    expect(file.locality.rows).toEqual([5, 5, 5, 5, 3]);
    expect(mappedDataset(file, 'asked', (row) => row).locality).toEqual(file.locality);
    const part = datasetPart(file, 'part', [0, 1, 6, 20, 21, 22]);
    expect(part.locality!.rows).toEqual([2, 1, 3]);
    expect(part.locality!.bytes).toEqual([0, 1, 4].map((block) => file.locality.bytes[block]));
    const ids = (await epochOf(part)).map(Number);
    expect(ids.sort((a, b) => a - b)).toEqual([0, 1, 6, 20, 21, 22]);
  });
});
