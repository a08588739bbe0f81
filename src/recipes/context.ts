/**
 * What a running recipe sees: the policy, the stage it is in, its clock, and where it left off. A run's state is one value
 * for all stages, written with every checkpoint, so weights and state never disagree.
 */
import type { RunFolder } from '../runs/run-folder.js';
import type { TrainEvent } from './events.js';
import type { Recipe } from './job.js';
import type { Policy } from './policy.js';

/** Thrown inside a recipe after a graceful stop has saved its checkpoint; `train` turns it into a result. */
export class StopRequested extends Error {
  constructor() {
    super('stopped');
    this.name = 'StopRequested';
  }
}

export interface StageState {
  /** Run-wide step number at which the stage began. */
  offset: number;
  /** Wall seconds and tokens of the stage so far, over all its processes. */
  seconds: number;
  tokens: number;
  /** What the recipe put there; JSON. */
  progress?: unknown;
  /** Present when the stage is complete: what it returned, and the run-wide step of the checkpoint at its end. */
  result?: unknown;
  endStep?: number;
  /** Run-wide steps of checkpoints that must not be pruned. */
  pinned?: number[];
}

export interface RunState {
  stages: Record<string, StageState>;
}

interface ContextParts {
  policy: Policy;
  run: RunFolder | undefined;
  signal: AbortSignal;
  emit: (event: TrainEvent) => void;
  stopRequested: () => boolean;
}

/** The stage that runs now; `parent` when a pipeline runs it. */
interface RunningStage {
  name: string;
  state: StageState;
  startedMs: number;
  secondsBefore: number;
  budgetSeconds: number | undefined;
}

export class RecipeContext {
  readonly policy: Policy;
  readonly run: RunFolder | undefined;
  readonly signal: AbortSignal;
  readonly emit: (event: TrainEvent) => void;
  readonly #stopRequested: () => boolean;
  readonly #stack: RunningStage[] = [];
  #state: RunState = { stages: {} };
  #step = 0;
  #lastCheckpoint: string | undefined;

  constructor(parts: ContextParts) {
    this.policy = parts.policy;
    this.run = parts.run;
    this.signal = parts.signal;
    this.emit = parts.emit;
    this.#stopRequested = parts.stopRequested;
  }

  /** Takes over the state of the checkpoint that the run continues from. */
  restore(state: RunState, step: number): void {
    this.#state = state;
    this.#step = step;
    this.#lastCheckpoint = this.run?.restored?.folder;
  }

  /** Name of the running stage. */
  get stage(): string {
    return this.#running.name;
  }

  /** Name for a stage of a pipeline that runs in the present stage: the outermost pipeline's stages bear their plain names. */
  innerName(name: string): string {
    return this.#stack.length > 1 ? `${this.stage}/${name}` : name;
  }

  /** Folder of the newest checkpoint. */
  get lastCheckpoint(): string | undefined {
    return this.#lastCheckpoint;
  }

  /** Run-wide number of the newest checkpointed step; names the weights in the sample pool. */
  get weightsName(): string {
    return `step-${this.#step}`;
  }

  /** What the stage saved last, when it is being resumed. */
  progress<T>(): T | undefined {
    return this.#running.state.progress as T | undefined;
  }

  /** Wall seconds of the running stage, those of earlier processes included. */
  get stageSeconds(): number {
    const { secondsBefore, startedMs } = this.#running;
    return secondsBefore + (performance.now() - startedMs) / 1000;
  }

  /** Seconds until the tightest budget around the running stage is spent. */
  get secondsLeft(): number {
    return Math.min(
      ...this.#stack.map(({ budgetSeconds, secondsBefore, startedMs }) =>
        budgetSeconds === undefined ? Infinity : budgetSeconds - secondsBefore - (performance.now() - startedMs) / 1000,
      ),
    );
  }

  /** Counts tokens that were sampled or trained, for tokens per second. */
  countTokens(count: number): void {
    for (const { state } of this.#stack) state.tokens += count;
  }

  note(message: string, fields: Record<string, number | string | boolean | null> = {}): void {
    this.emit({ type: 'note-taken', stage: this.stage, message, fields });
  }

  /** True after `job.stop()`. */
  get stopRequested(): boolean {
    return this.#stopRequested();
  }

  /** Saves a checkpoint of the running stage at its own step `step`; nothing without a run folder. */
  async checkpoint(step: number, progress: unknown, options: { pin?: boolean } = {}): Promise<void> {
    const { state } = this.#running;
    state.progress = progress;
    const runStep = state.offset + step;
    if (options.pin) state.pinned = [...new Set([...(state.pinned ?? []), runStep])];
    await this.#save(runStep);
  }

  /** Loads the checkpoint of step `step` of this stage (it was saved with `pin`) and forgets later ones. */
  async stepBack(step: number): Promise<void> {
    const { state } = this.#running;
    const runStep = state.offset + step;
    if (this.run === undefined) throw new Error('stepBack needs a run folder');
    const checkpoint = await this.run.checkpoints.open(runStep);
    await this.policy.load(checkpoint.modelFolder);
    await this.run.checkpoints.removeAfter(runStep);
    state.pinned = state.pinned?.filter((pinned) => pinned <= runStep) ?? [];
    this.#step = runStep;
  }

  /** Run-wide step of the weights the running stage began with, if it saved and pinned a checkpoint at its step 0. */
  get startStep(): number | undefined {
    const { offset, pinned } = this.#running.state;
    return pinned?.includes(offset) ? offset : undefined;
  }

  /** Folder of the weights the running stage began with, under the same condition. */
  stageStartModel(): string | undefined {
    return this.startStep === undefined ? undefined : this.run?.checkpoints.modelFolder(this.startStep);
  }

  /** Keeps exactly these checkpoints, by run-wide step, until the running stage ends; written down with the next one. */
  keepSteps(runSteps: readonly number[]): void {
    this.#running.state.pinned = [...new Set(runSteps)];
  }

  /**
   * Loads weights and optimizer of a kept checkpoint by its run-wide step; later checkpoints stay, and the next one is
   * written after them. Errors: 'corrupt_checkpoint', 'io'.
   */
  async loadStep(runStep: number): Promise<void> {
    if (this.run === undefined) throw new Error('loadStep needs a run folder');
    const { modelFolder } = await this.run.checkpoints.open(runStep);
    await this.policy.load(modelFolder);
  }

  /** After a graceful stop was asked for: checkpoints and leaves the recipe. Nothing otherwise. */
  async leaveIfStopped(step: number, progress: () => unknown): Promise<void> {
    this.signal.throwIfAborted();
    if (!this.stopRequested) return;
    await this.checkpoint(step, progress());
    throw new StopRequested();
  }

  /** Runs one stage to its end, or returns its result when the resumed run already has it. */
  async runStage<R>(name: string, recipe: Recipe<R>): Promise<R> {
    const state = (this.#state.stages[name] ??= { offset: this.#step, seconds: 0, tokens: 0 });
    const restored = state.result !== undefined;
    const running: RunningStage = {
      name,
      state,
      startedMs: performance.now(),
      secondsBefore: state.seconds,
      budgetSeconds: recipe.budgetSeconds,
    };
    this.#stack.push(running);
    try {
      if (restored) this.stageRestored(name);
      else {
        this.emit({
          type: 'stage-start',
          stage: name,
          recipe: recipe.kind,
          budgetSeconds: recipe.budgetSeconds ?? null,
        });
        const result = await recipe.run(this);
        this.#tick();
        state.result = result ?? null;
        delete state.progress;
        delete state.pinned;
        // One past the newest step, so that a stage's last step and its end are two checkpoints.
        state.endStep = Math.max(this.#step, state.offset) + 1;
        await this.#save(state.endStep);
        this.#emitStageEnd(name, state, false);
      }
      return state.result as R;
    } finally {
      this.#stack.pop();
    }
  }

  /** Tells that a stage was complete in the run that is resumed. */
  stageRestored(name: string): void {
    const state = this.#state.stages[name];
    if (state !== undefined) this.#emitStageEnd(name, state, true);
  }

  #emitStageEnd(name: string, { seconds, tokens }: StageState, restored: boolean): void {
    const tokensPerSecond = seconds > 0 && tokens > 0 ? tokens / seconds : null;
    this.emit({ type: 'stage-end', stage: name, seconds, tokensPerSecond, restored });
  }

  /** What the state knows of a stage: its seconds, tokens and result. */
  stageState(name: string): Readonly<StageState> | undefined {
    return this.#state.stages[name];
  }

  get #running(): RunningStage {
    return this.#stack.at(-1)!;
  }

  #tick(): void {
    for (const { state, secondsBefore, startedMs } of this.#stack) {
      state.seconds = secondsBefore + (performance.now() - startedMs) / 1000;
    }
  }

  async #save(runStep: number): Promise<void> {
    this.#step = runStep;
    this.#tick();
    if (this.run === undefined) return;
    const pinned = Object.values(this.#state.stages).flatMap((stage) => stage.pinned ?? []);
    const save = (folder: string): Promise<void> => this.policy.save(folder);
    this.#lastCheckpoint = await this.run.saveCheckpoint(runStep, this.#state, save, pinned);
    this.emit({ type: 'checkpoint-saved', stage: this.stage, step: runStep, folder: this.#lastCheckpoint });
  }
}
