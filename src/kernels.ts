/**
 * `gavel-rl/kernels`: the engine's CPU kernels one by one on typed arrays, synchronous, for measurement and for people who
 * write their own loops. Arrays are row-major. Every function throws GavelError 'invalid_argument' for an array of another
 * type or length. Importing this loads no binary; the first call does.
 */
import { z } from 'zod';
import type { NativeDpoLossInput, NativeGrpoLossInput, NativeKernels } from './binding/contract-kernels.js';
import { nativeModule } from './engine/native-module.js';
import { parseOptions } from './engine/parse-options.js';
import { grpoLossShape } from './engine/policy-objectives.js';
import { nativeRankingLoss, rankingLossInputSchema, type RankingLossInput } from './engine/ranking-loss-input.js';

export type { RankingLossInput };

// Values are checked where they are read; a key that nobody reads would be a setting without effect.
const known = (...names: readonly string[]): z.ZodObject =>
  z.strictObject(Object.fromEntries(names.map((name) => [name, z.unknown().optional()])));
const lossKeys = ['logprobs', 'referenceLogprobs', 'mask', 'offsets'];
const grpoArrays = ['oldLogprobs', 'samplingLogprobs', 'importanceRatio', 'entropies', 'advantages', 'tokenAdvantages'];
const grpoKeys = known(...lossKeys, ...grpoArrays, 'numSequences', 'numTokens').extend({
  options: known(...Object.keys(grpoLossShape)).optional(),
});
const dpoKeys = known(...lossKeys, 'chosen', 'rejected', 'numPairs').extend({
  options: known('loss', 'beta', 'labelSmoothing').optional(),
});

const kernels = (): NativeKernels => nativeModule().kernels;

export interface GrpoLossInput extends Omit<NativeGrpoLossInput, 'options' | 'numSequences' | 'numTokens'> {
  options?: Partial<NativeGrpoLossInput['options']>;
  /** Sequences of the whole optimizer step. Default: those given. */
  numSequences?: number;
  /** Active tokens of the whole optimizer step. Default: those of `mask`, at least 1. */
  numTokens?: number;
}

/**
 * Loss of the GRPO family on given log-probs and its gradient to them, in double precision. `logprobs`, `oldLogprobs`
 * (absent: on-policy), `referenceLogprobs` (needed when beta is not 0), `samplingLogprobs`, `importanceRatio`, `entropies`,
 * `tokenAdvantages` and `mask` are flat over sequences; `offsets` has one entry more than there are sequences; `advantages`
 * one a sequence. Options are those of the objective `grpo`, with its defaults; `topEntropyQuantile` is of the tokens given.
 * Returns the loss, the gradients to log-probs and entropies (one a token) and metrics by the field's names.
 */
export function grpoLoss(input: GrpoLossInput): {
  loss: number;
  gradient: Float64Array;
  entropyGradient: Float64Array;
  metrics: Record<string, number>;
} {
  parseOptions(grpoKeys, input, 'input');
  const { offsets, mask }: Partial<GrpoLossInput> = input;
  const { options = {}, numSequences = (offsets?.length ?? 1) - 1, numTokens, ...arrays } = input;
  const epsilonLow = options.epsilonLow ?? 0.2;
  return kernels().grpoLoss({
    ...arrays,
    numSequences,
    numTokens: numTokens ?? Math.max(1, mask instanceof Uint8Array ? mask.reduce((sum, active) => sum + active, 0) : 1),
    options: {
      lossType: 'dapo',
      importanceSampling: 'token',
      epsilonHigh: epsilonLow,
      delta: 0,
      beta: 0,
      klBiasCorrection: true,
      klClamp: 10,
      maxCompletionLength: 0,
      ...options,
      epsilonLow,
    },
  });
}

export interface DpoLossInput extends Omit<NativeDpoLossInput, 'options' | 'numPairs'> {
  options?: Partial<NativeDpoLossInput['options']>;
  /** Pairs of the whole optimizer step. Default: those given. */
  numPairs?: number;
}

/**
 * Loss of direct preference optimization on given log-probs and its gradient to them, in double precision. `logprobs`,
 * `referenceLogprobs` and `mask` are flat over sequences; `offsets` has one entry more than there are sequences; pair p
 * prefers sequence chosen[p] to rejected[p]. Defaults: loss 'sigmoid', beta 0.1, labelSmoothing 0.
 */
export function dpoLoss(input: DpoLossInput): {
  loss: number;
  gradient: Float64Array;
  metrics: Record<string, number>;
} {
  parseOptions(dpoKeys, input, 'input');
  const { chosen }: Partial<DpoLossInput> = input;
  const { options, numPairs = chosen?.length ?? 0, ...arrays } = input;
  return kernels().dpoLoss({
    ...arrays,
    numPairs: Math.max(numPairs, 1),
    options: { loss: 'sigmoid', beta: 0.1, labelSmoothing: 0, ...options },
  });
}

/**
 * Loss of a reward head on given scores and its gradient to them, in double precision: S scores of H = `heads` Gaussians
 * N(mu, sigma^2), `mu` and `logSigma` [S, H] (doubles, or as `model.score()` gives them), P `pairs` of scores by index.
 * `options.loss`, with r the heads fused to one scalar and z = r_w - r_l ~ N(m, s^2) of winner and loser:
 * - 'bradley_terry': -log sigmoid(m - margin) (Bradley and Terry 1952).
 * - 'bradley_terry_ties': -log P with P(i over j) = e^ri / (e^ri + k e^rj), k = `tieRatio`, P(tie) the rest (Rao and Kupper
 *   1967); a pair whose `ties` is 1 has no winner.
 * - 'uncertainty': -log E[sigmoid(z - margin)], or by `form` its bound E[-log sigmoid(z - margin)]; `estimator` 'quadrature'
 *   is Gauss-Hermite's, 'probit' sigmoid(m / sqrt(1 + pi s^2 / 8)) (MacKay 1992), 'monte_carlo' seeded draws. log sigma is
 *   clamped to `logSigmaMin`, `logSigmaMax`, without gradient beyond. The only loss that reads `logSigma` and has a gradient
 *   to it.
 * - 'regression': squared error of mu to `targets` [S, H], NaN or null where one is missing.
 *
 * `pairs.labels` [P, H] gives each head a preference of its own instead; a pair's loss is then the mean over its labelled heads
 * by `headWeights`. Options are those of the objective `ranking`, with its defaults (`fusion`: 'mean'). Returns the mean over
 * `stepCount` labelled pairs (regression: scores with a target), gradients [S, H], and metrics by the objective's names.
 * Errors: 'invalid_argument' for lengths, indices, options and keys that do not fit, 'bad_data' for typed arrays whose
 * numbers are not finite, 'non_finite' where the loss overflows.
 */
export function rankingLoss(input: RankingLossInput): {
  loss: number;
  gradMu: Float64Array;
  gradLogSigma: Float64Array;
  metrics: Record<string, number>;
} {
  return kernels().rankingLoss(nativeRankingLoss(parseOptions(rankingLossInputSchema, input, 'input')));
}

/**
 * out[M, N] = x[M, K] weight[N, K]^T, one chain of additions per element, k ascending. Both operands Float32Array, or both
 * Uint16Array holding bf16; then the result is rounded to bf16 and returned widened.
 */
export function linear(
  x: Float32Array | Uint16Array,
  weight: Float32Array | Uint16Array,
  m: number,
  n: number,
  k: number,
): Float32Array {
  return kernels().linear(x, weight, m, n, k);
}

/** x / sqrt(mean(x^2) + eps) * weight by rows [T, H]; H is the weight's length. `eps` defaults to 1e-6. */
export function rmsNorm(x: Float32Array, weight: Float32Array, eps = 1e-6): Float32Array {
  return kernels().rmsNorm(x, weight, eps);
}

/**
 * Attention of one sequence with scale 1 / sqrt(headDim): q [tokens, queryHeads * headDim], k and v
 * [tokens, kvHeads * headDim], out as q. headDim is a multiple of 16; `causal` defaults to true.
 */
export function attention(
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  options: { tokens: number; queryHeads: number; kvHeads: number; headDim: number; causal?: boolean },
): Float32Array {
  return kernels().attention(q, k, v, { causal: true, ...options });
}

/**
 * Log-prob of `tokens` [R] under log_softmax(hidden [R, H] weight[V, H]^T / temperature), and the entropy of each
 * distribution in nats; the [R, V] logits are never stored. `temperature` defaults to 1.
 */
export function logprobs(
  hidden: Float32Array,
  weight: Float32Array,
  tokens: Int32Array,
  options: { hiddenSize: number; vocabulary: number; temperature?: number },
): { logprobs: Float32Array; entropies: Float32Array } {
  return kernels().logprobs(hidden, weight, tokens, { temperature: 1, ...options });
}

/**
 * Draws one token of each row of logits [B, V], already divided by the temperature: top-k, then top-p, then min-p filter the
 * draw; the log-prob is of the full distribution, `logKeptMass` the log of the mass the filters left. The draw of row b
 * depends on (seed, b) alone. Defaults: topK 0, topP 1, minP 0 (all off), seed 0, greedy false.
 */
export function sampleTokens(
  logits: Float32Array,
  options: { vocabulary: number; topK?: number; topP?: number; minP?: number; seed?: number; greedy?: boolean },
): { tokens: Int32Array; logprobs: Float32Array; logKeptMass: Float32Array } {
  return kernels().sampleTokens(logits, { topK: 0, topP: 1, minP: 0, seed: 0, greedy: false, ...options });
}
