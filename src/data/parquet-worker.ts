/**
 * The body of the thread that decodes Parquet files. Requests are answered one after the other; the bytes of pictures are
 * transferred, not copied twice. Started by ParquetThread only.
 */
import { parentPort } from 'node:worker_threads';
import type { BadRow } from './bad-row.js';
import { ParquetStore, type ParquetOpenOptions, type ParquetRecord, type ParquetSummary } from './parquet-store.js';
import { plainError, type PlainError } from './plain-error.js';
import { yieldToMainThread } from './thread-priority.js';

export type ParquetRequest =
  | { id: number; type: 'open'; options: ParquetOpenOptions; cancelled: SharedArrayBuffer }
  | { id: number; type: 'record'; store: number; index: number }
  | { id: number; type: 'close'; store: number }
  | { id: number; type: 'end' };

export type ParquetReply =
  | { id: number; type: 'skip'; bad: BadRow }
  | { id: number; type: 'opened'; store: number; summary: ParquetSummary }
  | { id: number; type: 'record'; record: ParquetRecord }
  | { id: number; type: 'closed' }
  | { id: number; type: 'failed'; error: PlainError };

function serve(port: NonNullable<typeof parentPort>): void {
  yieldToMainThread();
  const stores = new Map<number, ParquetStore>();
  const post = (reply: ParquetReply, transfer: ArrayBuffer[] = []): void => port.postMessage(reply, transfer);

  async function answer(request: ParquetRequest): Promise<void> {
    const { id, type } = request;
    if (type === 'open') {
      const cancelled = new Int32Array(request.cancelled);
      const signal = { throwIfAborted: () => stopIf(cancelled) } as AbortSignal;
      const { store, summary } = await ParquetStore.open(
        request.options,
        (bad) => post({ id, type: 'skip', bad }),
        signal,
      );
      stores.set(id, store);
      post({ id, type: 'opened', store: id, summary }, [summary.idHashes.buffer as ArrayBuffer]);
    } else if (type === 'record') {
      const record = await stores.get(request.store)!.record(request.index);
      if ('bad' in record) return post({ id, type: 'record', record });
      // The block keeps its pictures for the next epoch: what leaves is a copy.
      const embedded = record.embedded.map((bytes) => Uint8Array.prototype.slice.call(bytes));
      const buffers = embedded.map(({ buffer }) => buffer);
      post({ id, type: 'record', record: { ...record, embedded } }, buffers);
    } else if (type === 'close') {
      await stores.get(request.store)?.close();
      stores.delete(request.store);
      post({ id, type: 'closed' });
    } else {
      for (const store of stores.values()) await store.close();
      port.close();
    }
  }

  let tail = Promise.resolve();
  port.on('message', (request: ParquetRequest) => {
    tail = tail.then(async () => {
      try {
        await answer(request);
      } catch (cause) {
        post({ id: request.id, type: 'failed', error: plainError(cause, 'on a Parquet file') });
      }
    });
  });
}

function stopIf(cancelled: Int32Array): void {
  if (Atomics.load(cancelled, 0) !== 0) throw new Error('called off');
}

// The decoder starts reads that it never awaits once a damaged file made it throw. Every answer here is awaited and caught, so
// what arrives unhandled is such a read: the request itself has failed with the reason.
function ignoreAbandonedReads(): void {
  process.on('unhandledRejection', () => undefined);
}

if (parentPort !== null) {
  ignoreAbandonedReads();
  serve(parentPort);
}
