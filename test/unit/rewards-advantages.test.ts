import { readFile } from 'node:fs/promises';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { computeAdvantages, type AdvantageOptions } from '../../src/rewards/advantages.js';

interface Golden {
  advantages: {
    rewards_per_func: (number | null)[][];
    weights: number[];
    num_generations: number;
    rules: Record<string, number[]>;
  };
}

const { advantages: golden } = JSON.parse(
  await readFile(new URL('../goldens/grpo_loss.json', import.meta.url), 'utf8'),
) as Golden;

const close = (actual: ArrayLike<number>, wanted: readonly number[]): void => {
  expect(actual).toHaveLength(wanted.length);
  wanted.forEach((value, i) => expect(Math.abs(actual[i]! - value)).toBeLessThan(1e-14));
};

describe('advantages', () => {
  const rules: [string, Partial<AdvantageOptions>][] = [
    ['sum_then_normalize.group', { scaleRewards: 'group' }],
    ['sum_then_normalize.batch', { scaleRewards: 'batch' }],
    ['sum_then_normalize.none', { scaleRewards: 'none' }],
    ['normalize_then_sum', { aggregation: 'normalize_then_sum' }],
  ];

  it.each(rules)('%s equals the golden, missing rewards included', (rule, options) => {
    const { rewards_per_func: table, weights, num_generations: groupSize } = golden;
    close(computeAdvantages(table, { groupSize, weights, ...options }).advantages, golden.rules[rule]!);
    close(computeAdvantages(table, { groupOffsets: [0, 3, 6], weights, ...options }).advantages, golden.rules[rule]!);
  });

  it('has every rule of the golden file', () =>
    expect(Object.keys(golden.rules).sort()).toEqual(rules.map(([name]) => name).sort()));

  it('gives the numbers written down for rewards 1, 0, 0.5, 0.25', () => {
    const table = [[1], [0], [0.5], [0.25]];
    const group = computeAdvantages(table, { groupSize: 2 }).advantages;
    [0.7070067953, -0.7070067953, 0.7067070073, -0.7067070073].forEach((value, i) =>
      expect(group[i]).toBeCloseTo(value, 10),
    );
    const batch = computeAdvantages(table, { groupSize: 2, scaleRewards: 'batch' }).advantages;
    [1.1708058661, -1.1708058661, 0.2927014665, -0.2927014665].forEach((value, i) =>
      expect(batch[i]).toBeCloseTo(value, 10),
    );
  });

  it('leaves one out', () => {
    const options = { groupSize: 4, baseline: 'leave_one_out', scaleRewards: 'none' } as const;
    close(computeAdvantages([[1], [0], [0], [3]], options).advantages, [0, -4 / 3, -4 / 3, 3 - 1 / 3]);
    close(computeAdvantages([[1], [null], [0], [null]], options).advantages, [1, 0, -1, 0]);
    // The others of the only one present are none: no opinion.
    close(computeAdvantages([[1], [null], [null], [null]], options).advantages, [0, 0, 0, 0]);
  });

  it('sums to zero in each group and ignores a constant shift', () => {
    const rewards = fc.array(fc.double({ min: -5, max: 5, noNaN: true }), { minLength: 8, maxLength: 8 });
    fc.assert(
      fc.property(
        rewards,
        fc.double({ min: -3, max: 3, noNaN: true }),
        fc.constantFrom('group', 'batch', 'none'),
        (values, shift, scaleRewards) => {
          const options = { groupSize: 4, scaleRewards } as const;
          const plain = computeAdvantages(
            values.map((value) => [value]),
            options,
          ).advantages;
          for (const start of [0, 4])
            expect(Math.abs(plain.slice(start, start + 4).reduce((a, b) => a + b, 0))).toBeLessThan(1e-9);
          const shifted = computeAdvantages(
            values.map((value) => [value + shift]),
            options,
          ).advantages;
          plain.forEach((value, i) => expect(Math.abs(value - shifted[i]!)).toBeLessThan(1e-8));
        },
      ),
    );
  });

  it('reports the share of rows in groups without variance', () => {
    const table = [[1], [1], [0], [1], [0.5], [0.5]];
    const result = computeAdvantages(table, { groupSize: 2 });
    expect(result.fracRewardZeroStd).toBeCloseTo(4 / 6, 12);
    expect(Array.from(result.groupMeans)).toEqual([1, 0.5, 0.5]);
    expect(Array.from(result.advantages.slice(0, 2))).toEqual([0, 0]);
    expect(
      computeAdvantages([[1], [1], [1], [0], [2], [2]], { groupOffsets: [0, 4, 6] }).fracRewardZeroStd,
    ).toBeCloseTo(2 / 6, 12);
    expect(computeAdvantages([[null], [null]], { groupSize: 2 }).fracRewardZeroStd).toBe(0);
  });

  it.each<[string, (number | null)[][], AdvantageOptions, string]>([
    ['a group of one', [[1]], { groupSize: 1 }, 'invalid_argument'],
    ['part of a group', [[1], [2], [3]], { groupSize: 2 }, 'invalid_argument'],
    ['no row', [], { groupSize: 2 }, 'invalid_argument'],
    ['no grouping', [[1], [2]], {}, 'invalid_argument'],
    ['offsets that do not rise', [[1], [2]], { groupOffsets: [0, 0, 2] }, 'invalid_argument'],
    ['offsets that end early', [[1], [2]], { groupOffsets: [0, 1] }, 'invalid_argument'],
    [
      'a missing weight',
      [
        [1, 2],
        [1, 2],
      ],
      { groupSize: 2, weights: [1] },
      'invalid_argument',
    ],
    [
      'two rules at once',
      [[1], [2]],
      { groupSize: 2, aggregation: 'normalize_then_sum', scaleRewards: 'batch' },
      'invalid_argument',
    ],
    ['NaN', [[1], [NaN]], { groupSize: 2 }, 'non_finite'],
  ])('refuses %s', (_, table, options, code) => {
    expect(() => computeAdvantages(table, options)).toThrow(expect.objectContaining({ code }));
  });
});
