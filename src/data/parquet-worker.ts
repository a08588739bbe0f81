/**
 * The body of the thread that decodes Parquet files. Requests are answered one after the other; the bytes of pictures are
 * transferred, not copied twice. Started by ParquetThread only.
 */
import { parentPort } from 'node:worker_threads';
import type { BadRow } from './bad-row.js';
import { ParquetStore, type ParquetOpenOptions, type ParquetRecord, type ParquetSummary } from './parquet-store.js';
import { ParquetRowReader } from './parquet-row-reader.js';
import type { PlainRecord } from './parquet-values.js';
import { plainError, type PlainError } from './plain-error.js';
import { yieldToMainThread } from './thread-priority.js';

export type ParquetRequest =
  | { id: number; type: 'open'; options: ParquetOpenOptions; cancelled: SharedArrayBuffer }
  | { id: number; type: 'record'; store: number; index: number }
  | { id: number; type: 'openRows'; path: string }
  | { id: number; type: 'nextRow'; store: number }
  | { id: number; type: 'close'; store: number }
  | { id: number; type: 'end' };

export type ParquetReply =
  | { id: number; type: 'skip'; bad: BadRow }
  | { id: number; type: 'opened'; store: number; summary: ParquetSummary }
  | { id: number; type: 'record'; record: ParquetRecord }
  | { id: number; type: 'rowsOpened'; store: number }
  | { id: number; type: 'row'; record: PlainRecord | undefined }
  | { id: number; type: 'closed' }
  | { id: number; type: 'failed'; error: PlainError };

function serve(port: NonNullable<typeof parentPort>): void {
  yieldToMainThread();
  const stores = new Map<number, ParquetStore>();
  const readers = new Map<number, ParquetRowReader>();
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
      // The block keeps its pictures for the next epoch.
      const { embedded, buffers } = copied(record.embedded);
      post({ id, type: 'record', record: { ...record, embedded } }, buffers);
    } else if (type === 'openRows') {
      readers.set(id, await ParquetRowReader.open(request.path));
      post({ id, type: 'rowsOpened', store: id });
    } else if (type === 'nextRow') {
      const record = await readers.get(request.store)!.next();
      if (record === undefined) return post({ id, type: 'row', record });
      const { embedded, buffers } = copied(record.embedded);
      post({ id, type: 'row', record: { ...record, embedded } }, buffers);
    } else if (type === 'close') {
      await (stores.get(request.store) ?? readers.get(request.store))?.close();
      stores.delete(request.store);
      readers.delete(request.store);
      post({ id, type: 'closed' });
    } else {
      for (const opened of [...stores.values(), ...readers.values()]) await opened.close();
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

/** What may leave the thread: pictures are views of what was decoded for a whole block. */
function copied(pictures: readonly Uint8Array[]): { embedded: Uint8Array[]; buffers: ArrayBuffer[] } {
  const embedded = pictures.map((bytes) => Uint8Array.from(bytes));
  return { embedded, buffers: embedded.map(({ buffer }) => buffer) };
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
