/**
 * Rows and preference pairs of Parquet files, several shards as one data set. Files are decoded on a thread of their own, a
 * block of rows at a time; pictures inside the files come as bytes. Shuffling follows the blocks (local-order.ts).
 */
import { basename, dirname } from 'node:path';
import { GavelError } from '../errors.js';
import { badRow, type BadRow } from './bad-row.js';
import { checkIndex, checkNotEmpty, type Dataset } from './dataset.js';
import type { DataFormat } from './formats.js';
import type { JsonlOptions } from './jsonl.js';
import type { Locality } from './local-order.js';
import { MediaFolder } from './media-folder.js';
import { pairOf } from './pair-of.js';
import type { PairDataset, PairRow } from './pairs.js';
import type { ParquetOpenOptions, ParquetRecord, ParquetSummary } from './parquet-store.js';
import { ParquetThread } from './parquet-thread.js';
import type { Row } from './rows.js';

/** As of JSON Lines; `imageFolder` defaults to the folder of the first file. */
export type ParquetOptions = JsonlOptions;

interface Opened {
  paths: readonly string[];
  thread: ParquetThread;
  store: number;
  summary: ParquetSummary;
  media: MediaFolder;
}

/** Records of Parquet files, by index. Holds the files open until disposed. */
export class ParquetRecords {
  readonly name: string;
  readonly size: number;
  /** Covers every value but the bytes of pictures; of those their number, sizes and the first of every row group. */
  readonly fingerprint: string;
  readonly locality: Locality;
  /** How many rows were left out, and the first hundred of them. */
  readonly numSkipped: number;
  readonly skipped: readonly BadRow[];
  readonly formats: ReadonlyMap<DataFormat, number>;
  readonly idHashes: ArrayLike<number>;
  readonly #opened: Opened;
  #disposal: Promise<void> | undefined;

  protected constructor(opened: Opened) {
    const { paths, summary } = opened;
    this.name = paths.length === 1 ? basename(paths[0]!) : basename(dirname(paths[0]!));
    this.size = summary.size;
    this.fingerprint = summary.fingerprint;
    this.locality = summary.locality;
    this.numSkipped = summary.numSkipped;
    this.skipped = summary.skipped;
    this.formats = new Map(summary.formats);
    this.idHashes = summary.idHashes;
    this.#opened = opened;
  }

  protected async record(index: number): Promise<Exclude<ParquetRecord, { bad: unknown }>> {
    checkIndex(this.name, index, this.size);
    if (this.#disposal !== undefined) throw disposedError(this.name);
    const record = await this.#opened.thread.record(this.#opened.store, index);
    if ('bad' in record) throw badRow(record.bad, false);
    return record;
  }

  protected get media(): MediaFolder {
    return this.#opened.media;
  }

  /** Closes the files. Rows asked for afterwards throw. Idempotent. */
  dispose(): Promise<void> {
    this.#disposal ??= (async () => {
      const { thread, store } = this.#opened;
      await thread.close(store);
      await thread.release();
    })();
    return this.#disposal;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Rows of Parquet files. Open with `ParquetDataset.open`. */
export class ParquetDataset extends ParquetRecords implements Dataset {
  /**
   * Opens and checks files (shards of one data set, in this order). Errors: 'io', 'permission_denied'; 'bad_data' for what is
   * no Parquet file or a damaged one, and with file, row and reason for the first bad row (unless skipped); 'unsupported' for
   * row groups above 2 GiB.
   */
  static async open(paths: string | readonly string[], options: ParquetOptions = {}): Promise<ParquetDataset> {
    return new ParquetDataset(await openFiles(paths, options, 'row'));
  }

  async row(index: number): Promise<Row> {
    const found = await this.record(index);
    if (!('row' in found.record))
      throw badRow({ ...found.place, reason: 'a preference pair now (the file has changed)' }, false);
    return this.media.row(found.record.row, found.place, found.embedded);
  }
}

/** Preference pairs of Parquet files. Open with `ParquetPairs.open`; errors as those of `ParquetDataset`. */
export class ParquetPairs extends ParquetRecords implements PairDataset {
  static async open(paths: string | readonly string[], options: ParquetOptions = {}): Promise<ParquetPairs> {
    return new ParquetPairs(await openFiles(paths, options, 'pair'));
  }

  async pair(index: number): Promise<PairRow> {
    const found = await this.record(index);
    if (!('pair' in found.record))
      throw badRow({ ...found.place, reason: 'no preference pair now (the file has changed)' }, false);
    return pairOf(found.record.pair, this.media, found.place, found.embedded);
  }
}

function disposedError(name: string): GavelError {
  return new GavelError(
    'disposed',
    `Expected the open data set "${name}" but received a call after dispose(). Open it again.`,
  );
}

async function openFiles(
  paths: string | readonly string[],
  options: ParquetOptions,
  kind: 'row' | 'pair',
): Promise<Opened> {
  const list = typeof paths === 'string' ? [paths] : [...paths];
  checkNotEmpty('(no files)', list.length);
  const thread = ParquetThread.acquire();
  try {
    const { onSkip, signal } = options;
    const openOptions = parquetOpenOptions(list, options, kind);
    const { store, summary } = await thread.open(openOptions, onSkip, signal);
    if (summary.size === 0) await thread.close(store);
    checkNotEmpty(list.join(', '), summary.size);
    return { paths: list, thread, store, summary, media: new MediaFolder(openOptions.imageFolder) };
  } catch (cause) {
    await thread.release();
    throw cause;
  }
}

/** Options as the thread takes them. */
export function parquetOpenOptions(
  paths: string[],
  { onBadRow = 'fail', checkMedia = true, imageFolder, format, instruction }: ParquetOptions,
  kind: ParquetOpenOptions['kind'],
): ParquetOpenOptions {
  const folder = imageFolder ?? dirname(paths[0]!);
  const options: ParquetOpenOptions = { paths, kind, onBadRow, checkMedia, imageFolder: folder };
  if (format !== undefined) options.format = format;
  if (instruction !== undefined) options.instruction = instruction;
  return options;
}

/** Checks every row of Parquet files without opening them as a data set; for looking into files that may be bad as a whole. */
export async function checkParquet(paths: string[], options: ParquetOptions): Promise<ParquetSummary> {
  const thread = ParquetThread.acquire();
  try {
    const { store, summary } = await thread.open(
      parquetOpenOptions(paths, options, 'any'),
      options.onSkip,
      options.signal,
    );
    await thread.close(store);
    return summary;
  } finally {
    await thread.release();
  }
}
