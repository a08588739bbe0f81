/**
 * Shuffling without a list: the order of an epoch is a keyed permutation of the indices, or of blocks of them where only
 * blocks are cheap to read (local-order.ts). A cursor resumes anywhere.
 */
import { GavelError, expected } from '../errors.js';
import type { Dataset } from './dataset.js';
import { localOrder } from './local-order.js';
import type { Row } from './rows.js';
import { permutation } from './shuffle-permutation.js';

export { permutation, permutedIndex } from './shuffle-permutation.js';

/** Where an iteration stands: plain data that goes into a checkpoint. `position` counts rows of the epoch already given. */
export interface Cursor {
  epoch: number;
  position: number;
  seed: number;
  fingerprint: string;
}

/** How a data set is iterated. */
export interface BatchOptions {
  /** Rows of a batch, at least 1; the last of an epoch may be shorter. */
  batchSize: number;
  /** Key of the order; 0 by default. Ignored where `cursor` says it. */
  seed?: number;
  /** Resumes after the batch that gave this cursor. */
  cursor?: Cursor;
  /** Ends after this many epochs, counted from epoch 0; endless by default. */
  epochs?: number;
  /** What happens to the short batch at the end of an epoch; kept by default. */
  lastBatch?: 'keep' | 'drop';
  /** Shuffled by default; false gives the order of the data set. */
  shuffle?: boolean;
  /** Ends the iteration by throwing `signal.reason`. */
  signal?: AbortSignal;
}

/** One batch, the indices its rows have in the data set, and the cursor that resumes after it. */
export interface Batch {
  rows: Row[];
  indices: number[];
  cursor: Cursor;
}

/** Indices of one batch and the cursor that resumes after it. */
export interface IndexBatch {
  indices: number[];
  cursor: Cursor;
}

/** What an order is made for: the size of a source, and what a cursor recognises it by. */
export type Ordered = Pick<Dataset, 'name' | 'size' | 'fingerprint' | 'locality'>;

/**
 * Iterates a data set in batches; a batch never crosses an epoch. The sequence depends on seed, batch size and data set
 * alone, so resuming from any batch's cursor continues it exactly. A cursor of another data set throws 'bad_data'.
 */
export async function* batches(dataset: Dataset, options: BatchOptions): AsyncGenerator<Batch, void, undefined> {
  for (const { indices, cursor } of indexBatches(dataset, options)) {
    const rows = await Promise.all(indices.map((index) => dataset.row(index)));
    yield { rows, indices, cursor };
  }
}

/** The order of `batches` without its rows, for any source that has a size and a fingerprint. */
export function* indexBatches(source: Ordered, options: BatchOptions): Generator<IndexBatch, void, undefined> {
  const { batchSize, epochs = Infinity, lastBatch = 'keep', shuffle = true, signal } = options;
  const { size, fingerprint } = source;
  if (!Number.isSafeInteger(batchSize) || batchSize < 1)
    throw expected('invalid_argument', 'batchSize', 'an integer >= 1', batchSize);
  const start = options.cursor ?? { epoch: 0, position: 0, seed: options.seed ?? 0, fingerprint };
  checkCursor(start, source);
  const end = lastBatch === 'drop' ? size - (size % batchSize) : size;
  if (end === 0) {
    throw new GavelError(
      'bad_data',
      `Expected at least ${batchSize} rows (one full batch) in data set "${source.name}" but received ${size}. ` +
        'Lower `batchSize` or keep the last batch.',
      { fields: { dataset: source.name, size, batchSize } },
    );
  }
  let { position } = start;
  for (let epoch = start.epoch; epoch < epochs; epoch++, position = 0) {
    const order = shuffle ? orderOf(source, start.seed, epoch) : (index: number): number => index;
    while (position < end) {
      signal?.throwIfAborted();
      const stop = Math.min(position + batchSize, end);
      const indices: number[] = [];
      for (; position < stop; position++) indices.push(order(position));
      yield { indices, cursor: { epoch, position, seed: start.seed, fingerprint } };
    }
  }
}

function orderOf({ size, locality }: Ordered, seed: number, epoch: number): (position: number) => number {
  return locality === undefined ? permutation(size, seed, epoch) : localOrder(locality, seed, epoch);
}

function checkCursor(cursor: Cursor, dataset: Ordered): void {
  if (cursor.fingerprint !== dataset.fingerprint) {
    throw new GavelError(
      'bad_data',
      `Expected the data set "${dataset.name}" that the run was started on (fingerprint ${cursor.fingerprint}) but received ` +
        `one with ${dataset.fingerprint}. Restore its files, or start a new run.`,
      { fields: { dataset: dataset.name, expected: cursor.fingerprint, received: dataset.fingerprint } },
    );
  }
  const { epoch, position } = cursor;
  if (
    Number.isSafeInteger(epoch) &&
    epoch >= 0 &&
    Number.isSafeInteger(position) &&
    position >= 0 &&
    position <= dataset.size
  )
    return;
  throw expected(
    'invalid_argument',
    'cursor',
    `an epoch >= 0 and a position up to ${dataset.size}`,
    `${epoch}, ${position}`,
  );
}
