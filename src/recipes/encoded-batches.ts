/** Batches of rows, encoded in the data threads one batch ahead of the step that uses them. */
import type { EncodedRow } from '../data/processor.js';
import type { Dataset } from '../data/dataset.js';
import { batches, type Batch, type BatchOptions } from '../data/shuffle.js';
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

/** `source` with each item prepared while the one before it is in use. */
export async function* oneAhead<From, To>(
  source: AsyncGenerator<From, void, undefined>,
  prepare: (item: From) => Promise<To>,
): AsyncGenerator<To, void, undefined> {
  const fetch = async (): Promise<To | undefined> => {
    const next = await source.next();
    return next.done === true ? undefined : prepare(next.value);
  };
  let coming = fetch();
  try {
    for (;;) {
      const item = await coming;
      if (item === undefined) return;
      coming = fetch();
      // Its failure is thrown when the item is asked for, which may be never.
      coming.catch(() => undefined);
      yield item;
    }
  } finally {
    await coming.catch(() => undefined);
    await source.return();
  }
}
