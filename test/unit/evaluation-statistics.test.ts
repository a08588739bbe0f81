import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bootstrapInterval, pairedBootstrap } from '../../src/evaluation/bootstrap.js';
import { wilsonInterval } from '../../src/evaluation/interval.js';
import { seededUnit, seededUnits, seededWord } from '../../src/seeded.js';

describe('Wilson interval', () => {
  test('equals published values', () => {
    // Newcombe (1998), table I: 81 of 263 and 0 of 20.
    const a = wilsonInterval(81, 263);
    expect(a.low).toBeCloseTo(0.2553, 4);
    expect(a.high).toBeCloseTo(0.3662, 4);
    const b = wilsonInterval(0, 20);
    expect(b.low).toBe(0);
    expect(b.high).toBeCloseTo(0.1611, 4);
  });

  test('holds the rate, lies in [0, 1] and shrinks with the count', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.float({ min: 0, max: 1, noNaN: true }), (count, share) => {
        const successes = Math.round(share * count);
        const { low, high } = wilsonInterval(successes, count);
        const wide = wilsonInterval(successes * 4, count * 4);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(successes / count);
        expect(high).toBeGreaterThanOrEqual(successes / count);
        expect(wide.high - wide.low).toBeLessThan(high - low);
      }),
    );
  });

  test('says nothing without observations', () => {
    expect(wilsonInterval(0, 0)).toEqual({ low: 0, high: 1 });
  });
});

describe('paired bootstrap', () => {
  test('finds a difference that is there, and none that is not', async () => {
    const a = Array.from({ length: 400 }, (_, i) => Number(i % 2 === 0));
    const better = a.map((mark, i) => (i % 10 === 1 ? 1 : mark));
    const found = await pairedBootstrap(a, better, { resamples: 500, seed: 3 });
    expect(found.difference).toBeCloseTo(0.1, 12);
    expect(found.low).toBeGreaterThan(0.05);
    expect(found.high).toBeLessThan(0.15);
    expect(found.shareNotAbove).toBe(0);
    const same = await pairedBootstrap(a, a, { resamples: 100 });
    expect(same).toMatchObject({ difference: 0, low: 0, high: 0, shareNotAbove: 1 });
  });

  test('has the spread that theory gives', async () => {
    const a = new Array<number>(1000).fill(0);
    const b = a.map((_, i) => Number(i % 2));
    const { low, high } = await pairedBootstrap(a, b, { resamples: 2000, seed: 1 });
    // Standard error of a mean of 1000 fair coins: 0.0158.
    expect(high - low).toBeGreaterThan(2 * 1.96 * 0.0158 * 0.85);
    expect(high - low).toBeLessThan(2 * 1.96 * 0.0158 * 1.15);
  });

  test('refuses unequal lists', async () => {
    await expect(pairedBootstrap([1], [1, 0])).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  test('lets the event loop turn', async () => {
    const marks = Array.from({ length: 2000 }, (_, i) => i % 2);
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    await pairedBootstrap(marks, marks, { resamples: 2000 });
    clearInterval(timer);
    expect(turns).toBeGreaterThan(3);
  });
});

describe('bootstrap of a mean', () => {
  test('is the value itself when all items agree, null without items, equal for equal seeds', async () => {
    expect(await bootstrapInterval([1, 1, 1])).toEqual({ low: 1, high: 1 });
    expect(await bootstrapInterval([])).toBeNull();
    const marks = Array.from({ length: 50 }, (_, i) => (i % 3 === 0 ? 1 : 0));
    const interval = await bootstrapInterval(marks, { seed: 4 });
    expect(await bootstrapInterval(marks, { seed: 4 })).toEqual(interval);
    expect(await bootstrapInterval(marks, { seed: 5, resamples: 300 })).not.toEqual(interval);
  });

  test('has the width that theory gives, and a wider one at a higher level', async () => {
    const marks = Array.from({ length: 1000 }, (_, i) => i % 2);
    const { low, high } = (await bootstrapInterval(marks, { seed: 1 }))!;
    expect(high - low).toBeGreaterThan(2 * 1.96 * 0.0158 * 0.85);
    expect(high - low).toBeLessThan(2 * 1.96 * 0.0158 * 1.15);
    const wide = (await bootstrapInterval(marks, { seed: 1, level: 0.99 }))!;
    expect(wide.high - wide.low).toBeGreaterThan(high - low);
  });

  test('refuses no resamples and a level of 1', async () => {
    await expect(bootstrapInterval([1], { resamples: 0 })).rejects.toMatchObject({ code: 'invalid_argument' });
    await expect(bootstrapInterval([1], { level: 1 })).rejects.toMatchObject({ code: 'invalid_argument' });
  });
});

describe('seeded numbers', () => {
  test('are uniform enough and depend on every word of the key', () => {
    let sum = 0;
    const buckets = new Array<number>(16).fill(0);
    for (let i = 0; i < 16_000; i++) {
      const unit = seededUnit(7, 3, i);
      sum += unit;
      buckets[Math.floor(unit * 16)]!++;
    }
    expect(sum / 16_000).toBeCloseTo(0.5, 1);
    expect(Math.max(...buckets)).toBeLessThan(1150);
    expect(Math.min(...buckets)).toBeGreaterThan(850);
    expect(new Set([seededWord(1, 2, 3), seededWord(1, 3, 2), seededWord(2, 2, 3), seededWord(1, 2)]).size).toBe(4);
  });
});

test('a stream of seeded units is the units one by one', () => {
  const at = seededUnits(7, 3);
  for (const i of [0, 1, 2, 1e6]) expect(at(i)).toBe(seededUnit(7, 3, i));
});
