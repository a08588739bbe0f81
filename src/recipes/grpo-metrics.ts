/** Metrics of one rollout under the names users of GRPO know. */
import type { NativeGroup, NativeStepResult } from '../binding/contract.js';
import type { Advantages } from '../rewards/advantages.js';
import type { RewardTable } from '../rewards/reward.js';
import type { DrawnCompletion } from './policy.js';

export interface RolloutFacts {
  drawn: readonly DrawnCompletion[];
  table: RewardTable;
  advantages: Advantages;
  /** What was trained, after dropping; `trained` is the first update's result on it. */
  groups: readonly NativeGroup[];
  trained: NativeStepResult | undefined;
  hasFormat: (text: string) => boolean;
}

interface Moments {
  mean: number;
  std: number;
}

/** Mean and standard deviation (n - 1), NaN left out. */
function moments(values: Iterable<number>): Moments {
  const present = [...values].filter((value) => !Number.isNaN(value));
  const mean = present.reduce((sum, value) => sum + value, 0) / Math.max(1, present.length);
  const squares = present.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  return { mean, std: present.length < 2 ? 0 : Math.sqrt(squares / (present.length - 1)) };
}

export function rolloutMetrics(facts: RolloutFacts): Record<string, number> {
  const { drawn, table, advantages, groups, trained, hasFormat } = facts;
  const lengths = drawn.map(({ tokens }) => tokens.length);
  const metrics: Record<string, number> = {
    reward: moments(advantages.rewards).mean,
    reward_std: moments(advantages.groupStds).mean,
    frac_reward_zero_std: advantages.fracRewardZeroStd,
    'completions/mean_length': moments(lengths).mean,
    'completions/min_length': Math.min(...lengths),
    'completions/max_length': Math.max(...lengths),
    'completions/clipped_ratio': moments(drawn.map(({ finishReason }) => Number(finishReason === 'length'))).mean,
    format_rate: moments(drawn.map(({ text }) => Number(hasFormat(text)))).mean,
    ...logprobDifference(groups, trained),
  };
  for (const [k, name] of table.names.entries()) {
    const { mean, std } = moments(table.values.map((row) => row[k] ?? NaN));
    metrics[`rewards/${name}/mean`] = mean;
    metrics[`rewards/${name}/std`] = std;
  }
  return metrics;
}

/** How far the trainer's log-probs are from the sampler's before any update: exactly 0 on an exact engine. */
function logprobDifference(
  groups: readonly NativeGroup[],
  trained: NativeStepResult | undefined,
): Record<string, number> {
  if (trained === undefined) return {};
  let at = 0;
  let sum = 0;
  let max = 0;
  for (const { completions } of groups) {
    for (const { oldLogprobs } of completions) {
      for (const old of oldLogprobs ?? []) {
        const difference = Math.abs(trained.logprobs[at++]! - old);
        sum += difference;
        max = Math.max(max, difference);
      }
    }
  }
  return {
    'sampling/sampling_logp_difference/mean': at === 0 ? 0 : sum / at,
    'sampling/sampling_logp_difference/max': max,
  };
}
