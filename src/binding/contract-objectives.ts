/** The part of the native module's contract that says what a step trains: losses and their options, word for word. See contract.ts. */

export type NativeLossType = 'grpo' | 'bnpo' | 'dr_grpo' | 'dapo' | 'cispo' | 'sapo' | 'luspo' | 'vespo';

export interface NativeGrpoObjective {
  kind: 'grpo';
  weight: number;
  lossType: NativeLossType;
  importanceSampling: 'token' | 'sequence';
  epsilonLow: number;
  epsilonHigh: number;
  /** 0 is off. */
  delta: number;
  /** Where the advantage A is negative the loss is at most dualClip |A|; > 1. Default: 0, off. */
  dualClip?: number;
  beta: number;
  /** With d = reference - logprob: k1 = -d, k2 = d^2 / 2, k3 = exp(d) - d - 1. Default: 'k3'. */
  klEstimator?: 'k1' | 'k2' | 'k3';
  klBiasCorrection: boolean;
  /** 0 is off. */
  klClamp: number;
  maxCompletionLength: number;
  /** Weight of the mean entropy of the step's active tokens, which is subtracted from the loss. Default: 0. */
  entropyCoef?: number;
  /** Share of the step's active tokens that is trained: those of highest entropy, in (0, 1]. Default: 1, off. */
  topEntropyQuantile?: number;
  /** Active tokens of lower entropy (nats) are not trained: for a step of several calls. Default: off. */
  entropyThreshold?: number;
  /** Sequences of negative advantage whose mean (sampling - logprob) is above it are not trained. Default: off. */
  offPolicyThreshold?: number;
  /** Defaults: 1 and 1.05. */
  sapoTemperaturePositive?: number;
  sapoTemperatureNegative?: number;
  /** Defaults: 2 and 3 for positive, 3 and 2 for negative advantages. */
  vespoKPositive?: number;
  vespoLambdaPositive?: number;
  vespoKNegative?: number;
  vespoLambdaNegative?: number;
}

export interface NativeDpoObjective {
  kind: 'dpo';
  weight: number;
  loss: 'sigmoid' | 'ipo';
  beta: number;
  /** In [0, 0.5); 0 with 'ipo'. */
  labelSmoothing: number;
  /** Completions of the call, counted over its groups in order; one entry of each a pair. A pair stays in one micro-batch. */
  pairs: { chosen: Int32Array; rejected: Int32Array };
  /** Pairs of the whole optimizer step when the call covers only a part of it; default: those given. */
  stepPairs?: number;
}

export interface NativeNllObjective {
  kind: 'nll';
  weight: number;
  /** 'tokens': mean over all trained tokens of the step; 'completions': mean over tokens, then over completions; 'sum'. */
  normalization: 'tokens' | 'completions' | 'sum';
}

/** Comparison of scores: the call's reward tokens by group, a prompt before its completions. S scores, P pairs, H heads. */
export interface NativeRankingObjective {
  kind: 'ranking';
  weight: number;
  loss: 'bradley_terry' | 'bradley_terry_ties' | 'regression' | 'uncertainty';
  pairs?: {
    /** [P] indices of scores. */
    chosen: Int32Array;
    rejected: Int32Array;
    /** [P] */
    margins?: Float32Array;
    /** [P] 1: neither is better. */
    ties?: Uint8Array;
    /** [P, H] 1 chosen, -1 rejected, 0 tie, 2 none; absent: heads are fused. */
    labels?: Int32Array;
  };
  /** [S, H] of regression; NaN where missing. */
  targets?: Float32Array;
  margin: number;
  tieRatio: number;
  estimator: 'quadrature' | 'probit' | 'monte_carlo';
  form: 'log_expectation' | 'expectation_log';
  nodes: number;
  samples: number;
  seed: number;
  logSigmaMin: number;
  logSigmaMax: number;
  centring: number;
  fusion: 'mean' | 'min' | 'sum';
  /** [H] of labels and targets. */
  headWeights?: readonly number[];
  /** Labelled pairs, or scores with a target, of the whole optimizer step; default: of this call. */
  stepCount?: number;
}

export type NativeObjective = NativeGrpoObjective | NativeNllObjective | NativeDpoObjective | NativeRankingObjective;
