/**
 * Prompts one after the other through the epochs, any number at a time, encoded a batch ahead. The order depends on seed and
 * data set alone, not on how many are taken at once; each prompt carries the cursor that resumes after it.
 */
import type { Dataset } from '../data/dataset.js';
import type { EncodedRow } from '../data/processor.js';
import type { Row } from '../data/rows.js';
import type { Cursor } from '../data/shuffle.js';
import { encodedBatches, type EncodedBatch } from './encoded-batches.js';
import type { Policy } from './policy.js';

export interface Prompt {
  row: Row;
  encoded: EncodedRow;
  /** Of the prompt: its epoch, and the position after it. */
  cursor: Cursor;
}

export interface PromptStreamOptions {
  /** Prompts encoded at once. */
  batchSize: number;
  seed: number;
  cursor?: Cursor | undefined;
  signal: AbortSignal;
}

export class PromptStream {
  readonly #source: AsyncGenerator<EncodedBatch, void, undefined>;
  readonly #ready: Prompt[] = [];

  constructor(policy: Policy, data: Dataset, { batchSize, seed, cursor, signal }: PromptStreamOptions) {
    this.#source = encodedBatches(policy, data, {
      batchSize: Math.min(batchSize, data.size),
      seed,
      signal,
      ...(cursor === undefined ? {} : { cursor }),
    });
  }

  /** The next `count` prompts; at the end of an epoch the next one begins, so a small data set gives a prompt again. */
  async take(count: number): Promise<Prompt[]> {
    while (this.#ready.length < count) {
      const { value, done } = await this.#source.next();
      if (done === true) break;
      const { rows, encoded, cursor } = value;
      const before = cursor.position - rows.length;
      for (const [i, row] of rows.entries()) {
        this.#ready.push({ row, encoded: encoded[i]!, cursor: { ...cursor, position: before + i + 1 } });
      }
    }
    return this.#ready.splice(0, count);
  }

  /** Ends the encoding ahead. */
  async close(): Promise<void> {
    await this.#source.return();
  }
}
