/**
 * One Parquet file, read in blocks of rows: its row groups, cut further where the file has a page index that makes parts
 * cheap. Decoding is hyparquet's and takes the thread it runs on; only parquet-worker.ts and tests use this file.
 */
import type { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { brotliDecompressSync, gunzipSync } from 'node:zlib';
import { parquetMetadata, parquetReadObjects, type AsyncBuffer, type Compressors, type FileMetaData } from 'hyparquet';
import { compressors as pureCompressors } from 'hyparquet-compressors';
import { GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';
import { withoutLeaves } from './parquet-schema.js';
import { featuresOf, plainRecord, type Feature, type PlainRecord } from './parquet-values.js';

/** Rows `start` to `end` of a file, and about how many bytes they take decoded. */
export interface Block {
  start: number;
  end: number;
  bytes: number;
}

/**
 * Blocks above this are cut in parts where a page index allows it. Smaller parts would not help: writers check the size of a
 * page every thousand values only, so pages of pictures hold tens of megabytes, and every part reads the dictionary anew.
 */
const blockBytes = 96 << 20;
/** A row group above this is refused: it must be decoded in one piece. */
const maxBlockBytes = 2 ** 31;
/** What is hashed of the head of every picture column, in every row group. */
const sampleBytes = 4096;

// Node's own zlib where it has the codec; the pure ones for the rest.
const compressors: Compressors = {
  ...pureCompressors,
  GZIP: (input, outputLength) => gunzipSync(input, { maxOutputLength: Math.max(1, outputLength) }),
  BROTLI: (input, outputLength) => brotliDecompressSync(input, { maxOutputLength: Math.max(1, outputLength) }),
};

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Bytes that are no text stay bytes: the importer then refuses that row, and no other. */
const parsers = {
  stringFromBytes: (bytes: Uint8Array | undefined): unknown => textOr(bytes, (text) => text),
  jsonFromBytes: (bytes: Uint8Array | undefined): unknown => textOr(bytes, (text) => JSON.parse(text) as unknown),
};

function textOr(bytes: Uint8Array | undefined, parse: (text: string) => unknown): unknown {
  if (bytes === undefined) return undefined;
  try {
    return parse(utf8.decode(bytes));
  } catch {
    return bytes;
  }
}

export class ParquetFile {
  readonly path: string;
  readonly numRows: number;
  readonly blocks: readonly Block[];
  readonly columns: readonly string[];
  readonly #handle: FileHandle;
  readonly #buffer: AsyncBuffer;
  readonly #metadata: FileMetaData;
  readonly #features: Readonly<Record<string, Feature>>;
  /** The same file without the bytes of its pictures, for passes that need their number only. */
  readonly #light: { metadata: FileMetaData; hidden: ReadonlySet<string> };
  readonly #footer: Buffer;

  private constructor(path: string, handle: FileHandle, buffer: AsyncBuffer, footer: Buffer, metadata: FileMetaData) {
    this.path = path;
    this.#handle = handle;
    this.#buffer = buffer;
    this.#footer = footer;
    this.#metadata = metadata;
    this.#features = featuresOf(metadata.key_value_metadata);
    this.numRows = Number(metadata.num_rows);
    this.blocks = blocksOf(path, metadata);
    this.#light = lightMetadata(metadata);
    this.columns = topLevelNames(metadata);
  }

  /** Reads the footer. Errors: 'io', 'permission_denied', 'bad_data' for what is no Parquet file or a damaged one. */
  static async open(path: string): Promise<ParquetFile> {
    let handle: FileHandle;
    try {
      handle = await open(path, 'r');
    } catch (cause) {
      throw fileError(cause, path, 'a Parquet file');
    }
    try {
      const { size } = await handle.stat();
      const buffer: AsyncBuffer = { byteLength: size, slice: (start, end) => slice(handle, size, start, end) };
      const footer = await readFooter(buffer);
      const metadata = parquetMetadata(new Uint8Array(footer), { geoparquet: false });
      checkRows(metadata);
      return new ParquetFile(path, handle, buffer, footer, metadata);
    } catch (cause) {
      await handle.close();
      throw damaged(path, cause);
    }
  }

  /** The records of a block. `light` leaves the bytes of pictures out where every picture has some. */
  async read({ start, end }: Block, light = false): Promise<PlainRecord[]> {
    const { metadata, hidden } = light ? this.#light : { metadata: this.#metadata, hidden: undefined };
    try {
      const rows = await parquetReadObjects({
        file: this.#buffer,
        metadata,
        rowStart: start,
        rowEnd: end,
        compressors,
        parsers,
        utf8: false,
        useOffsetIndex: true,
        geoparquet: false,
      });
      if (rows.length !== end - start) throw new Error(`${rows.length} rows where ${end - start} are announced`);
      return rows.map((row) => plainRecord(row, this.#features, hidden));
    } catch (cause) {
      throw damaged(this.path, cause);
    }
  }

  /** Adds to `hash` what the footer says, and the head of every picture column of every row group. */
  async addToHash(hash: ReturnType<typeof createHash>): Promise<void> {
    hash.update(`${this.#buffer.byteLength}\0`).update(this.#footer);
    for (const group of this.#metadata.row_groups) {
      for (const { meta_data: column } of group.columns) {
        if (column === undefined || column.path_in_schema.at(-1) !== 'bytes') continue;
        const start = Number(column.dictionary_page_offset ?? column.data_page_offset);
        const length = Math.min(sampleBytes, Number(column.total_compressed_size), this.#buffer.byteLength - start);
        if (length > 0) hash.update(new Uint8Array(await this.#buffer.slice(start, start + length)));
      }
    }
  }

  close(): Promise<void> {
    return this.#handle.close();
  }
}

/** The reader asks ahead for ranges it may never await: a failure of those must not end the thread. */
function slice(handle: FileHandle, size: number, start: number, end?: number): Promise<ArrayBuffer> {
  const reading = readSlice(handle, size, start, end);
  reading.catch(() => undefined);
  return reading;
}

async function readSlice(handle: FileHandle, size: number, start: number, end = size): Promise<ArrayBuffer> {
  if (!(start >= 0 && start <= end && end <= size)) throw new Error(`bytes ${start} to ${end} of ${size}`);
  const bytes = new Uint8Array(end - start);
  let at = 0;
  while (at < bytes.length) {
    const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at);
    if (bytesRead === 0) throw new Error('the file has become shorter');
    at += bytesRead;
  }
  return bytes.buffer;
}

const magic = 'PAR1';

async function readFooter(file: AsyncBuffer): Promise<Buffer> {
  const size = file.byteLength;
  if (size < 12) throw new Error(`a file of ${size} bytes`);
  const text = async (start: number, end: number): Promise<Buffer> => Buffer.from(await file.slice(start, end));
  const head = (await text(0, 4)).toString('latin1');
  if (head === 'PARE') throw new Error('an encrypted file');
  if (head !== magic) throw new Error('no "PAR1" at its start');
  const tail = await text(size - 8, size);
  if (tail.toString('latin1', 4) !== magic) throw new Error('no "PAR1" at its end: it is cut off');
  const length = tail.readUInt32LE(0);
  if (length > size - 12) throw new Error(`a footer of ${length} bytes in a file of ${size}`);
  return text(size - 8 - length, size);
}

function checkRows(metadata: FileMetaData): void {
  let total = 0;
  for (const { num_rows } of metadata.row_groups) {
    const rows = Number(num_rows);
    if (!(rows >= 0)) throw new Error(`a row group of ${rows} rows`);
    total += rows;
  }
  if (total !== Number(metadata.num_rows)) {
    throw new Error(`${Number(metadata.num_rows)} rows in all but ${total} in its row groups`);
  }
}

function topLevelNames({ schema }: FileMetaData): string[] {
  const names: string[] = [];
  let at = 1;
  const skip = (): void => {
    const children = schema[at++]?.num_children ?? 0;
    for (let child = 0; child < children && at < schema.length; child++) skip();
  };
  while (at < schema.length) {
    names.push(schema[at]!.name);
    skip();
  }
  return names;
}

function blocksOf(path: string, { row_groups }: FileMetaData): Block[] {
  const blocks: Block[] = [];
  let start = 0;
  for (const group of row_groups) {
    const rows = Number(group.num_rows);
    if (rows === 0) continue;
    const bytes = Math.max(0, Number(group.total_byte_size));
    const indexed = group.columns.every(({ offset_index_offset: offset }) => offset !== undefined);
    const parts = indexed ? Math.min(rows, Math.max(1, Math.ceil(bytes / blockBytes))) : 1;
    if (bytes / parts > maxBlockBytes) throw tooLarge(path, bytes);
    for (let part = 0; part < parts; part++) {
      const from = start + Math.floor((rows * part) / parts);
      blocks.push({ start: from, end: start + Math.floor((rows * (part + 1)) / parts), bytes: bytes / parts });
    }
    start += rows;
  }
  return blocks;
}

/** Pictures' bytes may be left out of a pass only where the statistics say that every picture has them. */
function lightMetadata(metadata: FileMetaData): { metadata: FileMetaData; hidden: Set<string> } {
  const candidates = new Map<string, boolean>();
  for (const group of metadata.row_groups) {
    for (const { meta_data: column } of group.columns) {
      if (column === undefined || column.path_in_schema.at(-1) !== 'bytes' || column.path_in_schema.length < 2)
        continue;
      const name = column.path_in_schema.join('\0');
      const whole = column.statistics?.null_count === 0n && Number(column.num_values) >= Number(group.num_rows);
      candidates.set(name, whole && (candidates.get(name) ?? true));
    }
  }
  const leaves = [...candidates].filter(([, whole]) => whole).map(([name]) => name.split('\0'));
  const pruned = withoutLeaves(metadata, leaves);
  return { metadata: pruned.metadata, hidden: new Set(pruned.removed.map(([column]) => column!)) };
}

function tooLarge(path: string, bytes: number): GavelError {
  const gib = (bytes / 2 ** 30).toFixed(1);
  return new GavelError(
    'unsupported',
    `Expected row groups of at most 2 GiB in "${path}" but received one of ${gib} GiB without a page index. ` +
      'Write it again with smaller row groups.',
    { fields: { path, bytes } },
  );
}

function damaged(path: string, cause: unknown): GavelError {
  if (GavelError.is(cause)) return cause;
  if ((cause as NodeJS.ErrnoException).syscall !== undefined) return fileError(cause, path, 'a Parquet file');
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new GavelError(
    'bad_data',
    `Expected a Parquet file at "${path}" but received: ${reason}. Replace it, or give it the extension of what it is.`,
    { fields: { path, reason }, cause },
  );
}
