/** The optimizer steps on one rollout, and what they measured. */
import type { NativeOptimizerResult, NativeStepResult } from '../binding/contract.js';
import type { Model } from '../engine/model.js';
import { grpoObjective } from './grpo-objective.js';
import type { GrpoSettings } from './grpo-options.js';
import type { UpdateBatch } from './grpo-pack.js';
import { microBatchTokens, optimizerOptions } from './optimizer-options.js';
import { packedTokens } from './packed-tokens.js';

export interface UpdateSummary {
  /** Optimizer steps taken. */
  count: number;
  /** Means over them; 0 without any. */
  loss: number;
  gradNorm: number;
  /** No gradient was infinite or NaN. */
  applied: boolean;
  /** Packed tokens trained. */
  tokens: number;
  /** Means over them; of clip_ratio/low_min and /high_max the extremes. */
  metrics: Record<string, number>;
  /** Of the first one, before which the weights were those that sampled. */
  sampling: Record<string, number>;
}

/**
 * `updatesPerRollout` passes over the batches, an optimizer step on each. A batch in which nothing can train gives no step:
 * the weights would move by the optimizer's momentum alone.
 */
export async function updatePolicy(
  model: Model,
  batches: readonly UpdateBatch[],
  options: GrpoSettings,
  learningRate: number,
  signal: AbortSignal,
): Promise<UpdateSummary> {
  const results: NativeStepResult[] = [];
  const updates: NativeOptimizerResult[] = [];
  let sampling: Record<string, number> = {};
  const objective = grpoObjective(options);
  for (let pass = 0; pass < options.updatesPerRollout; pass++) {
    for (const batch of batches) {
      if (batch.groups.length === 0) continue;
      const result = await model.forwardBackward(batch.groups, [objective], {
        maxTokensPerMicroBatch: microBatchTokens(options.microBatch, packedTokens(batch.groups)),
        activationCheckpointing: options.microBatch.activationCheckpointing,
        stepCompletions: batch.stepCompletions,
        stepTokens: batch.stepTokens,
        signal,
      });
      if (results.length === 0) sampling = logprobDifference(batch, result);
      results.push(result);
      updates.push(await model.optimizerStep({ ...optimizerOptions(options.optimizer, learningRate), signal }));
    }
  }
  return {
    count: updates.length,
    loss: mean(results.map(({ loss }) => loss)) ?? 0,
    gradNorm: mean(updates.map(({ gradNorm }) => gradNorm)) ?? 0,
    applied: updates.every(({ applied }) => applied),
    tokens: results.reduce((sum, result) => sum + result.packedTokens, 0),
    metrics: meanMetrics(results.map(({ metrics }) => metrics)),
    sampling,
  };
}

const mean = (values: readonly number[]): number | undefined =>
  values.length === 0 ? undefined : values.reduce((sum, value) => sum + value, 0) / values.length;

/** Metrics of several steps as one. */
export function meanMetrics(steps: readonly Record<string, number>[]): Record<string, number> {
  const names = [...new Set(steps.flatMap((metrics) => Object.keys(metrics)))];
  return Object.fromEntries(
    names.map((name) => {
      const values = steps.flatMap((metrics) => metrics[name] ?? []);
      if (name.endsWith('_min')) return [name, Math.min(...values)];
      return [name, name.endsWith('_max') ? Math.max(...values) : mean(values)!];
    }),
  );
}

/** How far the trainer's log-probs are from the sampler's before any update: exactly 0 on an exact engine. */
function logprobDifference({ groups }: UpdateBatch, { logprobs }: NativeStepResult): Record<string, number> {
  let at = 0;
  let sum = 0;
  let max = 0;
  for (const { completions } of groups) {
    for (const { oldLogprobs } of completions) {
      for (const old of oldLogprobs!) {
        const difference = Math.abs(logprobs[at++]! - old);
        sum += difference;
        max = Math.max(max, difference);
      }
    }
  }
  return {
    'sampling/sampling_logp_difference/mean': sum / at,
    'sampling/sampling_logp_difference/max': max,
  };
}
