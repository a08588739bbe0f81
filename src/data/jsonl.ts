/**
 * A data set file, streamed: one pass finds the byte range of every row (JSON Lines, or the elements of one JSON array),
 * checks it and hashes the file; afterwards a row is one positioned read. Memory: two numbers and a line number per row.
 */
import { createHash } from 'node:crypto';
import { open, realpath, type FileHandle } from 'node:fs/promises';
import { basename, dirname, isAbsolute, relative, resolve, sep } from 'node:path';
import { GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';
import { checkIndex, checkNotEmpty, type Dataset } from './dataset.js';
import { importRow, type ImportedRow, type ImportResult, type RowRefusal } from './import-rows.js';
import { RowScanner } from './row-scanner.js';
import type { FileVideo, ImageSource, Row, VideoSource } from './rows.js';

export interface JsonlOptions {
  /** 'fail' (default) throws at the first bad row; 'skip' leaves it out and reports it. */
  onBadRow?: 'fail' | 'skip';
  /** Called for every row left out. */
  onSkip?: (bad: BadRow) => void;
  /** The folder that relative paths of images and videos start from and may not leave. Default: the file's own. */
  imageFolder?: string;
  /** @internal False where the caller cannot set `onBadRow`: messages then do not name it. */
  canSkip?: boolean;
  signal?: AbortSignal;
}

/** A row that could not be used. `line` counts from 1. */
export interface BadRow {
  file: string;
  line: number;
  reason: string;
}

// Small reads keep the loop free: parsing and checking one takes a few milliseconds.
const readBytes = 1 << 16;

/** Rows of one file. Open with `JsonlDataset.open`; holds a file handle until disposed. */
export class JsonlDataset implements Dataset {
  readonly name: string;
  readonly fingerprint: string;
  /** How many rows were left out, and the first hundred of them. */
  readonly numSkipped: number;
  readonly skipped: readonly BadRow[];
  readonly #path: string;
  readonly #file: FileHandle;
  readonly #imageFolder: string;
  readonly #index: { offsets: number[]; lengths: number[]; lines: number[] };

  private constructor(path: string, file: FileHandle, imageFolder: string, scan: Scan) {
    this.name = basename(path);
    this.#path = path;
    this.#file = file;
    this.#imageFolder = imageFolder;
    this.#index = scan;
    this.fingerprint = scan.fingerprint;
    this.numSkipped = scan.numSkipped;
    this.skipped = scan.skipped;
  }

  /**
   * Opens and checks a file. Errors: 'io', 'permission_denied'; 'bad_data' with file, line and reason for the first bad row
   * (unless skipped), for an empty data set, and for two rows of one id.
   */
  static async open(path: string, options: JsonlOptions = {}): Promise<JsonlDataset> {
    let file: FileHandle;
    try {
      file = await open(path, 'r');
    } catch (cause) {
      throw fileError(cause, path, 'a data set');
    }
    try {
      const scan = await scanFile(file, path, options);
      checkNotEmpty(path, scan.offsets.length);
      return new JsonlDataset(path, file, resolve(options.imageFolder ?? dirname(path)), scan);
    } catch (cause) {
      await file.close();
      if (GavelError.is(cause) || options.signal?.aborted) throw cause;
      throw fileError(cause, path, 'a data set');
    }
  }

  get size(): number {
    return this.#index.offsets.length;
  }

  async row(index: number): Promise<Row> {
    checkIndex(this.name, index, this.size);
    const line = this.#index.lines[index]!;
    const bytes = Buffer.alloc(this.#index.lengths[index]!);
    const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, this.#index.offsets[index]);
    const parsed = bytesRead === bytes.length ? parseRow(bytes) : { reason: 'the file has become shorter' };
    if ('reason' in parsed) throw badRow({ file: this.#path, line, reason: `${parsed.reason} (the file has changed)` });
    const { images, videos, id = rowId(this.#path, line), prompt, completion, solution, meta } = parsed.row;
    const row: Row = { id, prompt, images: await Promise.all(images.map((image) => this.#resolveImage(image, line))) };
    if (videos !== undefined) row.videos = await Promise.all(videos.map((video) => this.#resolveVideo(video, line)));
    if (completion !== undefined) row.completion = completion;
    if (solution !== undefined) row.solution = solution;
    if (meta !== undefined) row.meta = meta;
    return row;
  }

  /** Closes the file. Rows asked for afterwards throw. Idempotent. */
  async dispose(): Promise<void> {
    await this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  async #resolveImage(image: string, line: number): Promise<ImageSource> {
    if (image.startsWith('data:')) return { bytes: decodeDataUri(image) };
    return { path: await this.#resolvePath(image, line) };
  }

  async #resolveVideo(video: FileVideo, line: number): Promise<VideoSource> {
    if (typeof video === 'string') return { path: await this.#resolvePath(video, line) };
    if ('path' in video) return { path: await this.#resolvePath(video.path, line) };
    const rate = video.fps === undefined ? {} : { fps: video.fps };
    if ('folder' in video) return { folder: await this.#resolvePath(video.folder, line), ...rate };
    return { frames: await Promise.all(video.frames.map((frame) => this.#resolveImage(frame, line))), ...rate };
  }

  async #resolvePath(name: string, line: number): Promise<string> {
    const path = resolve(this.#imageFolder, name);
    // A link may lead out of the folder where the text of the path does not. A missing file is the decoder's to report.
    const [real, root] = await Promise.all([realpath(path).catch(() => path), realpath(this.#imageFolder)]);
    if (real !== path && leaves(root, real)) {
      throw badRow({ file: this.#path, line, reason: `"${name}" is a link out of ${this.#imageFolder}` });
    }
    return path;
  }
}

interface Scan {
  offsets: number[];
  lengths: number[];
  lines: number[];
  fingerprint: string;
  numSkipped: number;
  skipped: BadRow[];
}

async function scanFile(file: FileHandle, path: string, options: JsonlOptions): Promise<Scan> {
  const hash = createHash('sha256');
  const scan: Scan = { offsets: [], lengths: [], lines: [], fingerprint: '', numSkipped: 0, skipped: [] };
  const folder = resolve(options.imageFolder ?? dirname(path));
  const ids = new Map<string, number>();
  const scanner = new RowScanner((bytes, offset, line) => {
    const refusal = checkRow(bytes, line, path, folder, ids);
    if (refusal === undefined) {
      scan.offsets.push(offset);
      scan.lengths.push(bytes.length);
      scan.lines.push(line);
      return;
    }
    const bad = { file: path, line, reason: refusal.reason };
    if (options.onBadRow !== 'skip') throw badRow(bad, { ...options, code: refusal.code });
    scan.numSkipped++;
    if (scan.skipped.length < 100) scan.skipped.push(bad);
    options.onSkip?.(bad);
  });
  const buffer = Buffer.alloc(readBytes);
  for (let position = 0; ;) {
    options.signal?.throwIfAborted();
    const { bytesRead } = await file.read(buffer, 0, readBytes, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    const part = buffer.subarray(0, bytesRead);
    hash.update(part);
    scanner.push(part);
  }
  const trouble = scanner.end();
  if (trouble !== undefined) throw badRow({ file: path, ...trouble }, options);
  scan.fingerprint = hash.update(`\0skipped ${scan.numSkipped}`).digest('hex').slice(0, 32);
  return scan;
}

function checkRow(
  bytes: Buffer,
  line: number,
  file: string,
  folder: string,
  ids: Map<string, number>,
): RowRefusal | undefined {
  const parsed = parseRow(bytes);
  if ('reason' in parsed) return parsed;
  const reason = checkPaths(parsed.row, folder);
  if (reason !== undefined) return { reason };
  const id = parsed.row.id ?? rowId(file, line);
  const earlier = ids.get(id);
  if (earlier !== undefined) return { reason: `id "${id}" already stands in line ${earlier}` };
  ids.set(id, line);
  return undefined;
}

function parseRow(bytes: Buffer): ImportResult {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    return { reason: `not UTF-8 JSON: ${(cause as Error).message}` };
  }
  return importRow(value);
}

function checkPaths({ images, videos = [] }: ImportedRow, folder: string): string | undefined {
  for (const image of images) {
    const reason = checkImage(image, folder);
    if (reason !== undefined) return reason;
  }
  for (const video of videos) {
    const frames = typeof video !== 'string' && 'frames' in video ? video.frames : [];
    const path =
      typeof video === 'string' ? video : 'path' in video ? video.path : 'folder' in video ? video.folder : '';
    const reasons =
      frames.length > 0 ? frames.map((frame) => checkImage(frame, folder)) : [checkPath('video', path, folder)];
    const reason = reasons.find((found) => found !== undefined);
    if (reason !== undefined) return reason;
  }
  return undefined;
}

function checkImage(image: string, folder: string): string | undefined {
  if (!image.startsWith('data:')) return checkPath('image', image, folder);
  return /^data:image\/[a-z+.-]+;base64,[A-Za-z0-9+/]+=*$/i.test(image)
    ? undefined
    : 'image: not a base64 data: URI of an image';
}

function checkPath(kind: string, path: string, folder: string): string | undefined {
  if (/^([a-z][a-z0-9+.-]*:\/\/|data:)/i.test(path))
    return `${kind} "${path.slice(0, 200)}" is not a local file: download it first`;
  if (isAbsolute(path) || leaves(folder, resolve(folder, path))) return `${kind} "${path}" is outside of ${folder}`;
  return undefined;
}

function leaves(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way);
}

function decodeDataUri(uri: string): Uint8Array {
  return new Uint8Array(Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64'));
}

function rowId(file: string, line: number): string {
  return `${basename(file)}:${line}`;
}

function badRow(
  { file, line, reason }: BadRow,
  options: { code?: RowRefusal['code']; canSkip?: boolean } = {},
): GavelError {
  const { code = 'bad_data', canSkip = true } = options;
  const advice = canSkip ? 'Correct the row, or set `onBadRow` to "skip".' : 'Correct the row, or leave it out.';
  return new GavelError(code, `Expected a valid row at ${file}:${line} but received: ${reason}. ${advice}`, {
    fields: { file, line, reason },
  });
}
