/**
 * The one thread that decodes Parquet files for all open data sets: started with the first of them, ended with the last. A
 * failure of the thread rejects everything that waits on it.
 */
import { Worker } from 'node:worker_threads';
import { GavelError } from '../errors.js';
import type { BadRow } from './bad-row.js';
import type { ParquetOpenOptions, ParquetRecord, ParquetSummary } from './parquet-store.js';
import type { PlainRecord } from './parquet-values.js';
import type { ParquetReply, ParquetRequest } from './parquet-worker.js';
import { reviveError } from './plain-error.js';

interface Waiting {
  resolve: (reply: ParquetReply) => void;
  reject: (cause: unknown) => void;
  onSkip?: ((bad: BadRow) => void) | undefined;
}

type Answerable = Exclude<ParquetRequest, { type: 'end' }>;
type Without<T, K extends string> = T extends unknown ? Omit<T, K> : never;

let current: ParquetThread | undefined;

export class ParquetThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #next = 0;
  #users = 0;
  #failure: GavelError | undefined;

  /** The thread, started where there is none. Pair with `release`. */
  static acquire(): ParquetThread {
    if (current === undefined || current.#failure !== undefined) current = new ParquetThread();
    current.#users++;
    return current;
  }

  private constructor() {
    this.#worker = new Worker(workerUrl(), { name: 'gavel-parquet' });
    this.#worker.on('message', (reply: ParquetReply) => this.#receive(reply));
    this.#worker.on('error', (cause) => this.#fail(`failed: ${cause.message}`, cause));
    this.#worker.on('exit', (code) => this.#fail(`ended by itself (exit code ${code})`));
    this.#worker.unref();
  }

  /** Opens and checks files; `onSkip` is called for every row left out. Rejects with `signal.reason` when called off. */
  async open(
    options: ParquetOpenOptions,
    onSkip?: (bad: BadRow) => void,
    signal?: AbortSignal,
  ): Promise<{ store: number; summary: ParquetSummary }> {
    signal?.throwIfAborted();
    const cancelled = new SharedArrayBuffer(4);
    const cancel = (): void => void Atomics.store(new Int32Array(cancelled), 0, 1);
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const reply = await this.#ask({ type: 'open', options, cancelled }, onSkip);
      return reply as Extract<ParquetReply, { type: 'opened' }>;
    } catch (cause) {
      signal?.throwIfAborted();
      throw cause;
    } finally {
      signal?.removeEventListener('abort', cancel);
    }
  }

  async record(store: number, index: number): Promise<ParquetRecord> {
    const reply = await this.#ask({ type: 'record', store, index });
    return (reply as Extract<ParquetReply, { type: 'record' }>).record;
  }

  /** Opens one file to be read row by row; `close` ends it. */
  async openRows(path: string): Promise<number> {
    const reply = await this.#ask({ type: 'openRows', path });
    return (reply as Extract<ParquetReply, { type: 'rowsOpened' }>).store;
  }

  /** The next row of a file opened by `openRows`; undefined behind the last. */
  async nextRow(store: number): Promise<PlainRecord | undefined> {
    const reply = await this.#ask({ type: 'nextRow', store });
    return (reply as Extract<ParquetReply, { type: 'row' }>).record;
  }

  async close(store: number): Promise<void> {
    if (this.#failure === undefined) await this.#ask({ type: 'close', store });
  }

  /** Ends the thread when nobody uses it. */
  async release(): Promise<void> {
    if (--this.#users > 0 || this.#failure !== undefined) return;
    if (current === this) current = undefined;
    const ended = new Promise<void>((resolve) => this.#worker.once('exit', () => resolve()));
    this.#failure = new GavelError('disposed', 'Expected an open data set but received a call after dispose().');
    this.#worker.ref();
    this.#worker.postMessage({ id: this.#next++, type: 'end' } satisfies ParquetRequest);
    await ended;
  }

  #ask(request: Without<Answerable, 'id'>, onSkip?: (bad: BadRow) => void): Promise<ParquetReply> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, onSkip });
      // Referenced only while somebody waits: an idle thread never keeps the process alive.
      if (this.#waiting.size === 1) this.#worker.ref();
      this.#worker.postMessage({ ...request, id });
    });
  }

  #receive(reply: ParquetReply): void {
    const waiting = this.#waiting.get(reply.id);
    if (waiting === undefined) return;
    if (reply.type === 'skip') {
      try {
        waiting.onSkip?.(reply.bad);
      } catch (cause) {
        waiting.reject(cause);
      }
      return;
    }
    this.#waiting.delete(reply.id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if (reply.type === 'failed') waiting.reject(reviveError(reply.error));
    else waiting.resolve(reply);
  }

  #fail(what: string, cause?: unknown): void {
    const error = new GavelError(
      'internal',
      `The thread that reads Parquet files ${what}. Report this with its cause.`,
      {
        cause,
      },
    );
    this.#failure ??= error;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}

// Compiled, the worker lies beside this file. From TypeScript sources a launcher compiles it first.
function workerUrl(): URL {
  const fromSources = import.meta.url.endsWith('.ts');
  return new URL(fromSources ? '../../test/support/source-parquet-worker.mjs' : './parquet-worker.js', import.meta.url);
}
