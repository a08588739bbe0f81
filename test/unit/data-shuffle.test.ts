import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { datasetFromRows, generatedDataset } from '../../src/data/dataset.js';
import { batches, permutation, permutedIndex, type Batch } from '../../src/data/shuffle.js';

const numbers = (size: number, key = 'k') =>
  generatedDataset({
    name: 'numbers',
    size,
    key,
    make: (index) => ({ id: String(index), prompt: `n ${index}`, images: [] }),
  });

async function take(source: AsyncIterable<Batch>, limit = Infinity): Promise<Batch[]> {
  const taken: Batch[] = [];
  for await (const batch of source) {
    taken.push(batch);
    if (taken.length >= limit) break;
  }
  return taken;
}

describe('shuffle', () => {
  it('is a permutation for every size, seed and epoch', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700 }), fc.maxSafeNat(), fc.nat(1000), (size, seed, epoch) => {
        const order = permutation(size, seed, epoch);
        const seen = new Set(Array.from({ length: size }, (_, i) => order(i)));
        expect(seen.size).toBe(size);
        expect(Math.min(...seen)).toBe(0);
        expect(Math.max(...seen)).toBe(size - 1);
      }),
    );
  });

  it('mixes well: every place takes every value about equally often', () => {
    const size = 8;
    const trials = 8000;
    const table = Array.from({ length: size }, () => new Array<number>(size).fill(0));
    for (let seed = 0; seed < trials; seed++) {
      const order = permutation(size, seed);
      for (let i = 0; i < size; i++) table[i]![order(i)]!++;
    }
    // Chi-squared with 49 degrees of freedom: 99.99 % lie below 98.
    const expected = trials / size;
    const chi2 = table.flat().reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0);
    expect(chi2).toBeLessThan(98);
  });

  it('differs by seed, by epoch, and from the plain order', () => {
    const orders = [
      [1, 0],
      [2, 0],
      [1, 1],
      [2 ** 40 + 1, 0],
    ].map(([seed, epoch]) => {
      return Array.from({ length: 50 }, (_, i) => permutedIndex(i, 50, seed!, epoch)).join();
    });
    orders.push(Array.from({ length: 50 }, (_, i) => i).join());
    expect(new Set(orders).size).toBe(5);
  });

  it('works far beyond what a list could hold', () => {
    const order = permutation(2 ** 40, 3);
    const values = [0, 1, 2 ** 39, 2 ** 40 - 1].map(order);
    expect(new Set(values).size).toBe(4);
    for (const value of values) expect(Number.isSafeInteger(value) && value >= 0 && value < 2 ** 40).toBe(true);
  });

  it('refuses arguments outside its domain', () => {
    for (const bad of [
      () => permutation(0, 1),
      () => permutation(3, -1),
      () => permutation(3, 1)(3),
      () => permutation(2 ** 41, 0),
    ]) {
      expect(bad).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    }
  });
});

describe('batches', () => {
  it('gives every row once an epoch and resumes from any cursor', async () => {
    const dataset = numbers(23);
    const all = await take(batches(dataset, { batchSize: 5, seed: 9, epochs: 3 }));
    expect(all).toHaveLength(15);
    for (let epoch = 0; epoch < 3; epoch++) {
      const indices = all.filter(({ cursor }) => cursor.epoch === epoch).flatMap((batch) => batch.indices);
      expect([...indices].sort((a, b) => a - b)).toEqual(Array.from({ length: 23 }, (_, i) => i));
    }
    expect(all[0]!.rows.map(({ id }) => Number(id))).toEqual(all[0]!.indices);
    for (const [i, { cursor }] of all.entries()) {
      const saved = JSON.parse(JSON.stringify(cursor)) as typeof cursor;
      const rest = await take(batches(dataset, { batchSize: 5, epochs: 3, cursor: saved }));
      expect(rest.map(({ indices }) => indices)).toEqual(all.slice(i + 1).map(({ indices }) => indices));
    }
  });

  it('drops the short batch or keeps the order when asked to', async () => {
    const dropped = await take(batches(numbers(7), { batchSize: 3, epochs: 2, lastBatch: 'drop' }));
    expect(dropped.map(({ indices }) => indices.length)).toEqual([3, 3, 3, 3]);
    const plain = await take(batches(numbers(4), { batchSize: 3, epochs: 1, shuffle: false }));
    expect(plain.map(({ indices }) => indices)).toEqual([[0, 1, 2], [3]]);
    expect(await take(batches(numbers(2), { batchSize: 1 }), 9)).toHaveLength(9);
    await expect(take(batches(numbers(2), { batchSize: 3, lastBatch: 'drop' }))).rejects.toMatchObject({
      code: 'bad_data',
    });
  });

  it('refuses a cursor of another data set, a batch of none, and stops on abort', async () => {
    const [{ cursor }] = (await take(batches(numbers(6), { batchSize: 2 }), 1)) as [Batch];
    await expect(take(batches(numbers(6, 'other'), { batchSize: 2, cursor }))).rejects.toMatchObject({
      code: 'bad_data',
    });
    await expect(take(batches(numbers(6), { batchSize: 0 }))).rejects.toMatchObject({ code: 'invalid_argument' });
    const broken = { ...cursor, position: 7 };
    await expect(take(batches(numbers(6), { batchSize: 2, cursor: broken }))).rejects.toMatchObject({
      code: 'invalid_argument',
    });
    const reason = new Error('stop');
    await expect(take(batches(numbers(6), { batchSize: 2, signal: AbortSignal.abort(reason) }))).rejects.toBe(reason);
  });
});

describe('data sets in memory', () => {
  const row = (id: string, value: number) => ({
    id,
    prompt: '<image>',
    images: [{ rgb: new Uint8Array(3).fill(value), width: 1, height: 1 }],
  });

  it('has a fingerprint that follows the content', () => {
    const print = (...rows: ReturnType<typeof row>[]) => datasetFromRows('d', rows).fingerprint;
    expect(print(row('a', 1))).toBe(print(row('a', 1)));
    expect(new Set([print(row('a', 1)), print(row('a', 2)), print(row('b', 1))]).size).toBe(3);
  });

  it('refuses an empty set, a repeated id, a wrong number of images and a wrong index', async () => {
    expect(() => datasetFromRows('d', [])).toThrow(expect.objectContaining({ code: 'bad_data' }));
    expect(() => numbers(0)).toThrow(expect.objectContaining({ code: 'bad_data' }));
    expect(() => datasetFromRows('d', [row('a', 1), row('a', 2)])).toThrow(
      expect.objectContaining({ code: 'bad_data' }),
    );
    expect(() => datasetFromRows('d', [{ ...row('a', 1), images: [] }])).toThrow(
      expect.objectContaining({ code: 'image_count_mismatch' }),
    );
    await expect(datasetFromRows('d', [row('a', 1)]).row(1)).rejects.toMatchObject({ code: 'invalid_argument' });
  });
});
