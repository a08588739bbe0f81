/**
 * Shuffling without a list: the order of an epoch is a keyed permutation of the indices, by a Feistel network that walks
 * its cycles until it is back below `size` (Black and Rogaway, 2002). O(1) memory; a cursor resumes anywhere.
 */
import { GavelError, expected } from '../errors.js';
import type { Dataset } from './dataset.js';
import type { Row } from './rows.js';

const rounds = 8;

// The finaliser of MurmurHash3: every input bit reaches every output bit.
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function roundKeys(seed: number, epoch: number): Uint32Array {
  const keys = new Uint32Array(rounds);
  let state = mix((seed >>> 0) ^ 0x9e3779b9);
  state = mix(state ^ Math.floor(seed / 2 ** 32));
  state = mix(state ^ Math.imul(epoch, 0x27d4eb2f));
  for (let round = 0; round < rounds; round++) keys[round] = state = mix(state + 0x9e3779b9 + round);
  return keys;
}

/** Where index `position` of epoch `epoch` points: a permutation of 0..size-1 for every seed and epoch. */
export function permutedIndex(position: number, size: number, seed: number, epoch = 0): number {
  return permutation(size, seed, epoch)(position);
}

/**
 * The permutation of one epoch as a function. `size` from 1 to 2^40, `seed` and `epoch` integers >= 0; others throw
 * 'invalid_argument'.
 */
export function permutation(size: number, seed: number, epoch = 0): (position: number) => number {
  for (const [name, value, least] of [
    ['size', size, 1],
    ['seed', seed, 0],
    ['epoch', epoch, 0],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least)
      throw expected('invalid_argument', name, `an integer >= ${least}`, value);
  }
  if (size > 2 ** 40) throw expected('invalid_argument', 'size', 'at most 2^40', size, 'Split the data set.');
  const halfBits = Math.max(1, Math.ceil(Math.log2(size) / 2));
  const half = 2 ** halfBits;
  const keys = roundKeys(seed, epoch);
  return (position) => {
    if (!Number.isInteger(position) || position < 0 || position >= size) {
      throw expected('invalid_argument', 'position', `an integer from 0 to ${size - 1}`, position);
    }
    let value = position;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (const key of keys) [left, right] = [right, left ^ (mix(right ^ key) & (half - 1))];
      value = left * half + right;
    } while (value >= size);
    return value;
  };
}

/** Where an iteration stands: plain data that goes into a checkpoint. `position` counts rows of the epoch already given. */
export interface Cursor {
  epoch: number;
  position: number;
  seed: number;
  fingerprint: string;
}

export interface BatchOptions {
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
export type Ordered = Pick<Dataset, 'name' | 'size' | 'fingerprint'>;

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
    const order = shuffle ? permutation(size, start.seed, epoch) : (index: number): number => index;
    while (position < end) {
      signal?.throwIfAborted();
      const stop = Math.min(position + batchSize, end);
      const indices: number[] = [];
      for (; position < stop; position++) indices.push(order(position));
      yield { indices, cursor: { epoch, position, seed: start.seed, fingerprint } };
    }
  }
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
