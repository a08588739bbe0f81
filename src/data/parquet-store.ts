/**
 * Open Parquet data sets of one thread: their files, which rows are good, and the blocks read last. Blocks are kept up to a
 * bound and dropped when unused for longest; nothing else of a file stays in memory.
 */
import { createHash } from 'node:crypto';
import { basename } from 'node:path';
import { placeOf, type BadRow } from './bad-row.js';
import type { DataFormat } from './formats.js';
import { indexIn, windowBytes, type Locality } from './local-order.js';
import { MediaFolder } from './media-folder.js';
import { ParquetFile, type Block } from './parquet-file.js';
import type { PlainRecord } from './parquet-values.js';
import { readRecord, type CheckedRecord, type ReadOptions } from './read-record.js';
import { RecordLog, type Candidate, type LogOptions } from './record-log.js';

/** How a data set of one or more files is opened. Plain data: it travels to the thread. */
export interface ParquetOpenOptions extends LogOptions {
  paths: string[];
  imageFolder: string;
}

/** What opening finds out. Plain data: it travels back. */
export interface ParquetSummary {
  size: number;
  fingerprint: string;
  locality: Locality;
  numSkipped: number;
  skipped: BadRow[];
  formats: [DataFormat, number][];
  idHashes: Float64Array;
  columns: string[];
}

/** A good record with the pictures inside it; or the reason why it is good no more. */
export type ParquetRecord =
  { place: Omit<BadRow, 'reason'>; record: CheckedRecord; embedded: Uint8Array[] } | { bad: BadRow };

// Rows of a block whose pictures are looked at together; a damaged first row ends the check soon.
const checkedAtOnce = 256;

/** Room for the window being read and the first blocks of the next. */
const cacheBytes = windowBytes + (32 << 20);

interface StoredBlock extends Block {
  file: ParquetFile;
  /** Rows of the file that are left out, ascending. */
  bad: number[];
}

export class ParquetStore {
  /** Opens and checks files; the pictures inside are counted, not read, where the file's statistics allow. */
  static async open(
    options: ParquetOpenOptions,
    onSkip: (bad: BadRow) => void = () => {},
    signal?: AbortSignal,
  ): Promise<{ store: ParquetStore; summary: ParquetSummary }> {
    const files: ParquetFile[] = [];
    try {
      for (const path of options.paths) files.push(await ParquetFile.open(path));
      const media = new MediaFolder(options.imageFolder);
      const log = new RecordLog(options, media, onSkip);
      const hash = createHash('sha256');
      const blocks: StoredBlock[] = [];
      for (const file of files) {
        await file.addToHash(hash);
        for (const block of file.blocks) {
          signal?.throwIfAborted();
          blocks.push({ ...block, file, bad: await checkBlock(file, block, log, hash) });
        }
      }
      const { format, instruction } = options;
      hash.update(JSON.stringify([log.numSkipped, format ?? null, instruction ?? null])).update(log.mediaKey);
      const store = new ParquetStore(files, blocks, media, options);
      const summary = {
        size: store.#starts.at(-1)!,
        fingerprint: hash.digest('hex').slice(0, 32),
        locality: { rows: blocks.map(goodRows), bytes: blocks.map(({ bytes }) => bytes) },
        numSkipped: log.numSkipped,
        skipped: log.skipped,
        formats: [...log.formats],
        idHashes: Float64Array.from(log.idHashes),
        columns: [...new Set(files.flatMap(({ columns }) => columns))],
      };
      return { store, summary };
    } catch (cause) {
      for (const file of files) await file.close();
      throw cause;
    }
  }

  readonly #files: readonly ParquetFile[];
  readonly #blocks: readonly StoredBlock[];
  readonly #starts: readonly number[];
  readonly #media: MediaFolder;
  readonly #options: ReadOptions;
  /** By block, the one used last at the end. */
  readonly #kept = new Map<number, Promise<PlainRecord[]>>();
  #keptBytes = 0;

  private constructor(
    files: readonly ParquetFile[],
    blocks: readonly StoredBlock[],
    media: MediaFolder,
    options: ReadOptions,
  ) {
    this.#files = files;
    this.#blocks = blocks;
    this.#media = media;
    this.#options = options;
    const starts = [0];
    for (const block of blocks) starts.push(starts.at(-1)! + goodRows(block));
    this.#starts = starts;
  }

  /** The index-th good record. */
  async record(index: number): Promise<ParquetRecord> {
    const at = indexIn(this.#starts, index);
    const block = this.#blocks[at]!;
    const row = rowOf(block, index - this.#starts[at]!);
    const records = await this.#read(at);
    const { value, embedded } = records[row - block.start]!;
    const place = { file: block.file.path, line: row, unit: 'row' as const };
    const missing = embedded.findIndex(({ length }) => length === 0);
    const record =
      missing >= 0
        ? { reason: `the ${missing + 1}. picture has no bytes` }
        : readRecord(value, rowId(block.file, row), this.#media, this.#options, embedded.length);
    if ('reason' in record) return { bad: { ...place, reason: `${record.reason} (when read whole)` } };
    return { place, record, embedded };
  }

  async close(): Promise<void> {
    this.#kept.clear();
    for (const file of this.#files) await file.close();
  }

  async #read(at: number): Promise<PlainRecord[]> {
    const kept = this.#kept.get(at);
    if (kept !== undefined) {
      this.#kept.delete(at);
      this.#kept.set(at, kept);
      return kept;
    }
    const block = this.#blocks[at]!;
    const reading = block.file.read(block);
    this.#kept.set(at, reading);
    this.#keptBytes += block.bytes;
    for (const [oldest] of this.#kept) {
      if (this.#keptBytes <= cacheBytes || oldest === at) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= this.#blocks[oldest]!.bytes;
    }
    try {
      return await reading;
    } catch (cause) {
      if (this.#kept.delete(at)) this.#keptBytes -= block.bytes;
      throw cause;
    }
  }
}

async function checkBlock(
  file: ParquetFile,
  block: Block,
  log: RecordLog,
  hash: ReturnType<typeof createHash>,
): Promise<number[]> {
  const bad: number[] = [];
  const texts: string[] = [];
  const records = await file.read(block, true);
  for (let start = 0; start < records.length; start += checkedAtOnce) {
    const candidates = records.slice(start, start + checkedAtOnce).map(({ value, embedded }, offset): Candidate => {
      const row = block.start + start + offset;
      const place = { file: file.path, line: row, unit: 'row' as const };
      texts.push(JSON.stringify(value));
      return {
        parsed: { value },
        defaultId: rowId(file, row),
        place,
        inFile: placeOf(place),
        numEmbedded: embedded.length,
      };
    });
    const good = await log.add(candidates);
    bad.push(...candidates.filter((_, at) => !good[at]!).map(({ place }) => place.line));
  }
  hash.update(texts.join('\n'));
  return bad;
}

const goodRows = ({ start, end, bad }: StoredBlock): number => end - start - bad.length;

/** The offset-th good row of a block. */
function rowOf({ start, bad }: StoredBlock, offset: number): number {
  let row = start + offset;
  for (const left of bad) {
    if (left > row) break;
    row++;
  }
  return row;
}

const rowId = (file: ParquetFile, row: number): string => `${basename(file.path)}:${row}`;
