/** Batches of preference pairs, both candidates encoded in the data threads one batch ahead of the step that uses them. */
import { pairBatches, type PairBatch, type PairDataset } from '../data/pairs.js';
import type { EncodedRow } from '../data/processor.js';
import type { BatchOptions } from '../data/shuffle.js';
import { oneAhead } from './one-ahead.js';
import type { Policy } from './policy.js';

export interface EncodedPair {
  first: EncodedRow;
  second: EncodedRow;
}

export interface EncodedPairBatch extends PairBatch {
  encoded: EncodedPair[];
}

export function encodedPairBatches(
  policy: Policy,
  dataset: PairDataset,
  options: BatchOptions & { signal: AbortSignal },
): AsyncGenerator<EncodedPairBatch, void, undefined> {
  return oneAhead(pairBatches(dataset, options), async (batch) => ({
    ...batch,
    encoded: await encodePairs(policy, batch.pairs, options.signal),
  }));
}

/** Both candidates of each pair as the model's input. */
export async function encodePairs(
  policy: Policy,
  pairs: PairBatch['pairs'],
  signal: AbortSignal,
): Promise<EncodedPair[]> {
  const rows = await policy.encode(
    pairs.flatMap(({ first, second }) => [first, second]),
    signal,
  );
  return pairs.map((_, i) => ({ first: rows[2 * i]!, second: rows[2 * i + 1]! }));
}
