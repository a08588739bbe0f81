/**
 * The typed contract of the native module: what native/addon exports, word for word. Everything long returns a promise
 * and runs on the engine's own thread; inputs are copied at the call, so typed arrays may be reused at once. A rejected
 * promise carries a GavelError (the addon throws through the class given to `setErrorClass`).
 * Legend: P prompt tokens, C completion tokens, G samples of a group, V vocabulary, H hidden size.
 */
import type { NativeKernels } from './contract-kernels.js';
import type { NativeObjective } from './contract-objectives.js';

/** A picture or a video; their placeholders stand in the prompt in the same order. */
export interface NativeImage {
  /** [t*h*w, channels*temporal*patch*patch] as the image processor made them. */
  pixels: Float32Array;
  /** Patches in time, height and width; LLaVA-OneVision: tiles (or frames), then the patch rows and columns of a tile. */
  grid: readonly [number, number, number];
  /** Default: 'image'. */
  kind?: 'image' | 'video';
  /** Height and width of the picture in pixels, before any resizing. LLaVA-OneVision needs it to cut off the padding. */
  size?: readonly [number, number];
  /** Of a video: seconds from one temporal patch to the next. Qwen2.5-VL's temporal positions follow it; default 1. */
  secondsPerGrid?: number;
}

/** One prompt and the completions that share it; the prompt and its vision tower run once. */
export interface NativeGroup {
  promptTokens: Int32Array;
  images: readonly NativeImage[];
  completions: readonly NativeCompletionInput[];
}

export interface NativeCompletionInput {
  tokens: Int32Array;
  /** [C] 1 where the token is trained or scored; default all. */
  mask?: Uint8Array;
  /** Logits are divided by it everywhere (old, new, reference alike). Default 1. */
  temperature?: number;
  advantage?: number;
  /** [C] stored while sampling; absent means on-policy: ratio 1 by construction. */
  oldLogprobs?: Float32Array;
  /** [C] of the frozen reference; needed by grpo when beta is not 0, and by dpo. */
  referenceLogprobs?: Float32Array;
  /** [C] the sampler's own, for grpo's off-policy test; absent: the old ones. */
  samplingLogprobs?: Float32Array;
  /** [C] trainer over sampler, a constant factor of grpo's policy loss; >= 0, 1 where masked. Absent: ones. */
  importanceRatio?: Float32Array;
}

export interface NativeSampleRequest {
  /** Key of the random numbers together with seed and sample index: same id, seed and weights give the same tokens. */
  id: number;
  promptTokens: Int32Array;
  images: readonly NativeImage[];
  /** Samples to draw from this prompt (G). */
  count: number;
  /** Index of the first sample (to add samples later). Default 0. */
  firstSample?: number;
  maxNewTokens: number;
  seed: number;
  /** 0 is greedy (log-probs are then at temperature 1). */
  temperature: number;
  topK?: number;
  topP?: number;
  minP?: number;
  stopTokens: Int32Array;
  /** Texts that end a completion once its tokens contain them; with NativeSampleOptions.tokenBytes. Default: none. */
  stopStrings?: readonly string[];
}

/** The bytes that each token adds to a text: those of token t are bytes [offsets[t], offsets[t + 1]). */
export interface NativeTokenBytes {
  bytes: Uint8Array;
  /** [tokens + 1], ascending. */
  offsets: Int32Array;
}

export interface NativeCompletion {
  /** Index into the request list. */
  request: number;
  sample: number;
  /** The stop token, or the token that completed a stop string, is the last one. */
  tokens: Int32Array;
  /** log_softmax(logits / temperature) over the full vocabulary. */
  logprobs: Float32Array;
  /** Log of the probability mass that filters and bans left, per token. */
  logKeptMass: Float32Array;
  finishReason: 'stop' | 'length';
}

export interface NativeSampleOptions {
  /** Rows decoded at once (continuous batching keeps them full). */
  maxRows: number;
  /** Tokens that cannot be drawn (image placeholders); the normaliser keeps them. */
  bannedTokens: Int32Array;
  /** Of the tokenizer; what stop strings are looked for in. */
  tokenBytes?: NativeTokenBytes;
  /** 'off' samples from the base model. Default: 'on'. */
  adapter?: 'on' | 'off';
}

export interface NativeSampleStats {
  completions: number;
  completionTokens: number;
  promptTokens: number;
  decodeSteps: number;
  prefillSeconds: number;
  decodeSeconds: number;
  /** Of decodeSeconds, those with fewer than 8 rows in flight. */
  tailSeconds: number;
  kvBytes: number;
  reused: NativeReuse;
}

/** What a call took from the prompt cache, or from the same picture in one pack, instead of computing it. */
export interface NativeReuse {
  /** Rows of the decoder. */
  promptTokens: number;
  /** Pictures and videos that the vision tower did not see. */
  images: number;
}

export interface NativeStepOptions {
  /** Upper bound on packed tokens in one micro-batch; a group that is larger alone is one micro-batch. */
  maxTokensPerMicroBatch: number;
  activationCheckpointing: boolean;
  /** Denominators of the whole optimizer step when the call covers only a part of it; default: counted over this call. */
  stepCompletions?: number;
  stepTokens?: number;
  /** logprobs only; 'off' is the base model: the reference policy of an adapter run. Default: 'on'. */
  adapter?: 'on' | 'off';
}

export interface NativeStepResult {
  loss: number;
  /** Completion tokens trained, packed tokens (prompts once per group), micro-batches. */
  completionTokens: number;
  packedTokens: number;
  microBatches: number;
  /** Objective metrics by the field's names: kl, entropy, clip_ratio/low_mean, rewards/margins ... */
  metrics: Record<string, number>;
  /** New log-probs of every completion token, concatenated in order (unmasked tokens too); empty when ranking alone trains. */
  logprobs: Float32Array;
  reused: NativeReuse;
}

/** Of every reward token of a call: by group, a prompt before its completions. */
export interface NativeScores {
  /** H. */
  heads: number;
  /** S. */
  count: number;
  /** [S, H] */
  mu: Float32Array;
  /** [S, H] as the head gives it, without any clamp. */
  logSigma: Float32Array;
  /** [S, hidden size] what the head read, after the final norm; empty unless asked for. */
  states: Float32Array;
  reused: NativeReuse;
}

export interface NativeLogprobs {
  logprobs: Float32Array;
  /** In nats; empty unless asked for. */
  entropies: Float32Array;
  reused: NativeReuse;
}

export interface NativeOptimizerOptions {
  learningRate: number;
  beta1: number;
  beta2: number;
  eps: number;
  weightDecay: number;
  /** 'matrices' leaves norms, biases and embeddings undecayed. */
  decayParameters: 'matrices' | 'all';
  /** Global gradient norm clipped to this; 0 is off. */
  maxGradNorm: number;
}

export interface NativeOptimizerResult {
  gradNorm: number;
  /** False when the gradient was not finite: weights and moments are as they were, gradients are cleared. */
  applied: boolean;
  step: number;
}

/**
 * Config of a checkpoint, flattened: numbers and booleans (as 0 or 1; lists of lists flat) and texts of config.json under
 * dotted names, text_config lifted.
 */
export interface NativeModelSpec {
  family: string;
  numbers: Record<string, number | readonly number[]>;
  texts?: Record<string, string>;
  dtype: 'fp32' | 'bf16';
  /** Default: fp32 moments, masters. */
  optimizer?: NativeOptimizerState;
  /** Most bytes of features of pictures and of prompts' keys and values that are kept for later calls. Default: 0, none. */
  promptCacheBytes?: number;
  /** The model is asked for planMemory() alone: its memory is reserved, never touched, and holds nothing. Default: false. */
  planning?: boolean;
}

/** What a trained weight keeps between steps. */
export interface NativeOptimizerState {
  /** AdamW's moments; int8: block-wise codes of the dynamic map. */
  states: 'fp32' | 'bf16' | 'int8';
  /** Of bf16 values: an fp32 master each, or none and stochastic rounding. */
  weights: 'master' | 'stochastic';
  /** Of stochastic rounding. */
  seed: number;
}

export interface NativeTensorInfo {
  /** Name in a Hugging Face checkpoint of this family. */
  name: string;
  shape: readonly number[];
  trainable: boolean;
  /** Part of an adapter, not of the base model. */
  adapter: boolean;
  /** Part of the reward head; fp32 whatever the model's dtype. */
  rewardHead: boolean;
  kind: 'matrix' | 'vector' | 'norm' | 'bias' | 'embedding';
}

/** 'merged' is the value with its adapter added; it is only read and saved. */
export type NativeTensorKind = 'value' | 'master' | 'moment1' | 'moment2' | 'gradient' | 'merged' | NativeCodedKind;

/** 8-bit moments as they are saved: codes in the tensor's own rows, and scales of the whole fused parameter. */
export type NativeCodedKind = 'codes1' | 'codes2' | 'scales1' | 'scales2';

/** A tensor of the optimizer's state as it is saved. */
export interface NativeStateTensor extends NativeTensorSink {
  shape: readonly number[];
}

/** Low-rank adapters of matrices and trainable rows of the embedding. */
export interface NativeAdapterOptions {
  /** Hugging Face names of weights; none: trainable tokens alone. The product of A and B is scaled by `scale`. */
  targets: readonly { name: string; rank: number; scale: number }[];
  dropout: number;
  seed: number;
  trainableTokens: Int32Array;
}

/** H perceptrons hidden -> hiddenSizes ... -> (mu, log sigma) on the reward token. */
export interface NativeRewardHeadOptions {
  heads: number;
  token: number;
  hiddenSizes: readonly number[];
  /** Of the first weights. */
  seed: number;
}

export interface NativeTensorSource {
  name: string;
  kind: NativeTensorKind;
  path: string;
  offset: number;
  sizeBytes: number;
  /** Those after U8 are ggml's block formats, dequantized while they are read. */
  dtype: 'F32' | 'BF16' | 'F16' | 'U8' | 'Q8_0' | 'Q4_0' | 'Q4_1' | 'Q4_K' | 'Q6_K';
  /** Heads whose rows the file has as pairs (0, d/2, 1, d/2 + 1, ...) of an interleaved rotary embedding. */
  interleavedHeads?: number;
  /** Rows that the file has, when the tensor has more: the rest stays as it is. */
  rows?: number;
}

export interface NativeTensorSink {
  name: string;
  kind: NativeTensorKind;
  /** U8 for codes alone. */
  dtype: 'F32' | 'BF16' | 'U8';
}

export interface NativeMemory {
  weightBytes: number;
  gradientBytes: number;
  optimizerBytes: number;
  /** Of the last training or scoring. Sampling gives them back when it begins. */
  activationBytes: number;
  /** Keys and values of the last sampling; given back when it ends. */
  kvBytes: number;
  /** Logits, hidden rows and activations of the last sampling. Training uses the memory of these activations. */
  samplingBytes: number;
  /** Features of pictures, and prompts' keys and values, kept for later calls. */
  promptCacheBytes: number;
  /** Buffers of the kernels, shared by the models of an engine. */
  scratchBytes: number;
}

/** Groups of one shape, for planMemory(). */
export interface NativePlannedWork {
  /** Those of the pictures included. */
  promptTokens: number;
  images: readonly Omit<NativeImage, 'pixels'>[];
  groups: number;
  /** Default: 0. */
  promptCacheBytes?: number;
  /** forwardBackward and optimizerStep (trains), logprobs (scores). */
  steps?: {
    trains: boolean;
    scores: boolean;
    completions: number;
    completionTokens: number;
    options: NativeStepOptions;
  };
  sampling?: { count: number; maxNewTokens: number; maxRows: number };
}

export interface NativeModel {
  readonly family: string;
  tensors(): NativeTensorInfo[];
  /** Only these Hugging Face names get gradients; a fused matrix trains when any of its parts does. */
  setTrainable(names: readonly string[]): void;
  /** Adds a fresh adapter (its product is 0) and freezes everything else; tensors() then lists its parts too. */
  attachAdapter(options: NativeAdapterOptions): Promise<void>;
  /** Adds a reward head; rows of its token are scored from then on, and sampling never draws it. tensors() lists its parts. */
  attachRewardHead(options: NativeRewardHeadOptions): Promise<void>;
  /** Rows of the embedding and of an untied head from `firstRow` on become the mean of those before it. */
  fillNewTokenRows(firstRow: number): Promise<void>;
  /** What saving the optimizer's state takes: masters and moments of every trainable tensor, present after the first step. */
  stateTensors(): NativeStateTensor[];
  /** Zero moments, step 0, no gradients. */
  resetOptimizer(): Promise<void>;
  /** Seeded: matrices and embeddings N(0, std^2), norms 1, biases 0. */
  initialize(seed: number, std: number): Promise<void>;
  /** Checked reads into the packed layout. */
  loadTensors(sources: readonly NativeTensorSource[], job?: number): Promise<void>;
  /** Writes `header`, then the tensors in order, row-major; fsyncs. The caller renames. */
  saveTensors(path: string, header: Uint8Array, sinks: readonly NativeTensorSink[], job?: number): Promise<void>;
  readTensor(name: string, kind: NativeTensorKind): Promise<Float32Array>;
  writeTensor(name: string, kind: NativeTensorKind, data: Float32Array): Promise<void>;
  /** Copies weights (not moments) from another model of the same shape in the same engine. */
  copyWeightsFrom(other: NativeModel): Promise<void>;

  /** `onCompletions` gets completions as they finish, in batches. `job` names the call for abort(). */
  sample(
    requests: readonly NativeSampleRequest[],
    options: NativeSampleOptions,
    onCompletions: (completions: NativeCompletion[]) => void,
    job: number,
  ): Promise<NativeSampleStats>;
  logprobs(
    groups: readonly NativeGroup[],
    options: NativeStepOptions & { entropy: boolean },
    job: number,
  ): Promise<NativeLogprobs>;
  /** Full scaled logits [C, V] of the completion positions of one group: for tests and inspection, never for training. */
  logits(group: NativeGroup, adapter: 'on' | 'off', job: number): Promise<Float32Array>;
  /** Reward-head outputs of every reward token; groups may have no completions. */
  score(
    groups: readonly NativeGroup[],
    options: NativeStepOptions & { states: boolean },
    job: number,
  ): Promise<NativeScores>;
  /** Adds to the gradients. */
  forwardBackward(
    groups: readonly NativeGroup[],
    objectives: readonly NativeObjective[],
    options: NativeStepOptions,
    job: number,
  ): Promise<NativeStepResult>;
  optimizerStep(options: NativeOptimizerOptions, job?: number): Promise<NativeOptimizerResult>;
  zeroGradients(): Promise<void>;
  optimizerStepCount(): number;
  setOptimizerStepCount(step: number): void;
  memory(): NativeMemory;
  /** What the work will take; only of a model made for planning. */
  planMemory(work: NativePlannedWork): Promise<NativeMemory>;
  dispose(): Promise<void>;
}

export interface NativeEngine {
  readonly threads: number;
  /** The path it computes on. */
  readonly isa: string;
  createModel(spec: NativeModelSpec): Promise<NativeModel>;
  /** Raises the abort flag of a running or queued job; its promise rejects with code 'aborted' once memory is safe. */
  abort(job: number): void;
  /** Aborts what runs, waits for the job thread, frees every model. Idempotent. */
  dispose(): Promise<void>;
}

export interface NativeInfo {
  /** The path an engine takes by default. */
  isa: string;
  /** The paths this machine can run, best first. */
  isas: readonly string[];
  hardwareThreads: number;
  /** Of all live engines of the process. */
  engineThreads: number;
  cuda: {
    available: boolean;
    reason: string;
    devices: readonly { name: string; memoryBytes: number; computeCapability: string }[];
    /** Where there is a plugin; `driver` is empty without one, `cublasLt` is `none: reason` without the library. */
    versions?: { driver: string; runtime: string; cublasLt: string };
  };
}

export interface NativeModule {
  readonly version: string;
  readonly buildId: string;
  /** Names of the native status codes, without 'ok'. */
  readonly codes: readonly string[];
  info(): NativeInfo;
  /** The class native errors are thrown with: (code, message, {fields}). */
  setErrorClass(
    errorClass: new (code: never, message: string, options: { fields: Record<string, string> }) => Error,
  ): void;
  createEngine(options: {
    threads: number;
    isa?: string;
    /** Default: 'bitwise'. 'fastest' needs a device that has it, else 'unsupported'. */
    exactness?: string;
    /** A CUDA device, counted from 0. Absent: models live in the process's memory. 'device_unavailable' with the reason. */
    device?: number;
    /** True: one thread a core, the first there are. Cores: thread i on the i-th. Linux only, else 'unsupported'. */
    pinThreads?: boolean | readonly number[];
  }): NativeEngine;
  /** True once in a process: when its live engines have more threads than `cores`. */
  oversubscribes(cores: number): boolean;
  readonly kernels: NativeKernels;
}
