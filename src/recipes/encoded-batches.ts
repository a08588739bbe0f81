/** Batches of rows, encoded in the data threads one batch ahead of the step that uses them. */
import type { EncodedRow } from '../data/processor.js';
import type { Dataset } from '../data/dataset.js';
import { batches, type Batch, type BatchOptions } from '../data/shuffle.js';
import type { Policy } from './policy.js';

export interface EncodedBatch extends Batch {
  encoded: EncodedRow[];
}

export async function* encodedBatches(
  policy: Policy,
  dataset: Dataset,
  options: BatchOptions & { signal: AbortSignal },
): AsyncGenerator<EncodedBatch, void, undefined> {
  const source = batches(dataset, options);
  const fetch = async (): Promise<EncodedBatch | undefined> => {
    const next = await source.next();
    if (next.done === true) return undefined;
    return { ...next.value, encoded: await policy.encode(next.value.rows, options.signal) };
  };
  let coming = fetch();
  try {
    for (;;) {
      const batch = await coming;
      if (batch === undefined) return;
      coming = fetch();
      // Its failure is thrown when the batch is asked for, which may be never.
      coming.catch(() => undefined);
      yield batch;
    }
  } finally {
    await coming.catch(() => undefined);
    await source.return();
  }
}
