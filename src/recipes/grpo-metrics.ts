/**
 * Metrics of one rollout under the names users of GRPO know. Everything that was drawn counts, also what dynamic sampling
 * replaced: these are measures of the policy, not of what it was trained on.
 */
import { computeAdvantages } from '../rewards/advantages.js';
import type { Rollout } from './grpo-rollout.js';

interface Moments {
  mean: number;
  std: number;
}

/** Mean and standard deviation (n - 1), NaN left out; undefined of nothing. */
function moments(values: Iterable<number>): Moments | undefined {
  const present = [...values].filter((value) => !Number.isNaN(value));
  if (present.length === 0) return undefined;
  const mean = present.reduce((sum, value) => sum + value, 0) / present.length;
  const squares = present.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, std: present.length < 2 ? 0 : Math.sqrt(squares / (present.length - 1)) };
}

/** Mean, least and most; 0 without any, as TRL writes it. */
function spread(name: string, lengths: readonly number[]): Record<string, number> {
  const values = lengths.length === 0 ? [0] : lengths;
  return {
    [`completions/mean_${name}`]: values.reduce((sum, length) => sum + length, 0) / values.length,
    [`completions/min_${name}`]: values.reduce((least, length) => Math.min(least, length)),
    [`completions/max_${name}`]: values.reduce((most, length) => Math.max(most, length)),
  };
}

/** Mean and spread of rewards, under these names; left out where every reward is missing. */
function rewardMoments(mean: string, std: string, values: Iterable<number>): Record<string, number> {
  const found = moments(values);
  return found === undefined ? {} : { [mean]: found.mean, [std]: found.std };
}

const share = (flags: readonly boolean[]): number => flags.filter(Boolean).length / flags.length;

/** `reward` is absent when every reward function had no opinion on every completion. */
export function rolloutMetrics(
  { drawn, groups, names, weights, rounds, replaced }: Rollout,
  hasFormat: (text: string) => boolean,
): Record<string, number> {
  const completions = drawn.flatMap((group) => group.completions);
  const table = drawn.flatMap(({ rewards }) => rewards);
  const groupSize = drawn[0]!.completions.length;
  const { rewards, fracRewardZeroStd } = computeAdvantages(table, { groupSize, weights });
  const ended = completions.filter(({ finishReason }) => finishReason === 'stop');
  const metrics: Record<string, number> = {
    ...rewardMoments('reward', 'reward_std', rewards),
    frac_reward_zero_std: fracRewardZeroStd,
    ...spread(
      'length',
      completions.map(({ tokens }) => tokens.length),
    ),
    ...spread(
      'terminated_length',
      ended.map(({ tokens }) => tokens.length),
    ),
    'completions/clipped_ratio': 1 - ended.length / completions.length,
    format_rate: share(completions.map(({ text }) => hasFormat(text))),
    parse_fail: share(drawn.flatMap(({ verdicts }) => verdicts.map(({ answer }) => answer === null))),
    'dynamic_sampling/rounds': rounds,
    'dynamic_sampling/groups_drawn': groups.length + replaced,
    'dynamic_sampling/groups_replaced': replaced,
  };
  for (const [k, name] of names.entries()) {
    const column = table.map((row) => row[k] ?? NaN);
    Object.assign(metrics, rewardMoments(`rewards/${name}/mean`, `rewards/${name}/std`, column));
  }
  return metrics;
}
