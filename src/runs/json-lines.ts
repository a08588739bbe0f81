/**
 * Append-only JSONL logs. Appends go to the file in order; a process that dies leaves at most one torn last line, which
 * readers skip and the next writer cuts off. One writer a file.
 */
import { createReadStream, existsSync } from 'node:fs';
import { open, truncate, type FileHandle } from 'node:fs/promises';
import { GavelError } from '../errors.js';
import { guarded } from './file-errors.js';

export class JsonLinesLog {
  readonly path: string;
  readonly #handle: FileHandle;
  #size: number;
  #waiting: string[] = [];
  #writing: Promise<void> = Promise.resolve();
  #scheduled = false;

  private constructor(path: string, handle: FileHandle, size: number) {
    this.path = path;
    this.#handle = handle;
    this.#size = size;
  }

  /**
   * Opens for appending and cuts a torn last line off. `keepBytes` also cuts everything after that offset: a resumed run
   * forgets what came after its checkpoint.
   */
  static async open(path: string, keepBytes?: number): Promise<JsonLinesLog> {
    return guarded('open', path, async () => {
      const handle = await open(path, 'a+');
      try {
        const { size } = await handle.stat();
        const whole = await endOfLastLine(handle, Math.min(size, keepBytes ?? size));
        if (whole < size) await truncate(path, whole);
        return new JsonLinesLog(path, handle, whole);
      } catch (error) {
        await handle.close();
        throw error;
      }
    });
  }

  /** Bytes of every line appended so far, written or not. */
  get sizeBytes(): number {
    return this.#size;
  }

  /** Queues one line and returns its place. A failed write surfaces at the next `flush`, `sync` or `close`. */
  append(value: unknown): Pick<JsonLine, 'offset' | 'length'> {
    const line = `${JSON.stringify(value)}\n`;
    const place = { offset: this.#size, length: Buffer.byteLength(line) - 1 };
    this.#waiting.push(line);
    this.#size += place.length + 1;
    if (!this.#scheduled) {
      this.#scheduled = true;
      this.#writing = this.#writing.then(() => this.#write());
      // The error is kept in #writing for whoever flushes next.
      this.#writing.catch(() => undefined);
    }
    return place;
  }

  /** The value of one whole line by its place. */
  async read(place: Pick<JsonLine, 'offset' | 'length'>): Promise<unknown> {
    await this.flush();
    const buffer = Buffer.alloc(place.length);
    await guarded('read', this.path, () => this.#handle.read(buffer, 0, place.length, place.offset));
    return JSON.parse(buffer.toString('utf8'));
  }

  /** Resolves when every appended line is in the file. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  /** As `flush`, and the lines are on the disk. */
  async sync(): Promise<void> {
    await this.#writing;
    await guarded('write', this.path, () => this.#handle.sync());
  }

  async close(): Promise<void> {
    try {
      await this.#writing;
    } finally {
      await this.#handle.close();
    }
  }

  async #write(): Promise<void> {
    this.#scheduled = false;
    const text = this.#waiting.join('');
    this.#waiting = [];
    await guarded('write', this.path, () => this.#handle.appendFile(text));
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

export interface JsonLine {
  value: unknown;
  /** Where the line stands in the file, its newline not counted. */
  offset: number;
  length: number;
}

/**
 * The lines of a log in order with their places; a torn last line is skipped. Nothing when there is no file.
 * Errors: 'bad_data' naming the line when a line before the last is not JSON.
 */
export async function* scanJsonLines(path: string): AsyncGenerator<JsonLine, void, undefined> {
  if (!existsSync(path)) return;
  let rest: Buffer = Buffer.alloc(0);
  let offset = 0;
  let line = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    let buffer = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    for (let end = buffer.indexOf(10); end >= 0; end = buffer.indexOf(10)) {
      line++;
      if (end > 0) yield { value: parseLine(path, line, buffer.subarray(0, end)), offset, length: end };
      buffer = buffer.subarray(end + 1);
      offset += end + 1;
    }
    rest = buffer;
  }
}

/** The values of a log in order; see `scanJsonLines`. */
export async function* readJsonLines(path: string): AsyncGenerator<unknown, void, undefined> {
  for await (const { value } of scanJsonLines(path)) yield value;
}

function parseLine(path: string, line: number, text: Buffer): unknown {
  try {
    return JSON.parse(text.toString('utf8'));
  } catch (cause) {
    throw new GavelError(
      'bad_data',
      `Expected JSON in line ${line} of \`${path}\` but received something else. Repair or remove that line.`,
      { fields: { path, line }, cause },
    );
  }
}
