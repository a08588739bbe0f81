/**
 * A data set file, streamed: one pass finds the byte range of every row (JSON Lines, or the elements of one JSON array or
 * object), checks it and hashes the file; afterwards a row is one positioned read. Memory: a few numbers a row.
 */
import { createHash } from 'node:crypto';
import { open, type FileHandle } from 'node:fs/promises';
import { basename, dirname } from 'node:path';
import { GavelError } from '../errors.js';
import { badRow, type BadRow } from './bad-row.js';
import { fileError } from './checkpoint-files.js';
import { checkIndex, checkNotEmpty, type Dataset } from './dataset.js';
import type { DataFormat } from './formats.js';
import { MediaFolder } from './media-folder.js';
import { pairOf } from './pair-of.js';
import type { PairDataset, PairRow } from './pairs.js';
import { readRecord, type CheckedRecord, type ReadOptions } from './read-record.js';
import { RecordLog, type Candidate } from './record-log.js';
import { RowScanner } from './row-scanner.js';
import type { Row } from './rows.js';

export type { BadRow } from './bad-row.js';

export interface JsonlOptions {
  /** 'fail' (default) throws at the first bad row; 'skip' leaves it out and reports it. */
  onBadRow?: 'fail' | 'skip';
  /** True (default): pictures and videos that are not there, and pictures whose header does not decode, make a row bad. */
  checkMedia?: boolean;
  /** Called for every row left out. */
  onSkip?: (bad: BadRow) => void;
  /** The folder that relative paths of images and videos start from and may not leave. Default: the file's own. */
  imageFolder?: string;
  /** The form of every row (docs/data.md). Default: the fields of each row decide. */
  format?: DataFormat;
  /** Text put below every prompt: how to answer, for sets whose questions do not say it. */
  instruction?: string;
  /** @internal False where the caller cannot set `onBadRow`: messages then do not name it. */
  canSkip?: boolean;
  signal?: AbortSignal;
}

// Small reads keep the loop free: parsing and checking one takes a few milliseconds.
const readBytes = 1 << 16;

/** Records of one file, by index. Holds a file handle until disposed. */
export class JsonlRecords {
  readonly name: string;
  readonly fingerprint: string;
  /** How many rows were left out, and the first hundred of them. */
  readonly numSkipped: number;
  readonly skipped: readonly BadRow[];
  /** How many rows have each form. */
  readonly formats: ReadonlyMap<DataFormat, number>;
  /** One number for each row's id, to see whether files have ids in common. */
  readonly idHashes: ArrayLike<number>;
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #scan: Scan;

  protected constructor({ path, file, scan }: Opened) {
    this.name = basename(path);
    this.#path = path;
    this.#file = file;
    this.#scan = scan;
    this.fingerprint = scan.fingerprint;
    this.numSkipped = scan.log.numSkipped;
    this.skipped = scan.log.skipped;
    this.formats = scan.log.formats;
    this.idHashes = Float64Array.from(scan.log.idHashes);
  }

  get size(): number {
    return this.#scan.offsets.length;
  }

  /** The record of an index, and where it stands. Throws 'bad_data' where the file has changed. */
  protected async record(index: number): Promise<{ record: CheckedRecord; place: Omit<BadRow, 'reason'> }> {
    checkIndex(this.name, index, this.size);
    const { offsets, lengths, lines, nth, keyed, media, options } = this.#scan;
    const line = lines[index]!;
    const place = { file: this.#path, line, unit: 'line' as const };
    const bytes = Buffer.alloc(lengths[index]!);
    const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, offsets[index]);
    const parsed = bytesRead === bytes.length ? parseRow(bytes, keyed) : { reason: 'the file has become shorter' };
    const record =
      'reason' in parsed ? parsed : readRecord(parsed.value, rowId(this.#path, line, nth[index]!), media, options);
    if ('reason' in record) throw badRow({ ...place, reason: `${record.reason} (the file has changed)` }, false);
    return { record, place };
  }

  protected get media(): MediaFolder {
    return this.#scan.media;
  }

  /** Closes the file. Rows asked for afterwards throw. Idempotent. */
  async dispose(): Promise<void> {
    await this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }
}

/** Rows of one file. Open with `JsonlDataset.open`. */
export class JsonlDataset extends JsonlRecords implements Dataset {
  /**
   * Opens and checks a file. Errors: 'io', 'permission_denied'; 'bad_data' with file, line and reason for the first bad row
   * (unless skipped), for an empty data set, for two rows of one id, for preference pairs, and for an ambiguous form.
   */
  static async open(path: string, options: JsonlOptions = {}): Promise<JsonlDataset> {
    return new JsonlDataset(await openFile(path, options, 'row'));
  }

  async row(index: number): Promise<Row> {
    const { record, place } = await this.record(index);
    if (!('row' in record)) throw badRow({ ...place, reason: 'a preference pair now (the file has changed)' }, false);
    return this.media.row(record.row, place);
  }
}

/** Preference pairs of one file. Open with `JsonlPairs.open`; errors as those of `JsonlDataset`. */
export class JsonlPairs extends JsonlRecords implements PairDataset {
  static async open(path: string, options: JsonlOptions = {}): Promise<JsonlPairs> {
    return new JsonlPairs(await openFile(path, options, 'pair'));
  }

  async pair(index: number): Promise<PairRow> {
    const { record, place } = await this.record(index);
    if (!('pair' in record)) throw badRow({ ...place, reason: 'no preference pair now (the file has changed)' }, false);
    return pairOf(record.pair, this.media, place);
  }
}

interface Opened {
  path: string;
  file: FileHandle;
  scan: Scan;
}

async function openFile(path: string, options: JsonlOptions, kind: 'row' | 'pair'): Promise<Opened> {
  const file = await openForReading(path);
  try {
    const scan = await scanFile(file, path, options, kind);
    checkNotEmpty(path, scan.offsets.length);
    return { path, file, scan };
  } catch (cause) {
    await file.close();
    if (GavelError.is(cause) || options.signal?.aborted) throw cause;
    throw fileError(cause, path, 'a data set');
  }
}

async function openForReading(path: string): Promise<FileHandle> {
  try {
    return await open(path, 'r');
  } catch (cause) {
    throw fileError(cause, path, 'a data set');
  }
}

/** What a pass over a file finds; `first` is the first good record. */
interface Scan {
  offsets: number[];
  lengths: number[];
  lines: number[];
  /** Which row of its line it is, from 1: an array may stand on one line. */
  nth: number[];
  fingerprint: string;
  keyed: boolean;
  log: RecordLog;
  media: MediaFolder;
  options: ReadOptions;
}

/** Checks every row of a file without opening it as a data set; for looking into files that may be bad as a whole. */
export async function checkJsonl(path: string, options: JsonlOptions): Promise<Pick<Scan, 'log' | 'fingerprint'>> {
  await using file = await openForReading(path);
  try {
    return await scanFile(file, path, options, 'any');
  } catch (cause) {
    if (GavelError.is(cause) || options.signal?.aborted) throw cause;
    throw fileError(cause, path, 'a data set');
  }
}

async function scanFile(
  file: FileHandle,
  path: string,
  {
    onBadRow = 'fail',
    checkMedia = true,
    onSkip,
    imageFolder,
    format,
    instruction,
    canSkip = true,
    signal,
  }: JsonlOptions,
  kind: ReadOptions['kind'],
): Promise<Scan> {
  const hash = createHash('sha256');
  const media = new MediaFolder(imageFolder ?? dirname(path));
  const reading: ReadOptions = { kind };
  if (format !== undefined) reading.format = format;
  if (instruction !== undefined) reading.instruction = instruction;
  const log = new RecordLog({ ...reading, onBadRow, checkMedia, canSkip }, media, onSkip);
  const buffer = Buffer.alloc(readBytes);
  const head = await file.read(buffer, 0, readBytes, 0);
  const keyed = isKeyed(buffer.toString('latin1', 0, Math.min(head.bytesRead, 4096)), format);
  const scan: Scan = {
    offsets: [],
    lengths: [],
    lines: [],
    nth: [],
    fingerprint: '',
    keyed,
    log,
    media,
    options: reading,
  };
  let before = { line: 0, nth: 0 };
  const found: (Candidate & { offset: number; length: number; nth: number })[] = [];
  const scanner = new RowScanner((bytes, offset, line) => {
    const nth = before.line === line ? before.nth + 1 : 1;
    before = { line, nth };
    found.push({
      parsed: parseRow(bytes, keyed),
      defaultId: rowId(path, line, nth),
      place: { file: path, line, unit: 'line' as const },
      inFile: `line ${line}`,
      offset,
      length: bytes.length,
      nth,
    });
  }, keyed);
  const addFound = async (): Promise<void> => {
    const candidates = found.splice(0);
    const good = await log.add(candidates);
    for (const [at, { offset, length, place, nth }] of candidates.entries()) {
      if (!good[at]!) continue;
      scan.offsets.push(offset);
      scan.lengths.push(length);
      scan.lines.push(place.line);
      scan.nth.push(nth);
    }
  };
  for (let position = 0; ;) {
    signal?.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, readBytes, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    const part = buffer.subarray(0, bytesRead);
    hash.update(part);
    scanner.push(part);
    await addFound();
  }
  const trouble = scanner.end();
  await addFound();
  if (trouble !== undefined) throw badRow({ file: path, unit: 'line', ...trouble }, canSkip);
  hash.update(`\0skipped ${log.numSkipped}${log.mediaKey}`);
  // Of a file alone the bytes say everything; what changes its rows otherwise is added only where it is used.
  if (format !== undefined || instruction !== undefined)
    hash.update(JSON.stringify([format ?? null, instruction ?? null]));
  scan.fingerprint = hash.digest('hex').slice(0, 32);
  return scan;
}

/**
 * TabMWP's files are one object keyed by problem numbers. No row of any form has a number as a key, so the numbers show it; a
 * file that is named so may have other keys.
 */
function isKeyed(head: string, format: DataFormat | undefined): boolean {
  const key = format === 'tabmwp' ? '[^"\\\\]*' : '\\d+';
  return new RegExp(`^(\\u00ef\\u00bb\\u00bf)?\\s*\\{\\s*"${key}"\\s*:\\s*\\{`).test(head);
}

/** The JSON value of the bytes of a row. */
export function parseRow(bytes: Buffer, keyed: boolean): { value: unknown } | { reason: string } {
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
    if (!keyed) return { value: JSON.parse(text) as unknown };
    const [[id, value] = []] = Object.entries(JSON.parse(`{${text}}`) as Record<string, unknown>);
    const isRecord = typeof value === 'object' && value !== null && !Array.isArray(value);
    return { value: isRecord ? { id, ...value } : value };
  } catch (cause) {
    return { reason: `not UTF-8 JSON: ${(cause as Error).message}` };
  }
}

function rowId(file: string, line: number, nth: number): string {
  return `${basename(file)}:${line}${nth === 1 ? '' : `#${nth}`}`;
}
