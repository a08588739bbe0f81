/** A model and its verbs. One copy of the weights samples, scores and trains; every verb runs on the engine's own thread. */
import type {
  NativeCompletionInput,
  NativeGroup,
  NativeImage,
  NativeLogprobs,
  NativeMemory,
  NativeOptimizerResult,
  NativeSampleRequest,
  NativeStepResult,
  NativeTensorInfo,
  NativeTensorKind,
  NativeTokenBytes,
} from '../binding/contract.js';
import { exportModel, loadCheckpoint, saveAdapter, saveCheckpoint, type CheckpointModel } from './checkpoint.js';
import type { Adapter } from './lora.js';
import { GavelError } from '../errors.js';
import { tokenIds, type JsonObject, type ModelDtype } from './model-config.js';
import {
  logitsOptionsSchema,
  logprobsOptionsSchema,
  noOptionsSchema,
  objectivesSchema,
  scoreOptionsSchema,
  optimizerStepOptionsSchema,
  sampleCallSchema,
  sampleRequestSchema,
  saveOptionsSchema,
  stepOptionsSchema,
  type LogprobsSettings,
  type Objective,
  type OptimizerStepOptions,
  type SampleSettings,
  type ScoreSettings,
  type SaveOptions,
  type StepSettings,
} from './options.js';
import { parseCall, parseOptions } from './parse-options.js';
import { nativeRanking } from './ranking-objective.js';
import type { RewardHead } from './reward-head.js';
import { SampleRun, type Completion } from './sample-run.js';
import { fuseScores, type Scores } from './scores.js';

/** Pixels of one image as its processor made them: [t*h*w, columns] with the patch grid [t, h, w]. */
export type ImageInput = NativeImage;
/** One prompt and the completions that share it. */
export type Group = NativeGroup;
/** Tokens [C] with mask, temperature, advantage and log-probs where an objective needs them. */
export type CompletionInput = NativeCompletionInput;
export type Memory = NativeMemory;
export type TensorInfo = NativeTensorInfo;
export type TensorKind = NativeTensorKind;
export type StepResult = NativeStepResult;
export type Logprobs = NativeLogprobs;
export type OptimizerResult = NativeOptimizerResult;

/** A prompt to complete. What it leaves out comes from the options of the call. */
export type SampleRequest = Pick<NativeSampleRequest, 'id' | 'promptTokens'> &
  Partial<Omit<NativeSampleRequest, 'id' | 'promptTokens'>>;

export interface Signal {
  /** Ends the call at its next micro-step; it rejects with `signal.reason`. */
  signal?: AbortSignal | undefined;
}

export type SampleOptions = SampleSettings &
  Signal & {
    /** What each token adds to a text, from the tokenizer (`Tokenizer.tokenBytes()`): needed for `stopStrings`. */
    tokenBytes?: NativeTokenBytes | undefined;
    /** Gets completions as they finish, in batches; they are then not kept for iteration. What it throws rejects the run. */
    onCompletions?: ((completions: readonly Completion[]) => void) | undefined;
  };
export type StepOptions = StepSettings & Signal;
export type ScoreOptions = ScoreSettings & Signal;
export type LogprobsOptions = LogprobsSettings & Signal;

/** What an engine makes a model of. */
export interface ModelParts extends CheckpointModel {
  /** config.json and generation_config.json in one: where special tokens are looked up. */
  generation: JsonObject;
  promptCacheBytes: number;
  clone: (model: Model) => Promise<Model>;
}

/** Made by an Engine; keeps it alive. Dispose of it (or of the engine) to free its memory. */
export class Model {
  readonly #parts: ModelParts;

  /** @internal Use Engine.loadModel, createModel or cloneModel. */
  constructor(parts: ModelParts) {
    this.#parts = parts;
  }

  /** The checkpoint's config.json. */
  get config(): JsonObject {
    return this.#parts.config;
  }

  /** Where it was loaded from, with its tokenizer and processor; undefined for a model without such a folder. */
  get folder(): string | undefined {
    return this.#parts.companions;
  }

  /** The family that computes it: `model_type` of the config, e.g. 'qwen2_5_vl', or 'llama' for Mistral. */
  get family(): string {
    return this.#parts.native.family;
  }

  get dtype(): ModelDtype {
    return this.#parts.dtype;
  }

  /** @internal */
  get parts(): ModelParts {
    return this.#parts;
  }

  /** Tensors by their Hugging Face names, with shape and whether they train. */
  tensors(): TensorInfo[] {
    return this.#parts.native.tensors();
  }

  /** Only these tensors get gradients; a fused matrix trains when any of its parts does. */
  setTrainable(names: readonly string[]): void {
    this.#parts.native.setTrainable(names);
  }

  /** The adapter: its layers with rank and alpha; undefined for a model without one. */
  get adapter(): Adapter | undefined {
    return this.#parts.adapter;
  }

  /** The reward head: what its heads judge and which token they read; undefined for a model without one. */
  get rewardHead(): RewardHead | undefined {
    return this.#parts.rewardHead;
  }

  /**
   * Draws completions; starts at once. Iterate the run for completions as they finish, await it for the statistics. The
   * same id, seed, sample index and weights give the same tokens, whatever runs beside.
   * Errors: 'invalid_argument', 'prompt_too_long', 'image_count_mismatch', 'non_finite' (logits that are not), 'out_of_memory',
   * 'disposed'.
   */
  sample(requests: readonly SampleRequest[], options: SampleOptions = {}): SampleRun {
    const { signal, resolved } = parseCall(sampleCallSchema, options);
    const { onCompletions, tokenBytes, stopTokens, bannedTokens, maxRows, adapter, ...draw } = resolved;
    const defaults = { images: [], ...draw, stopTokens: Int32Array.from(stopTokens ?? this.stopTokens) };
    const banned = Int32Array.from(bannedTokens ?? this.bannedTokens);
    const received: unknown = requests;
    if (!Array.isArray(received)) {
      throw new GavelError(
        'invalid_argument',
        `Expected an array for \`requests\` but received ${typeof received}. Put a single request in brackets.`,
      );
    }
    const complete = requests.map((request, i): NativeSampleRequest => {
      parseOptions(sampleRequestSchema, request, `requests[${i}]`);
      return { ...defaults, ...defined(request) };
    });
    const settings = { maxRows, bannedTokens: banned, adapter, ...(tokenBytes && { tokenBytes }) };
    const { native, runner } = this.#parts;
    return new SampleRun(
      (stop, deliver) => runner.run(stop, (job) => native.sample(complete, settings, deliver, job)),
      { signal, onCompletions },
    );
  }

  /** Tokens that end a completion by default: `eos_token_id` of the checkpoint. */
  get stopTokens(): number[] {
    return tokenIds(this.#parts.generation, 'eos_token_id');
  }

  /** Tokens never drawn by default: placeholders that stand for pixels. The reward token is never drawn at all. */
  get bannedTokens(): number[] {
    const { generation } = this.#parts;
    const names = ['image_token_id', 'video_token_id', 'image_token_index', 'video_token_index'];
    return names.flatMap((name) => tokenIds(generation, name));
  }

  /**
   * log_softmax(logits / temperature) of every completion token, over the whole vocabulary, concatenated in order; with
   * `entropy`, the entropies in nats as well. Equal bit for bit to what sampling stored.
   */
  async logprobs(groups: readonly Group[], options: LogprobsOptions = {}): Promise<Logprobs> {
    const { signal, resolved } = parseCall(logprobsOptionsSchema, options);
    const { native, runner } = this.#parts;
    return runner.run(signal, (job) => native.logprobs(groups, defined(resolved), job));
  }

  /**
   * What the reward head says at every reward token of the groups, in their order, a prompt before its completions; groups
   * may have no completions. Nothing is generated. A score is equal bit for bit whatever follows its token and whatever
   * shares the batch.
   * Errors: 'invalid_argument' without a reward head, or for a group without a reward token; those of logprobs().
   */
  async score(groups: readonly Group[], options: ScoreOptions = {}): Promise<Scores> {
    const { signal, resolved } = parseCall(scoreOptionsSchema, options);
    const { native, runner, rewardHead } = this.#parts;
    const step = { ...resolved, activationCheckpointing: false };
    const scores = await runner.run(signal, (job) => native.score(groups, step, job));
    return { ...scores, rewards: fuseScores(scores, rewardHead?.fusion ?? 'mean') };
  }

  /** Logits [C, V], divided by the temperature, of a group's first completion: to look at, never to train with. */
  async logits(group: Group, options: Signal & { adapter?: 'on' | 'off' } = {}): Promise<Float32Array> {
    const { native, runner } = this.#parts;
    const { signal, resolved } = parseCall(logitsOptionsSchema, options);
    return runner.run(signal, (job) => native.logits(group, resolved.adapter, job));
  }

  /**
   * Adds the objectives' gradients to what is there and returns loss and metrics. A call that fails or is aborted clears
   * the gradients and leaves the weights. Errors: 'non_finite' for a loss that is not, and those of logprobs().
   */
  async forwardBackward(
    groups: readonly Group[],
    objectives: readonly Objective[],
    options: StepOptions = {},
  ): Promise<StepResult> {
    const { signal, resolved } = parseCall(stepOptionsSchema, options);
    const { native, runner, rewardHead } = this.#parts;
    const resolvedObjectives = parseOptions(objectivesSchema, objectives, 'objectives').map((objective) =>
      objective.kind === 'ranking' ? nativeRanking(objective, rewardHead?.fusion ?? 'mean') : objective,
    );
    try {
      return await runner.run(signal, (job) =>
        native.forwardBackward(groups, resolvedObjectives, defined(resolved), job),
      );
    } catch (error) {
      // Whether it had begun when it was aborted nobody can tell: gradients are gone either way.
      if (signal?.aborted === true) await native.zeroGradients().catch(() => undefined);
      throw error;
    }
  }

  /**
   * One step of AdamW on the gathered gradients, which it clears. `applied` is false when a gradient was not finite: then
   * weights and moments are as they were. An abort keeps a step that waits from beginning; one that runs is finished.
   */
  async optimizerStep(options: OptimizerStepOptions & Signal = {}): Promise<OptimizerResult> {
    const { signal, resolved } = parseCall(optimizerStepOptionsSchema, options);
    const { native, runner } = this.#parts;
    return runner.run(signal, (job) => native.optimizerStep(resolved, job));
  }

  /** Drops the gathered gradients. Errors: 'disposed'. */
  async zeroGradients(): Promise<void> {
    await this.#parts.native.zeroGradients();
  }

  /** Optimizer steps taken. */
  get optimizerSteps(): number {
    return this.#parts.native.optimizerStepCount();
  }

  /** Zero moments, step 0, no gradients: a new stage starts a new optimizer. */
  async resetOptimizer(): Promise<void> {
    await this.#parts.native.resetOptimizer();
  }

  /**
   * Writes a checkpoint folder whole or not at all: config.json, model.safetensors, tokenizer and processor files, and
   * optimizer.safetensors unless `optimizer` is false. A folder of an older checkpoint is replaced.
   * Errors: 'disk_full', 'permission_denied', 'io', 'invalid_argument' (a folder of something else).
   */
  async save(folder: string, options: SaveOptions & Signal = {}): Promise<void> {
    const { signal, resolved } = parseCall(saveOptionsSchema, options);
    await saveCheckpoint({ ...this.#parts, signal }, folder, resolved);
  }

  /**
   * Restores a saved folder bit for bit; without optimizer.safetensors in it the optimizer starts anew. After an abort the
   * weights are partly those of the folder: load again, or dispose of the model.
   */
  async load(folder: string, options: Signal = {}): Promise<void> {
    const { signal } = parseCall(noOptionsSchema, options);
    await loadCheckpoint({ ...this.#parts, signal }, folder);
  }

  /** Writes a folder that transformers loads: a whole model without the optimizer; an adapter is merged into it. */
  async exportHf(folder: string, options: Signal = {}): Promise<void> {
    const { signal } = parseCall(noOptionsSchema, options);
    await exportModel({ ...this.#parts, signal }, folder);
  }

  /** Writes the adapter alone, as PEFT loads it. Errors: 'invalid_argument' for a model without one, and those of save(). */
  async saveAdapter(folder: string, options: Signal = {}): Promise<void> {
    const { signal } = parseCall(noOptionsSchema, options);
    if (this.#parts.adapter === undefined) {
      throw new GavelError(
        'invalid_argument',
        'Expected a model with an adapter but this one has none. Load it with the option `lora` or `adapter`, or use exportHf().',
      );
    }
    await saveAdapter({ ...this.#parts, signal }, folder, { optimizer: false });
  }

  /** A second model that does not train: a copy of these weights, or of those saved in `folder`. */
  async freeze(folder?: string): Promise<Model> {
    const copy = await this.#parts.clone(this);
    copy.setTrainable([]);
    if (folder !== undefined) await copy.load(folder);
    return copy;
  }

  /**
   * Row-major fp32 copy of one tensor. Errors: 'invalid_argument' for a name that is not in tensors() and for a kind that it
   * has not, 'disposed'.
   */
  async readTensor(name: string, kind: TensorKind = 'value'): Promise<Float32Array> {
    return this.#parts.native.readTensor(name, kind);
  }

  /**
   * Overwrites one tensor, row-major; rounded where it is stored narrower. Errors: those of readTensor(), 'invalid_argument' for
   * another number of values.
   */
  async writeTensor(name: string, kind: TensorKind, data: Float32Array): Promise<void> {
    await this.#parts.native.writeTensor(name, kind, data);
  }

  /** Bytes by purpose. Activations, keys and values and sampling buffers are those of the last run, and never held all at once. */
  memory(): Memory {
    return this.#parts.native.memory();
  }

  /** Aborts what runs on this model and frees it. Idempotent; later calls of its verbs throw 'disposed'. */
  async dispose(): Promise<void> {
    await this.#parts.native.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> };

/** Without the keys that hold undefined. */
function defined<T extends object>(options: T): Defined<T> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Defined<T>;
}
