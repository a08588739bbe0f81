/** Batches of rows, encoded in the data threads one batch ahead of the step that uses them. */
import type { EncodedRow } from '../data/processor.js';
import type { Dataset } from '../data/dataset.js';
import { batches, type Batch, type BatchOptions } from '../data/shuffle.js';
import { oneAhead } from './one-ahead.js';
import type { Policy } from './policy.js';

export interface EncodedBatch extends Batch {
  encoded: EncodedRow[];
}

export function encodedBatches(
  policy: Policy,
  dataset: Dataset,
  options: BatchOptions & { signal: AbortSignal },
): AsyncGenerator<EncodedBatch, void, undefined> {
  return oneAhead(batches(dataset, options), async (batch) => ({
    ...batch,
    encoded: await policy.encode(batch.rows, options.signal),
  }));
}
