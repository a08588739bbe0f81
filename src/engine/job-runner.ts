/** Numbers an engine's jobs, so that an AbortSignal can name the one it ends. */
import type { NativeEngine } from '../binding/contract.js';
import { GavelError } from '../errors.js';

export class JobRunner {
  readonly #engine: NativeEngine;
  #next = 1;

  constructor(engine: NativeEngine) {
    this.#engine = engine;
  }

  /**
   * Starts a job under a new number. When `signal` aborts, the job ends at its next micro-step and the promise rejects with
   * `signal.reason`, after native code has stopped touching memory.
   */
  async run<T>(signal: AbortSignal | undefined, start: (job: number) => Promise<T>): Promise<T> {
    signal?.throwIfAborted();
    const job = this.#next++;
    const abort = (): void => this.#engine.abort(job);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      return await start(job);
    } catch (error) {
      if (signal?.aborted === true && GavelError.is(error) && error.code === 'aborted') throw signal.reason;
      throw error;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }
}
