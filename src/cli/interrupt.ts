/** Ctrl-C: the first asks the job to stop with a checkpoint, the second ends at once. */

export interface Interruptible {
  stop(): Promise<unknown>;
}

export class Interrupts implements Disposable {
  readonly #controller = new AbortController();
  readonly #onNote: (text: string) => void;
  readonly #kept: string;
  #job: Interruptible | undefined;
  #count = 0;

  /** `kept` ends the last message: what there is of the work, and what to do. */
  constructor(onNote: (text: string) => void, kept = 'what was checkpointed is kept. Add --resume to continue.') {
    this.#onNote = onNote;
    this.#kept = kept;
    process.on('SIGINT', this.#interrupt);
    process.on('SIGTERM', this.#interrupt);
  }

  /** Aborts what takes a signal, when there is no job to stop or the user asked twice. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get interrupted(): boolean {
    return this.#count > 0;
  }

  /** The job that a first interrupt stops gracefully. */
  watch(job: Interruptible): void {
    this.#job = job;
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /** Gives the signals back to Node. */
  release(): void {
    process.off('SIGINT', this.#interrupt);
    process.off('SIGTERM', this.#interrupt);
  }

  readonly #interrupt = (): void => {
    this.#count++;
    if (this.#count === 1 && this.#job !== undefined) {
      this.#onNote('Stopping after this step, with a checkpoint. Interrupt again to end at once.');
      // Its failure is reported by whoever awaits the job.
      this.#job.stop().catch(() => undefined);
      return;
    }
    this.#controller.abort(new InterruptedError(this.#kept));
    if (this.#count > 2) process.exit(130);
  };
}

/** The reason jobs reject with after an interrupt. */
export class InterruptedError extends Error {
  constructor(kept: string) {
    super(`interrupted; ${kept}`);
    this.name = 'InterruptedError';
  }
}
