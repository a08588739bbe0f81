/** Rewards of a rollout to advantages, with the KL to the reference as one more reward where the options say so. */
import type { NativeGroup } from '../binding/contract.js';
import { computeAdvantages, type Advantages } from '../rewards/advantages.js';
import type { GrpoSettings } from './grpo-options.js';
import type { Rollout, RolloutGroup } from './grpo-rollout.js';

type KlSettings = Pick<GrpoSettings, 'klEstimator' | 'klClamp'>;

/** Estimates of KL(policy || reference) of completions that the policy drew. */
export interface SampledKl {
  /** Sum over the tokens of each completion, in nats. */
  sums: number[];
  /** Mean over all tokens. */
  mean: number;
}

/** One token's estimate from the log-probs of the policy and the reference (Schulman 2020). */
export function klEstimate(policy: number, reference: number, { klEstimator, klClamp }: KlSettings): number {
  const free = reference - policy;
  const d = klClamp > 0 ? Math.max(-klClamp, Math.min(klClamp, free)) : free;
  if (klEstimator === 'k1') return -d;
  return klEstimator === 'k2' ? (d * d) / 2 : Math.expm1(d) - d;
}

/** Of groups that have the sampler's log-probs as `oldLogprobs`, and `referenceLogprobs`. */
export function sampledKl(groups: readonly NativeGroup[], settings: KlSettings): SampledKl {
  const sums: number[] = [];
  let numTokens = 0;
  for (const { completions } of groups) {
    for (const { tokens, oldLogprobs, referenceLogprobs } of completions) {
      let sum = 0;
      for (let t = 0; t < tokens.length; t++) sum += klEstimate(oldLogprobs![t]!, referenceLogprobs![t]!, settings);
      sums.push(sum);
      numTokens += tokens.length;
    }
  }
  return { sums, mean: sums.reduce((total, sum) => total + sum, 0) / numTokens };
}

/** Statistics of the rewards of `groups`, and their advantages [groups * G]. */
export function groupAdvantages(
  groups: readonly RolloutGroup[],
  { weights }: Pick<Rollout, 'weights'>,
  options: GrpoSettings,
  kl?: SampledKl,
): Advantages {
  const { groupSize, aggregation, baseline, scaleRewards, beta } = options;
  const settings = {
    groupSize,
    aggregation,
    ...(baseline === undefined ? {} : { baseline }),
    ...(scaleRewards === undefined ? {} : { scaleRewards }),
  };
  const table = groups.flatMap(({ rewards }) => rewards);
  const own = computeAdvantages(table, { ...settings, weights });
  if (kl === undefined) return own;
  // A completion without any reward stays without one.
  const withKl = table.map((row, i) => [...row, row.every((value) => value === null) ? null : kl.sums[i]!]);
  return { ...own, advantages: computeAdvantages(withKl, { ...settings, weights: [...weights, -beta] }).advantages };
}
