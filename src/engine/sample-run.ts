/** Sampling under way: completions as they finish, and the statistics at the end. */
import type { NativeCompletion, NativeSampleStats } from '../binding/contract.js';

/** One completion; `request` is its index in the list, `sample` its number within the group. */
export type Completion = NativeCompletion;
export type SampleStats = NativeSampleStats;

/**
 * Iterate it for completions in the order they finish, or await it (or `.result`) for the statistics; do both if you like.
 * Leaving the loop early aborts what is left. Errors reach the loop and `.result` alike.
 */
export class SampleRun implements Promise<SampleStats>, AsyncIterable<Completion> {
  readonly [Symbol.toStringTag] = 'SampleRun';
  readonly result: Promise<SampleStats>;
  readonly #stop: AbortController;
  readonly #batches: Completion[][] = [];
  #wake: (() => void) | undefined;
  #ended = false;

  /**
   * `start` begins sampling and settles when the last completion was delivered. With `onCompletions`, completions go there
   * and nowhere else.
   */
  constructor(
    start: (signal: AbortSignal, deliver: (completions: Completion[]) => void) => Promise<SampleStats>,
    options: {
      signal?: AbortSignal | undefined;
      onCompletions?: ((completions: readonly Completion[]) => void) | undefined;
    },
  ) {
    const { signal, onCompletions } = options;
    this.#stop = new AbortController();
    const either = signal === undefined ? this.#stop.signal : AbortSignal.any([signal, this.#stop.signal]);
    const keep = (completions: Completion[]): void => {
      this.#batches.push(completions);
      this.#wake?.();
    };
    this.result = start(either, onCompletions ?? keep).finally(() => {
      this.#ended = true;
      this.#wake?.();
    });
  }

  /** Every completion, by request and sample. */
  async completions(): Promise<Completion[]> {
    const all: Completion[] = [];
    for await (const completion of this) all.push(completion);
    return all.sort((a, b) => a.request - b.request || a.sample - b.sample);
  }

  /** For one reader: a completion is handed out once. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Completion, void, undefined> {
    // The loop reports the error; nobody has to look at `result` as well.
    this.result.catch(() => undefined);
    try {
      for (;;) {
        const batch = this.#batches.shift();
        if (batch !== undefined) yield* batch;
        else if (this.#ended) break;
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
    } finally {
      if (!this.#ended) {
        this.#stop.abort();
        await this.result.catch(() => undefined);
      }
    }
    await this.result;
  }

  then<A = SampleStats, B = never>(
    onFulfilled?: ((stats: SampleStats) => A | PromiseLike<A>) | null,
    onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.result.then(onFulfilled, onRejected);
  }

  catch<B = never>(onRejected?: ((reason: unknown) => B | PromiseLike<B>) | null): Promise<SampleStats | B> {
    return this.result.catch(onRejected);
  }

  finally(onFinally?: (() => void) | null): Promise<SampleStats> {
    return this.result.finally(onFinally);
  }
}
