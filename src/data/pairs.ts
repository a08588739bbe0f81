/**
 * Preference pairs: two candidates and which of them is better. What scorers and preference losses train on and are
 * evaluated with. A candidate is a whole row, so its prompt may hold its own picture; its completion is the rationale
 * (joint training) or the answer itself (preference losses, where both prompts are equal).
 */
import { createHash } from 'node:crypto';
import { GavelError, expected } from '../errors.js';
import { checkIndex, checkNotEmpty, hashRow, type Hash } from './dataset.js';
import type { Locality } from './local-order.js';
import { checkImageCount, type Row } from './rows.js';
import { indexBatches, type BatchOptions, type Cursor } from './shuffle.js';

/** Which candidate is better; a tie is a judgement of its own. */
export const preferences = ['first', 'second', 'tie'] as const;
export type Preference = (typeof preferences)[number];

/** One labelled pair. */
export interface PairRow {
  id: string;
  /** Its id differs from the second's: ids key random numbers and stored scores. */
  first: Row;
  second: Row;
  preference: Preference;
  /** The preference in single dimensions ("instruction following"), where the data say it. */
  dimensions?: Record<string, Preference>;
  /** Scores by dimension, in the units of the data. */
  scores?: { first: Record<string, number>; second: Record<string, number> };
  meta?: Record<string, unknown>;
}

/** Pairs 0..size-1. The same index always gives the same pair. */
export interface PairDataset {
  readonly name: string;
  /** Number of pairs, at least 1. */
  readonly size: number;
  /** Equal for equal content; a cursor only resumes on the data set it was made on. */
  readonly fingerprint: string;
  /** As of `Dataset`. */
  readonly locality?: Locality | undefined;
  pair(index: number): Promise<PairRow>;
}

/**
 * Throws unless the pair can be used: 'image_count_mismatch' naming the candidate's row; 'bad_data' for an unknown
 * preference, for candidates of one id, and for scores that are no finite numbers.
 */
export function checkPair(pair: PairRow): void {
  const { id, first, second, preference, dimensions = {}, scores } = pair;
  checkImageCount(first);
  checkImageCount(second);
  if (first.id === second.id) throw badPair(id, `two candidates of different ids`, `"${first.id}" twice`);
  for (const [name, value] of [['preference', preference], ...Object.entries(dimensions)] as [string, unknown][]) {
    if (!preferences.includes(value as Preference)) {
      throw badPair(id, `first, second or tie for \`${name}\``, JSON.stringify(value) ?? 'nothing');
    }
  }
  for (const side of ['first', 'second'] as const) {
    for (const [name, value] of Object.entries(scores?.[side] ?? {})) {
      if (!Number.isFinite(value)) throw badPair(id, `a finite number for \`scores.${side}.${name}\``, String(value));
    }
  }
}

/**
 * Pairs that are already there. Each is checked now (`checkPair`), and pair ids must be distinct ('bad_data'). The
 * fingerprint covers ids, preferences, scores and both rows.
 */
export function pairsFromRows(name: string, pairs: readonly PairRow[]): PairDataset {
  checkNotEmpty(name, pairs.length);
  const ids = new Set<string>();
  const hash = createHash('sha256');
  for (const pair of pairs) {
    checkPair(pair);
    if (ids.has(pair.id)) throw badPair(pair.id, `distinct ids in data set "${name}"`, `"${pair.id}" twice`);
    ids.add(pair.id);
    hashPair(hash, pair);
  }
  return {
    name,
    size: pairs.length,
    fingerprint: hash.digest('hex').slice(0, 32),
    pair: async (index) => {
      checkIndex(name, index, pairs.length);
      return pairs[index]!;
    },
  };
}

/** What `generatedPairs` is made of. */
export interface PairGeneratorOptions {
  name: string;
  size: number;
  /** Everything the pairs depend on (seed, version of the maker); it becomes the fingerprint. */
  key: string;
  /** The pair of an index. Must give the same pair every time it is asked. */
  make: (index: number) => PairRow | Promise<PairRow>;
}

/** Pairs that are made when asked for, so that pictures of many pairs never exist at once. Each is checked then. */
export function generatedPairs({ name, size, key, make }: PairGeneratorOptions): PairDataset {
  if (!Number.isSafeInteger(size) || size < 0) throw expected('invalid_argument', 'size', 'an integer >= 1', size);
  checkNotEmpty(name, size);
  return {
    name,
    size,
    fingerprint: createHash('sha256')
      .update(JSON.stringify(['pairs', name, size, key]))
      .digest('hex')
      .slice(0, 32),
    pair: async (index) => {
      checkIndex(name, index, size);
      const pair = await make(index);
      checkPair(pair);
      return pair;
    },
  };
}

/** One batch of pairs, their indices in the data set, and the cursor that resumes after it. */
export interface PairBatch {
  pairs: PairRow[];
  indices: number[];
  cursor: Cursor;
}

/** Iterates pairs as `batches` iterates rows: same order for the same seed, size and fingerprint, same cursors. */
export async function* pairBatches(
  dataset: PairDataset,
  options: BatchOptions,
): AsyncGenerator<PairBatch, void, undefined> {
  for (const { indices, cursor } of indexBatches(dataset, options)) {
    yield { pairs: await Promise.all(indices.map((index) => dataset.pair(index))), indices, cursor };
  }
}

function hashPair(hash: Hash, { id, first, second, preference, dimensions, scores }: PairRow): void {
  hash.update(JSON.stringify([id, preference, dimensions ?? null, scores ?? null]));
  hashRow(hash, first);
  hashRow(hash, second);
}

function badPair(id: string, what: string, received: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected ${what} in pair "${id}" but received ${received}. Correct the pair or leave it out.`,
    { fields: { id, expected: what, received } },
  );
}
