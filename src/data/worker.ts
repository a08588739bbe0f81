/**
 * The body of one data thread: loads a Processor, answers each chunk of rows with results in order. Started by DataThreads
 * only. Pixel buffers are transferred; errors travel as code, message and fields.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { plainError, type PlainError } from './plain-error.js';
import { Processor, type EncodedRow, type ProcessorOptions } from './processor.js';
import type { Row } from './rows.js';
import { yieldToMainThread } from './thread-priority.js';

/** What the thread is started with. */
export interface ThreadData {
  folder: string;
  options: ProcessorOptions;
}

/** A chunk to encode, or the wish to end after the chunks in hand. */
export type Request = { chunk: number; rows: Row[] } | { close: true };

export type RowResult = { row: EncodedRow } | { error: PlainError };

export type Reply =
  { type: 'ready' } | { type: 'failed'; error: PlainError } | { type: 'rows'; chunk: number; results: RowResult[] };

async function encodeRow(processor: Processor, row: Row): Promise<RowResult> {
  try {
    return { row: await processor.encode(row) };
  } catch (cause) {
    return { error: plainError(cause, 'on a row') };
  }
}

/** The one buffer that all pixels of a row lie in. */
function transferables(results: readonly RowResult[]): ArrayBuffer[] {
  return results.flatMap((result) => {
    const first = 'error' in result ? undefined : result.row.images[0];
    return first === undefined ? [] : [first.pixels.buffer as ArrayBuffer];
  });
}

async function serve(port: NonNullable<typeof parentPort>, data: ThreadData): Promise<void> {
  yieldToMainThread();
  const post = (reply: Reply, transfer: ArrayBuffer[] = []): void => port.postMessage(reply, transfer);
  let processor: Processor;
  try {
    processor = await Processor.load(data.folder, data.options);
  } catch (cause) {
    post({ type: 'failed', error: plainError(cause, 'to start') });
    return;
  }
  // One chunk at a time, rows of a chunk one after the other: memory stays bounded by what the pool sends.
  let tail = Promise.resolve();
  port.on('message', (request: Request) => {
    tail = tail.then(async () => {
      if ('close' in request) {
        port.close();
        return;
      }
      const results: RowResult[] = [];
      for (const row of request.rows) results.push(await encodeRow(processor, row));
      post({ type: 'rows', chunk: request.chunk, results }, transferables(results));
    });
  });
  post({ type: 'ready' });
}

if (parentPort !== null) await serve(parentPort, workerData as ThreadData);
