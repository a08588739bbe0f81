/**
 * Append-only JSONL logs. Appends go to the file in order; a process that dies leaves at most one torn last line, which
 * readers skip and the next writer cuts off. One writer a file.
 */
import { createReadStream, existsSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { GavelError } from '../errors.js';
import { AppendFile } from './append-file.js';
import { guarded } from './file-errors.js';

export class JsonLinesLog {
  readonly #file: AppendFile;

  private constructor(file: AppendFile) {
    this.#file = file;
  }

  /**
   * Opens for appending and cuts a torn last line off. `keepBytes` also cuts everything after that offset: a resumed run
   * forgets what came after its checkpoint.
   */
  static async open(path: string, keepBytes?: number): Promise<JsonLinesLog> {
    return new JsonLinesLog(await AppendFile.open(path, endOfLastLine, keepBytes));
  }

  get path(): string {
    return this.#file.path;
  }

  /** Bytes of every line appended so far, written or not. */
  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  /** Queues one line and returns its place. A failed write surfaces at the next `flush`, `sync` or `close`. */
  append(value: unknown): LinePlace {
    const line = Buffer.from(`${JSON.stringify(value)}\n`);
    return { offset: this.#file.append(line), length: line.length - 1 };
  }

  /** The value of one whole line by its place. */
  async read({ offset, length }: LinePlace): Promise<unknown> {
    return JSON.parse((await this.#file.read(offset, length)).toString('utf8'));
  }

  /** Resolves when every appended line is in the file. */
  flush(): Promise<void> {
    return this.#file.flush();
  }

  /** As `flush`, and the lines are on the disk. */
  sync(): Promise<void> {
    return this.#file.sync();
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** Offset after the last newline below `size`. */
async function endOfLastLine(handle: FileHandle, size: number): Promise<number> {
  const chunk = Buffer.alloc(64 * 1024);
  let end = size;
  while (end > 0) {
    const start = Math.max(0, end - chunk.length);
    const { bytesRead } = await handle.read(chunk, 0, end - start, start);
    const at = chunk.subarray(0, bytesRead).lastIndexOf(10);
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

/** Where a line stands in its file, its newline not counted. */
export interface LinePlace {
  offset: number;
  length: number;
}

export interface JsonLine extends LinePlace {
  value: unknown;
}

export interface ScanOptions {
  /** Offset of the first line. Default: 0. */
  from?: number;
  /** Gets each damaged line instead of the error; the scan goes on after it. */
  onDamage?: (error: GavelError) => void;
}

/**
 * The lines of a log in order with their places; a torn last line is skipped. Nothing when there is no file.
 * Errors: 'bad_data' naming the line when a line before the last is not JSON; 'io', 'permission_denied'.
 */
export async function* scanJsonLines(
  path: string,
  { from = 0, onDamage }: ScanOptions = {},
): AsyncGenerator<JsonLine, void, undefined> {
  if (!existsSync(path)) return;
  let rest: Buffer = Buffer.alloc(0);
  let offset = from;
  let line = 0;
  const chunks = (createReadStream(path, { start: from }) as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
  try {
    for (;;) {
      const chunk = await guarded('read', path, () => chunks.next());
      if (chunk.done === true) return;
      let buffer = rest.length === 0 ? chunk.value : Buffer.concat([rest, chunk.value]);
      for (let end = buffer.indexOf(10); end >= 0; end = buffer.indexOf(10)) {
        line++;
        if (end > 0) {
          const value = parseLine(path, from === 0 ? line : undefined, offset, buffer.subarray(0, end));
          if (!(value instanceof GavelError)) yield { value, offset, length: end };
          else if (onDamage === undefined) throw value;
          else onDamage(value);
        }
        buffer = buffer.subarray(end + 1);
        offset += end + 1;
      }
      rest = buffer;
    }
  } finally {
    // A reader that stops early must not leave the file open.
    await chunks.return?.();
  }
}

/** The values of a log in order; see `scanJsonLines`. */
export async function* readJsonLines(
  path: string,
  options: ScanOptions = {},
): AsyncGenerator<unknown, void, undefined> {
  for await (const { value } of scanJsonLines(path, options)) yield value;
}

/** The value, or what is wrong; lines are counted only where the scan began with the first. */
function parseLine(path: string, line: number | undefined, offset: number, text: Buffer): unknown {
  try {
    return JSON.parse(text.toString('utf8'));
  } catch (cause) {
    const where = line === undefined ? `at byte ${offset}` : `in line ${line}`;
    return new GavelError(
      'bad_data',
      `Expected JSON ${where} of \`${path}\` but received something else. Repair or remove that line.`,
      { fields: { path, ...(line === undefined ? { offset } : { line }) }, cause },
    );
  }
}
