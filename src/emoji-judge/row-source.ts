/**
 * Rows made by index while training asks for them. A thread of its own composes them, and they are kept: composing a pair
 * costs as much as training on it, and stages pass over their items many times.
 */
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import type { EmojiBank } from './bank.js';
import { Composer } from './composer.js';
import type { RowRequest } from './row-maker.js';

export class RowSource implements AsyncDisposable {
  readonly bank: EmojiBank;
  readonly seed: number;
  readonly #composer: Composer;

  constructor(bank: EmojiBank, seed: number) {
    this.bank = bank;
    this.seed = seed;
    this.#composer = new Composer(bank, seed);
  }

  /** Ends the composing thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#composer[Symbol.asyncDispose]();
  }

  /** The rows of one request; they are not kept. */
  compose(request: RowRequest): Promise<Row[]> {
    return this.#composer.compose(request);
  }

  /** Composes on the first call for an index; the promise itself is kept, so that nothing is composed twice. */
  kept(requestOf: (index: number) => RowRequest): (index: number) => Promise<Row[]> {
    const made = new Map<number, Promise<Row[]>>();
    return (index) => {
      const known = made.get(index);
      if (known !== undefined) return known;
      const rows = this.#composer.compose(requestOf(index));
      made.set(index, rows);
      return rows;
    };
  }

  /** A data set of the first row of each request. */
  dataset(name: string, size: number, requestOf: (index: number) => RowRequest): Dataset {
    const rows = this.kept(requestOf);
    const make = async (index: number): Promise<Row> => (await rows(index))[0]!;
    return generatedDataset({ name, size, key: `emoji-judge 1 ${this.seed}`, make });
  }
}
