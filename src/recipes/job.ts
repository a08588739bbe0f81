/**
 * `train`: starts a recipe at once and returns its job: events to iterate, a result to await, `stop()` to end gracefully
 * with a checkpoint. An aborted signal rejects the result with `signal.reason`.
 */
import type { RunFolder } from '../runs/run-folder.js';
import { RecipeContext, StopRequested, type RunState } from './context.js';
import { EventQueue } from './event-queue.js';
import type { TrainEvent } from './events.js';
import type { Policy } from './policy.js';

/** A training method: named, configured, run by `train`. `config` is what config.json of a run records. */
export interface Recipe<R> {
  readonly kind: string;
  readonly config: object;
  /** Wall-clock bound; the recipe plans for it and never starts a step after it. */
  readonly budgetSeconds?: number | undefined;
  run(context: RecipeContext): Promise<R>;
}

export interface TrainOptions {
  /** Aborts at once, without a checkpoint. */
  signal?: AbortSignal;
  /** Where checkpoints, logs and samples go. Without it nothing is written and nothing can be resumed. */
  run?: RunFolder;
  /** Name of the stage, for recipes that are not a pipeline. Default: the recipe's kind. */
  stage?: string;
}

export type TrainResult<R> =
  | { stopped: false; value: R; checkpoint: string | null }
  | { stopped: true; value: undefined; checkpoint: string | null };

export class TrainJob<R> implements AsyncIterable<TrainEvent> {
  /** Settles when the job has ended and its logs are written. */
  readonly result: Promise<TrainResult<R>>;
  readonly #events = new EventQueue<TrainEvent>();
  #stop = false;

  constructor(policy: Policy, recipe: Recipe<R>, options: TrainOptions) {
    this.result = this.#run(policy, recipe, options);
  }

  /** Ends after the present step, with a checkpoint when the job has a run folder. Resolves as `result` does. */
  async stop(): Promise<TrainResult<R>> {
    this.#stop = true;
    return this.result;
  }

  /** Every event from the start for the first reader. Throws what the job fails with, after the last event. */
  [Symbol.asyncIterator](): AsyncGenerator<TrainEvent, void, undefined> {
    // The reader gets the failure; the result alone must not then count as unhandled.
    this.result.catch(() => undefined);
    return this.#events.read();
  }

  async #run(policy: Policy, recipe: Recipe<R>, options: TrainOptions): Promise<TrainResult<R>> {
    const { run, signal = new AbortController().signal, stage = recipe.kind } = options;
    // The caller gets the job before anything happens.
    await Promise.resolve();
    const startedMs = performance.now();
    const emit = (event: TrainEvent): void => {
      run?.logEvent(event);
      this.#events.push(event);
    };
    try {
      signal.throwIfAborted();
      const context = new RecipeContext({ policy, run, signal, emit, stopRequested: () => this.#stop });
      if (run?.restored !== undefined) {
        await policy.load(run.restored.modelFolder);
        context.restore(run.restored.state as RunState, run.restored.step);
      }
      let value: R | undefined;
      let stopped = false;
      try {
        value = await context.runStage(stage, recipe);
      } catch (error) {
        if (!(error instanceof StopRequested)) throw error;
        stopped = true;
      }
      emit({
        type: 'run-end',
        reason: stopped ? 'stopped' : 'finished',
        seconds: (performance.now() - startedMs) / 1000,
      });
      await run?.flush();
      this.#events.end();
      const checkpoint = context.lastCheckpoint ?? null;
      return stopped
        ? { stopped: true, value: undefined, checkpoint }
        : { stopped: false, value: value as R, checkpoint };
    } catch (error) {
      const failure = signal.aborted ? (signal.reason as unknown) : error;
      // Only the log says so: whoever listens gets the failure itself.
      run?.logEvent({
        type: 'run-end',
        reason: signal.aborted ? 'aborted' : 'failed',
        seconds: (performance.now() - startedMs) / 1000,
        error: failure instanceof Error ? failure.message : String(failure),
      });
      await run?.flush().catch(() => undefined);
      this.#events.end({ error: failure });
      throw failure;
    }
  }
}

/** Starts `recipe` on a policy (a model with its data threads). */
export function train<R>(policy: Policy, recipe: Recipe<R>, options: TrainOptions = {}): TrainJob<R> {
  return new TrainJob(policy, recipe, options);
}
