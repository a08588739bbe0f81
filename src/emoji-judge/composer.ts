/**
 * Composes rows in a worker thread: a pair of pictures costs about a millisecond of plain JavaScript, which a training run
 * must not take from the event loop. The thread starts with the first request and never keeps an idle process alive.
 */
import { Worker } from 'node:worker_threads';
import type { Row } from '../data/rows.js';
import { GavelError } from '../errors.js';
import type { EmojiBank } from './bank.js';
import type { ComposerData, ComposerReply, ComposerRequest } from './composer-worker.js';
import { glyphTable, type RowRequest } from './row-maker.js';

/** Requests of one message: what the main thread takes in at once stays small. */
const chunkRequests = 8;

interface Waiting {
  request: RowRequest;
  resolve: (rows: Row[]) => void;
  reject: (error: GavelError) => void;
}

export class Composer implements AsyncDisposable {
  readonly #bank: EmojiBank;
  readonly #seed: number;
  readonly #inFlight = new Map<number, Waiting[]>();
  #waiting: Waiting[] = [];
  #worker: Worker | undefined;
  #nextId = 0;
  #failure: GavelError | undefined;
  #disposed = false;

  constructor(bank: EmojiBank, seed: number) {
    this.#bank = bank;
    this.#seed = seed;
  }

  /** The rows of one request. Those asked for in one turn of the event loop travel together. Errors: 'disposed', 'internal'. */
  compose(request: RowRequest): Promise<Row[]> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined) return reject(this.#failure);
      if (this.#waiting.length === 0) queueMicrotask(() => this.#send());
      this.#waiting.push({ request, resolve, reject });
    });
  }

  /** Ends the thread; what waits rejects with 'disposed'. Idempotent. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    this.#fail(
      new GavelError('disposed', 'Expected an open composer but received a call after its end. Make another one.'),
    );
    await this.#worker?.terminate();
  }

  #send(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    if (this.#failure !== undefined || waiting.length === 0) return;
    this.#worker ??= this.#start();
    // Referenced only while somebody waits.
    if (this.#inFlight.size === 0) this.#worker.ref();
    for (let start = 0; start < waiting.length; start += chunkRequests) {
      const chunk = waiting.slice(start, start + chunkRequests);
      const id = this.#nextId++;
      this.#inFlight.set(id, chunk);
      this.#worker.postMessage({ id, requests: chunk.map(({ request }) => request) } satisfies ComposerRequest);
    }
  }

  #start(): Worker {
    const data: ComposerData = { table: glyphTable(this.#bank), seed: this.#seed };
    const worker = new Worker(workerUrl(), { workerData: data, name: 'gavel-composer' });
    worker.on('message', ({ id, rows }: ComposerReply) => {
      const chunk = this.#inFlight.get(id);
      this.#inFlight.delete(id);
      if (this.#inFlight.size === 0) worker.unref();
      chunk?.forEach(({ resolve }, i) => resolve(rows[i]!));
    });
    worker.on('error', (cause) => {
      this.#fail(
        new GavelError('internal', `The composing thread failed: ${cause.message}. Report this with its cause.`, {
          cause,
        }),
      );
    });
    worker.on('exit', (code) => {
      if (this.#disposed) return;
      this.#fail(
        new GavelError('internal', `The composing thread ended by itself (exit code ${code}). Report this.`, {
          fields: { exitCode: code },
        }),
      );
    });
    return worker;
  }

  #fail(error: GavelError): void {
    this.#failure ??= error;
    const waiting = [...[...this.#inFlight.values()].flat(), ...this.#waiting];
    this.#inFlight.clear();
    this.#waiting = [];
    for (const { reject } of waiting) reject(this.#failure);
  }
}

// Compiled, the worker lies beside this file. From TypeScript sources a launcher compiles it first.
function workerUrl(): URL {
  const fromSources = import.meta.url.endsWith('.ts');
  return new URL(fromSources ? '../../test/support/source-composer.mjs' : './composer-worker.js', import.meta.url);
}
