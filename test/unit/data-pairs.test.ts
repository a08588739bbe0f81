import { describe, expect, it } from 'vitest';
import { generatedPairs, pairBatches, pairsFromRows, type PairRow } from '../../src/data/pairs.js';
import type { Row } from '../../src/data/rows.js';

const row = (id: string, more: Partial<Row> = {}): Row => ({ id, prompt: 'p', images: [], ...more });
const pair = (id: string, more: Partial<PairRow> = {}): PairRow => ({
  id,
  first: row(`${id}/1`, { completion: 'a' }),
  second: row(`${id}/2`, { completion: 'b' }),
  preference: 'first',
  ...more,
});

describe('pairs', () => {
  it('gives pairs by index, with a fingerprint of their content', async () => {
    const pairs = [pair('a'), pair('b', { preference: 'tie', dimensions: { style: 'second' } })];
    const data = pairsFromRows('set', pairs);
    expect([data.name, data.size]).toEqual(['set', 2]);
    expect(await data.pair(1)).toBe(pairs[1]);
    expect(pairsFromRows('other', pairs).fingerprint).toBe(data.fingerprint);
    for (const other of [
      pair('b', { preference: 'first', dimensions: { style: 'second' } }),
      pair('b', { preference: 'tie', dimensions: { style: 'tie' } }),
      pair('b', { preference: 'tie', second: row('b/2', { completion: 'c' }), dimensions: { style: 'second' } }),
      pair('b', {
        preference: 'tie',
        dimensions: { style: 'second' },
        scores: { first: { style: 1 }, second: { style: 2 } },
      }),
    ])
      expect(pairsFromRows('set', [pairs[0]!, other]).fingerprint).not.toBe(data.fingerprint);
    for (const index of [-1, 2, 0.5])
      await expect(data.pair(index)).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it.each([
    ['image_count_mismatch', pair('a', { first: row('x', { prompt: '<image>' }) })],
    ['image_count_mismatch', pair('a', { second: row('x', { images: [{ path: 'a.png' }] }) })],
    ['bad_data', pair('a', { second: row('a/1') })],
    ['bad_data', pair('a', { preference: 'left' as 'first' })],
    ['bad_data', pair('a', { dimensions: { style: 1 as unknown as 'first' } })],
    ['bad_data', pair('a', { scores: { first: { style: NaN }, second: {} } })],
  ])('refuses with %s what cannot be compared', async (code, bad) => {
    expect(() => pairsFromRows('set', [bad])).toThrow(expect.objectContaining({ code }) as Error);
    const generated = generatedPairs({ name: 'set', size: 1, key: '', make: () => bad });
    await expect(generated.pair(0)).rejects.toMatchObject({ code });
  });

  it('refuses ids twice and empty sets', () => {
    expect(() => pairsFromRows('set', [pair('a'), pair('a')])).toThrow(/"a" twice/);
    expect(() => pairsFromRows('set', [])).toThrow(/at least one row/);
    expect(() => generatedPairs({ name: 'set', size: 0, key: '', make: () => pair('a') })).toThrow(/at least one row/);
    expect(() => generatedPairs({ name: 'set', size: 0.5, key: '', make: () => pair('a') })).toThrow(/size/);
  });

  it('makes pairs when asked, with a fingerprint of name, size and key', async () => {
    const make = (key: string, size = 5) =>
      generatedPairs({ name: 'set', size, key, make: (index) => pair(`${key}${index}`) });
    expect((await make('k').pair(3)).id).toBe('k3');
    expect(make('k').fingerprint).toBe(make('k').fingerprint);
    expect(make('k').fingerprint).not.toBe(make('l').fingerprint);
    expect(make('k').fingerprint).not.toBe(make('k', 6).fingerprint);
  });

  it('iterates batches by seed and resumes from any cursor', async () => {
    const data = generatedPairs({ name: 'set', size: 7, key: 'k', make: (index) => pair(String(index)) });
    const whole = [];
    for await (const batch of pairBatches(data, { batchSize: 3, seed: 5, epochs: 2 })) whole.push(batch);
    expect(whole.map(({ pairs }) => pairs.length)).toEqual([3, 3, 1, 3, 3, 1]);
    expect(new Set(whole.slice(0, 3).flatMap(({ pairs }) => pairs.map(({ id }) => id))).size).toBe(7);
    const rest = [];
    for await (const batch of pairBatches(data, { batchSize: 3, epochs: 2, cursor: whole[1]!.cursor }))
      rest.push(batch);
    expect(rest).toEqual(whole.slice(2));
    const other = generatedPairs({ name: 'set', size: 7, key: 'l', make: (index) => pair(String(index)) });
    await expect(pairBatches(other, { batchSize: 3, cursor: whole[1]!.cursor }).next()).rejects.toMatchObject({
      code: 'bad_data',
    });
  });
});
