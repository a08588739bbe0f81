/** The part of the native module's contract that is synchronous: single kernels and the losses as pure functions. See contract.ts. */
import type { NativeGrpoObjective, NativeDpoObjective, NativeRankingObjective } from './contract-objectives.js';

export interface NativeGrpoLossInput {
  /** Flat over sequences; offsets has one more entry than there are sequences. */
  logprobs: Float64Array;
  oldLogprobs?: Float64Array;
  referenceLogprobs?: Float64Array;
  /** The sampler's own, for the off-policy test; default: the old ones. */
  samplingLogprobs?: Float64Array;
  /** Ratio of trainer over sampler per token, a constant factor; 1 where masked. */
  importanceRatio?: Float64Array;
  entropies?: Float64Array;
  mask: Uint8Array;
  offsets: Int32Array;
  /** One a sequence. */
  advantages?: Float64Array;
  /** One a token, instead of `advantages`. */
  tokenAdvantages?: Float64Array;
  /** `topEntropyQuantile` is of the tokens given. */
  options: Omit<NativeGrpoObjective, 'kind' | 'weight'>;
  numSequences: number;
  numTokens: number;
}

export interface NativeDpoLossInput {
  /** Flat over sequences; offsets has one more entry than there are sequences. */
  logprobs: Float64Array;
  referenceLogprobs: Float64Array;
  mask: Uint8Array;
  offsets: Int32Array;
  /** Sequences, one entry of each a pair. */
  chosen: Int32Array;
  rejected: Int32Array;
  options: Pick<NativeDpoObjective, 'loss' | 'beta' | 'labelSmoothing'>;
  numPairs: number;
}

export interface NativeRankingLossInput {
  /** H. */
  heads: number;
  /** [S, H] */
  mu: Float64Array;
  /** [S, H] of the loss 'uncertainty'. */
  logSigma?: Float64Array;
  pairs?: Omit<NonNullable<NativeRankingObjective['pairs']>, 'margins'> & {
    /** [P] */
    margins?: Float64Array;
    /** [P] keys of the draws of monte_carlo; absent: 0, 1, ... */
    ids?: Int32Array;
  };
  /** [S, H] of regression; NaN where missing. */
  targets?: Float64Array;
  options: Omit<NativeRankingObjective, 'kind' | 'weight' | 'pairs' | 'targets' | 'stepCount'>;
  /** Labelled pairs, or scores with a target, of the whole optimizer step; absent: those given. */
  stepCount?: number;
}

/** Single kernels on typed arrays, synchronous: for measurement and for people who write their own loops. */
export interface NativeKernels {
  grpoLoss(input: NativeGrpoLossInput): {
    loss: number;
    gradient: Float64Array;
    /** d loss / d entropy; not zero only with `entropyCoef`. */
    entropyGradient: Float64Array;
    metrics: Record<string, number>;
  };
  dpoLoss(input: NativeDpoLossInput): { loss: number; gradient: Float64Array; metrics: Record<string, number> };
  rankingLoss(input: NativeRankingLossInput): {
    loss: number;
    /** [S, H] */
    gradMu: Float64Array;
    gradLogSigma: Float64Array;
    metrics: Record<string, number>;
  };
  /** out[M, N] = x[M, K] weight[N, K]^T; bf16 operands are Uint16Array. */
  linear(
    x: Float32Array | Uint16Array,
    weight: Float32Array | Uint16Array,
    m: number,
    n: number,
    k: number,
  ): Float32Array;
  rmsNorm(x: Float32Array, weight: Float32Array, eps: number): Float32Array;
  /** Causal or full attention of one sequence; q [T, Q*D], k and v [T, K*D]. */
  attention(
    q: Float32Array,
    k: Float32Array,
    v: Float32Array,
    options: { tokens: number; queryHeads: number; kvHeads: number; headDim: number; causal: boolean },
  ): Float32Array;
  /** Log-probs and entropies of `tokens` under log_softmax(hidden weight^T / temperature). */
  logprobs(
    hidden: Float32Array,
    weight: Float32Array,
    tokens: Int32Array,
    options: { hiddenSize: number; vocabulary: number; temperature: number },
  ): { logprobs: Float32Array; entropies: Float32Array };
  /** Which tokens top-k, top-p and min-p keep, and the draw, for each row of logits [B, V] (already divided by temperature). */
  sampleTokens(
    logits: Float32Array,
    options: { vocabulary: number; topK: number; topP: number; minP: number; seed: number; greedy: boolean },
  ): { tokens: Int32Array; logprobs: Float32Array; logKeptMass: Float32Array };
}
