/** The rows of one Parquet file from the first to the last, whatever they hold. Only parquet-worker.ts uses it. */
import { ParquetFile } from './parquet-file.js';
import type { PlainRecord } from './parquet-values.js';

export class ParquetRowReader {
  readonly #file: ParquetFile;
  #block = 0;
  /** What is left of the block in hand, its next row at the end. */
  #left: PlainRecord[] = [];

  private constructor(file: ParquetFile) {
    this.#file = file;
  }

  /** Errors: those of `ParquetFile.open`. */
  static async open(path: string): Promise<ParquetRowReader> {
    return new ParquetRowReader(await ParquetFile.open(path));
  }

  /** Undefined behind the last row. A block is forgotten row by row. */
  async next(): Promise<PlainRecord | undefined> {
    while (this.#left.length === 0) {
      const block = this.#file.blocks[this.#block++];
      if (block === undefined) return undefined;
      this.#left = (await this.#file.read(block)).reverse();
    }
    return this.#left.pop();
  }

  close(): Promise<void> {
    this.#left = [];
    return this.#file.close();
  }
}
