/**
 * Rows of a published benchmark file: JSON Lines, one JSON array, or an object with a list; Parquet through a reader that
 * the caller plugs in. A column is asked for by name and type, and its absence is told with file, row and columns.
 */
import { open, stat, type FileHandle } from 'node:fs/promises';
import { basename, dirname, extname, isAbsolute, relative, resolve, sep } from 'node:path';
import { fileError } from '../../data/checkpoint-files.js';
import { RowScanner } from '../../data/row-scanner.js';
import type { ImageSource, VideoSource } from '../../data/rows.js';
import { GavelError } from '../../errors.js';

/** Reads the rows of a Parquet file; columns of pictures hold `{ bytes, path }` as the hub writes them. */
export type ParquetReader = (path: string) => AsyncIterable<Record<string, unknown>>;

/** One row with its place, for messages. */
export class SourceRow {
  readonly values: Readonly<Record<string, unknown>>;
  /** File, for example "t2i.json". */
  readonly file: string;
  /** "file:row", counted from 1. */
  readonly place: string;
  readonly #folder: string;

  constructor(values: Readonly<Record<string, unknown>>, path: string, number: number) {
    this.values = values;
    this.file = basename(path);
    this.place = `${this.file}:${number}`;
    this.#folder = dirname(resolve(path));
  }

  has(column: string): boolean {
    return this.values[column] !== undefined && this.values[column] !== null;
  }

  text(column: string): string {
    const value = this.#column(column);
    if (typeof value === 'string') return value;
    throw this.wrong(column, 'a string', value);
  }

  /** A string, or a number or bigint as one. */
  id(column: string): string {
    const value = this.#column(column);
    if (typeof value === 'number' || typeof value === 'bigint') return String(value);
    if (typeof value === 'string' && value !== '') return value;
    throw this.wrong(column, 'an id', value);
  }

  list(column: string): readonly unknown[] {
    const value = this.#column(column);
    if (Array.isArray(value)) return value;
    // Integer columns of Parquet are typed arrays.
    if (value instanceof BigInt64Array || value instanceof Int32Array) return [...value];
    throw this.wrong(column, 'a list', value);
  }

  record(column: string): Readonly<Record<string, unknown>> {
    const value = this.#column(column);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    throw this.wrong(column, 'an object', value);
  }

  oneOf<T extends string>(column: string, values: readonly T[]): T {
    const value = this.text(column);
    const found = values.find((candidate) => candidate === value);
    if (found === undefined) throw this.wrong(column, `one of ${values.join(', ')}`, value);
    return found;
  }

  image(column: string): ImageSource {
    return this.imageOf(column, this.#column(column));
  }

  /** A path below the file's folder, a data: URI, or what the hub writes: `{ bytes, path }`. */
  imageOf(column: string, value: unknown): ImageSource {
    if (typeof value === 'string')
      return value.startsWith('data:') ? this.#dataUri(column, value) : { path: this.#path(column, value) };
    if (value instanceof Uint8Array) return { bytes: value };
    if (typeof value === 'object' && value !== null) {
      const { bytes, path } = value as { bytes?: unknown; path?: unknown };
      if (bytes instanceof Uint8Array) return { bytes };
      if (typeof bytes === 'string') return { bytes: new Uint8Array(Buffer.from(bytes, 'base64')) };
      if (Array.isArray(bytes)) return { bytes: Uint8Array.from(bytes as number[]) };
      if (typeof path === 'string') return { path: this.#path(column, path) };
    }
    throw this.wrong(column, 'a picture (a path, a data: URI, or an object with bytes)', value);
  }

  video(column: string): VideoSource {
    return { path: this.#path(column, this.text(column)) };
  }

  wrong(column: string, what: string, value: unknown): GavelError {
    const received = (JSON.stringify(value) ?? typeof value).slice(0, 80);
    return new GavelError(
      'bad_data',
      `Expected ${what} in column "${column}" at ${this.place} but received ${received}. The file is not of the published form.`,
      { fields: { place: this.place, column, received } },
    );
  }

  #column(column: string): unknown {
    const value = this.values[column];
    if (value !== undefined && value !== null) return value;
    const columns = Object.keys(this.values);
    throw new GavelError(
      'bad_data',
      `Expected a column "${column}" at ${this.place} but received only ${columns.slice(0, 30).join(', ') || 'no columns'}. ` +
        'The file is not of the published form, or of another benchmark (docs/evaluation.md).',
      { fields: { place: this.place, column, columns: columns.slice(0, 30).join() } },
    );
  }

  #path(column: string, path: string): string {
    const whole = resolve(this.#folder, path);
    const way = relative(this.#folder, whole);
    const leaves =
      isAbsolute(path) || way === '..' || way.startsWith(`..${sep}`) || /^[a-z][a-z0-9+.-]*:\/\//i.test(path);
    if (leaves) throw this.wrong(column, `a path below ${this.#folder} (download what is elsewhere)`, path);
    return whole;
  }

  #dataUri(column: string, uri: string): ImageSource {
    const match = /^data:image\/[a-z+.-]+;base64,/i.exec(uri);
    if (match === null) throw this.wrong(column, 'a base64 data: URI of an image', uri.slice(0, 60));
    return { bytes: new Uint8Array(Buffer.from(uri.slice(match[0].length), 'base64')) };
  }
}

/**
 * The rows of a file in order. `listKey` is where an object instead of an array keeps them. Errors: 'io' and its kin;
 * 'bad_data' for what is not JSON; 'unsupported' for Parquet without a reader and for other kinds of file.
 */
export async function* benchmarkRows(
  path: string,
  { parquet, listKey }: { parquet?: ParquetReader | undefined; listKey?: string | undefined } = {},
): AsyncGenerator<SourceRow, void, undefined> {
  const kind = extname(path).toLowerCase();
  let number = 0;
  if (kind === '.parquet') {
    if (parquet === undefined) throw unsupported(path, 'no reader of Parquet was given; export the rows as JSON Lines');
    for await (const values of parquet(path)) yield new SourceRow(values, path, ++number);
    return;
  }
  if (kind !== '.json' && kind !== '.jsonl') throw unsupported(path, 'a benchmark file is .json, .jsonl or .parquet');
  for await (const value of kind === '.json' && listKey !== undefined ? listIn(path, listKey) : valuesOf(path)) {
    number++;
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      throw new GavelError(
        'bad_data',
        `Expected a JSON object at ${basename(path)}:${number} but received something else. Correct the row.`,
        {
          fields: { file: path, row: number },
        },
      );
    }
    yield new SourceRow(value as Record<string, unknown>, path, number);
  }
}

/** JSON Lines or the elements of one array, read in pieces: such a file may hold its pictures. */
async function* valuesOf(path: string): AsyncGenerator<unknown, void, undefined> {
  await using file = await opened(path);
  const found: unknown[] = [];
  const scanner = new RowScanner((bytes, _offset, line) => found.push(parsed(path, bytes.toString('utf8'), line)));
  const buffer = Buffer.alloc(1 << 16);
  for (let position = 0; ;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length, position);
    if (bytesRead === 0) break;
    position += bytesRead;
    scanner.push(buffer.subarray(0, bytesRead));
    yield* found.splice(0);
  }
  const trouble = scanner.end();
  yield* found.splice(0);
  if (trouble !== undefined) throw notJson(path, trouble.line, trouble.reason);
}

async function* listIn(path: string, key: string): AsyncGenerator<unknown, void, undefined> {
  await using file = await opened(path);
  const text = await file.readFile('utf8');
  const value = parsed(path, text, 1);
  const list = Array.isArray(value) ? value : (value as Record<string, unknown> | null)?.[key];
  if (!Array.isArray(list)) {
    throw new GavelError(
      'bad_data',
      `Expected a list "${key}" in ${path} but received none. The file is not of the published form.`,
      {
        fields: { file: path, column: key },
      },
    );
  }
  yield* list as unknown[];
}

async function opened(path: string): Promise<FileHandle> {
  try {
    if ((await stat(path)).isDirectory()) throw unsupported(path, 'a file is wanted, not a folder');
    return await open(path, 'r');
  } catch (cause) {
    throw GavelError.is(cause) ? cause : fileError(cause, path, 'a benchmark file');
  }
}

function parsed(path: string, text: string, line: number): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (cause) {
    throw notJson(path, line, (cause as Error).message);
  }
}

function notJson(path: string, line: number, reason: string): GavelError {
  return new GavelError('bad_data', `Expected JSON at ${path}:${line} but received: ${reason}. Correct the file.`, {
    fields: { file: path, line, reason },
  });
}

function unsupported(path: string, reason: string): GavelError {
  return new GavelError('unsupported', `Expected a benchmark file that can be read but received ${path}: ${reason}.`, {
    fields: { path, reason },
  });
}
