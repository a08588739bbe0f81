/**
 * A pool of worker_threads that run a Processor, so that templates, tokenizing and image work stay off the main loop. Rows
 * travel in small chunks, one in each worker's hands and one waiting; pixel buffers are transferred, not copied.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { parseOptions } from '../engine/parse-options.js';
import { GavelError } from '../errors.js';
import { reviveError } from './plain-error.js';
import type { EncodedRow, ProcessorOptions } from './processor.js';
import { dataThreadsOptionsSchema } from './prompt-limits.js';
import { withOrigin } from './row-origin.js';
import { rowsSchema, type ImageSource, type Row, type VideoSource } from './rows.js';
import type { Reply, Request, RowResult, ThreadData } from './worker.js';

export interface DataThreadsOptions extends ProcessorOptions {
  /** Number of workers. Default: one less than the cores, at least 1, at most 4. */
  threads?: number;
}

/** How encode() is called off. */
export interface EncodeOptions {
  /** Rejects with `signal.reason`; chunks that a worker already holds are finished and dropped. */
  signal?: AbortSignal;
}

const chunkRows = 16;
const chunkBytes = 1 << 20;
const chunksPerWorker = 2;

interface Chunk {
  rows: Row[];
  settle: (results: RowResult[] | GavelError) => void;
}

interface Lane {
  worker: Worker;
  inFlight: Map<number, Chunk>;
}

/** Encodes rows in worker threads, in order. Create with `DataThreads.start`; dispose when done. */
export class DataThreads {
  readonly #lanes: Lane[] = [];
  readonly #queue: Chunk[] = [];
  #nextChunk = 0;
  #failure: GavelError | undefined;
  #disposal: Promise<void> | undefined;

  private constructor() {}

  /** Starts the workers and waits until each has read the checkpoint folder; its errors are thrown here. */
  static async start(folder: string, options: DataThreadsOptions = {}): Promise<DataThreads> {
    parseOptions(dataThreadsOptionsSchema, options, 'options');
    const { threads = Math.min(4, Math.max(1, availableParallelism() - 1)), ...processor } = options;
    const pool = new DataThreads();
    try {
      await Promise.all(Array.from({ length: threads }, () => pool.#startLane({ folder, options: processor })));
    } catch (cause) {
      await pool.dispose();
      throw cause;
    }
    return pool;
  }

  /**
   * Encodes `rows`; the result has their order. Rejects with the error of the first bad row (a GavelError with code and
   * fields), with 'disposed', or with `signal.reason`. In-memory pictures are copied, so the caller keeps his.
   */
  async encode(rows: readonly Row[], options: EncodeOptions = {}): Promise<EncodedRow[]> {
    const results = await this.#run(rows, options, true);
    return results.map((result) => {
      if ('error' in result) throw reviveError(result.error);
      return result.row;
    });
  }

  /** As `encode`, but a bad row yields its error in its place, for callers that skip and count. */
  async encodeSettled(rows: readonly Row[], options: EncodeOptions = {}): Promise<(EncodedRow | GavelError)[]> {
    const results = await this.#run(rows, options, false);
    return results.map((result) => ('error' in result ? reviveError(result.error) : result.row));
  }

  /** Rejects what is queued with 'disposed', lets the workers finish the chunk in hand, then ends them. Idempotent. */
  dispose(): Promise<void> {
    this.#disposal ??= this.#shutDown();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #run(rows: readonly Row[], options: EncodeOptions, stopAtError: boolean): Promise<RowResult[]> {
    const { signal } = options;
    signal?.throwIfAborted();
    if (this.#disposal !== undefined) throw disposedError();
    if (this.#failure !== undefined) throw this.#failure;
    parseOptions(rowsSchema, rows, 'rows');
    const parts = splitRows(rows);
    const results: RowResult[][] = [];
    let cancelled = false;
    const pending = parts.map((part, index) => {
      return new Promise<void>((resolve, reject) => {
        const chunk: Chunk = {
          rows: part,
          settle: (outcome) => {
            if (outcome instanceof Error) return reject(outcome);
            results[index] = outcome;
            // Chunks are handed out in order, so every earlier chunk is already under way: the first bad row still wins.
            if (stopAtError && !cancelled && outcome.some((result) => 'error' in result)) cancel();
            resolve();
          },
        };
        this.#queue.push(chunk);
      });
    });
    const cancel = (): void => {
      cancelled = true;
      const mine = new Set(parts);
      for (let i = this.#queue.length - 1; i >= 0; i--) {
        if (mine.has(this.#queue[i]!.rows)) this.#queue.splice(i, 1)[0]!.settle([]);
      }
    };
    this.#pump();
    const all = Promise.all(pending);
    if (signal === undefined) await all;
    else await abortable(all, signal, cancel);
    return results.flat();
  }

  async #startLane(data: ThreadData): Promise<void> {
    const worker = new Worker(workerUrl(), { workerData: data, name: 'gavel-data' });
    const lane: Lane = { worker, inFlight: new Map() };
    this.#lanes.push(lane);
    await new Promise<void>((resolve, reject) => {
      worker.on('message', (reply: Reply) => {
        if (reply.type === 'ready') resolve();
        else if (reply.type === 'failed') reject(reviveError(reply.error));
        else this.#receive(lane, reply);
      });
      worker.on('error', (cause) => {
        const error = new GavelError(
          'internal',
          `A data thread failed: ${cause.message}. Report this with its cause.`,
          { cause },
        );
        reject(error);
        this.#fail(error);
      });
      worker.on('exit', (code) => {
        const error = this.#disposal === undefined ? exitError(code) : disposedError();
        reject(error);
        this.#fail(error);
      });
    });
    worker.unref();
  }

  #pump(): void {
    for (let depth = 1; depth <= chunksPerWorker; depth++) {
      for (const lane of this.#lanes) {
        if (this.#queue.length === 0) return;
        if (lane.inFlight.size < depth) this.#send(lane, this.#queue.shift()!);
      }
    }
  }

  #send(lane: Lane, chunk: Chunk): void {
    const id = this.#nextChunk++;
    const request: Request = { chunk: id, rows: chunk.rows.map(compactRow) };
    try {
      lane.worker.postMessage(request);
    } catch (cause) {
      chunk.settle(uncloneable(cause));
      return;
    }
    // Referenced only while it works: an idle pool never keeps the process alive, a waiting caller always does.
    if (lane.inFlight.size === 0) lane.worker.ref();
    lane.inFlight.set(id, chunk);
  }

  #receive(lane: Lane, reply: Extract<Reply, { type: 'rows' }>): void {
    const chunk = lane.inFlight.get(reply.chunk);
    lane.inFlight.delete(reply.chunk);
    if (lane.inFlight.size === 0) lane.worker.unref();
    chunk?.settle(reply.results.map((result, index) => completed(result, chunk.rows[index]!)));
    this.#pump();
  }

  #fail(error: GavelError): void {
    this.#failure ??= error;
    const chunks = [...this.#queue.splice(0), ...this.#lanes.flatMap((lane) => [...lane.inFlight.values()])];
    for (const lane of this.#lanes) lane.inFlight.clear();
    for (const chunk of chunks) chunk.settle(error);
  }

  async #shutDown(): Promise<void> {
    for (const chunk of this.#queue.splice(0)) chunk.settle(disposedError());
    // The thread closes its port after the chunk in hand, so a decoder is never torn down in the middle of its work.
    await Promise.all(
      this.#lanes.map(async ({ worker, inFlight }) => {
        if (worker.threadId === -1) return;
        const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
        worker.ref();
        worker.postMessage({ close: true } satisfies Request);
        const patience = setTimeout(() => void worker.terminate(), 10_000);
        await ended;
        clearTimeout(patience);
        inFlight.clear();
      }),
    );
  }
}

// Compiled, the worker lies beside this file. From TypeScript sources a launcher compiles it first.
function workerUrl(): URL {
  const fromSources = import.meta.url.endsWith('.ts');
  return new URL(fromSources ? '../../test/support/source-worker.mjs' : './worker.js', import.meta.url);
}

function splitRows(rows: readonly Row[]): Row[][] {
  const parts: Row[][] = [];
  let part: Row[] = [];
  let bytes = 0;
  for (const row of rows) {
    part.push(row);
    for (const image of row.images) bytes += bytesOf(image);
    for (const video of row.videos ?? [])
      if ('frames' in video) for (const frame of video.frames) bytes += bytesOf(frame);
    if (part.length < chunkRows && bytes < chunkBytes) continue;
    parts.push(part);
    part = [];
    bytes = 0;
  }
  if (part.length > 0) parts.push(part);
  return parts;
}

function bytesOf(image: ImageSource): number {
  return 'rgb' in image ? image.rgb.length : 'bytes' in image ? image.bytes.length : 0;
}

/** What never travels is put back here: the same `meta`, and to an error the place of its row. */
function completed(result: RowResult, row: Row): RowResult {
  if ('error' in result) return { error: withOrigin(result.error, row) };
  const { meta } = row;
  return meta === undefined ? result : { row: { ...result.row, meta } };
}

/** Only what the thread needs; a view is cut out first, because cloning one would copy its whole buffer. */
function compactRow(row: Row): Row {
  const { id, prompt, completion } = row;
  const compact: Row = { id, prompt, images: row.images.map(compactImage) };
  if (row.videos !== undefined) compact.videos = row.videos.map(compactVideo);
  if (completion !== undefined) compact.completion = completion;
  return compact;
}

function compactImage(image: ImageSource): ImageSource {
  if ('rgb' in image) return { rgb: ownBytes(image.rgb), width: image.width, height: image.height };
  return 'bytes' in image ? { bytes: ownBytes(image.bytes) } : { path: image.path };
}

function compactVideo(video: VideoSource): VideoSource {
  return 'frames' in video ? { ...video, frames: video.frames.map(compactImage) } : video;
}

function ownBytes(bytes: Uint8Array): Uint8Array {
  if (!(bytes instanceof Uint8Array) || bytes.byteLength === bytes.buffer.byteLength) return bytes;
  return Uint8Array.prototype.slice.call(bytes);
}

function disposedError(): GavelError {
  return new GavelError('disposed', 'Expected open data threads but received a call after dispose(). Start new ones.');
}

function exitError(code: number): GavelError {
  return new GavelError('internal', `A data thread ended by itself (exit code ${code}). Report this.`, {
    fields: { exitCode: code },
  });
}

function uncloneable(cause: unknown): GavelError {
  return new GavelError(
    'bad_data',
    `Expected rows of plain data but received one that cannot be sent to a thread: ${(cause as Error).message}. ` +
      'Use strings, numbers and byte arrays only.',
    { cause },
  );
}

/** Awaits `work`, or rejects with the signal's reason after calling `cancel`. */
async function abortable(work: Promise<unknown>, signal: AbortSignal, cancel: () => void): Promise<void> {
  let onAbort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => {
      cancel();
      reject(signal.reason as Error);
    };
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
