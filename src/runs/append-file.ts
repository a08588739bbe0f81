/**
 * A file that only grows, written in the background: appends queue in order and go out together, so a caller never waits for
 * the disk. A failed write surfaces at the next `flush`, `sync` or `close`. One writer a file.
 */
import { open, truncate, type FileHandle } from 'node:fs/promises';
import { guarded } from './file-errors.js';

/** Where the last whole record at or before `size` ends. */
export type FindEnd = (handle: FileHandle, size: number) => Promise<number>;

export class AppendFile {
  readonly path: string;
  readonly #handle: FileHandle;
  #size: number;
  #waiting: Uint8Array[] = [];
  #writing: Promise<void> = Promise.resolve();
  #scheduled = false;

  private constructor(path: string, handle: FileHandle, size: number) {
    this.path = path;
    this.#handle = handle;
    this.#size = size;
  }

  /** Opens for appending and cuts off what `findEnd` leaves of the first `keepBytes` (default: all). */
  static async open(path: string, findEnd: FindEnd, keepBytes?: number): Promise<AppendFile> {
    return guarded('open', path, async () => {
      const handle = await open(path, 'a+');
      try {
        const { size } = await handle.stat();
        const whole = await findEnd(handle, Math.min(size, keepBytes ?? size));
        if (whole < size) await truncate(path, whole);
        return new AppendFile(path, handle, whole);
      } catch (error) {
        await handle.close();
        throw error;
      }
    });
  }

  /** Bytes of everything appended so far, written or not. */
  get sizeBytes(): number {
    return this.#size;
  }

  /** Queues bytes, which must not change afterwards; returns their offset. */
  append(bytes: Uint8Array): number {
    const offset = this.#size;
    this.#waiting.push(bytes);
    this.#size += bytes.length;
    if (!this.#scheduled) {
      this.#scheduled = true;
      this.#writing = this.#writing.then(() => this.#write());
      // The error is kept in #writing for whoever flushes next.
      this.#writing.catch(() => undefined);
    }
    return offset;
  }

  /** Bytes of the file, after everything appended before the call. */
  async read(offset: number, length: number): Promise<Buffer> {
    await this.flush();
    const buffer = Buffer.alloc(length);
    await guarded('read', this.path, () => this.#handle.read(buffer, 0, length, offset));
    return buffer;
  }

  /** Resolves when everything appended is in the file. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  /** As `flush`, and it is on the disk. */
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
    const bytes = Buffer.concat(this.#waiting);
    this.#waiting = [];
    await guarded('write', this.path, () => this.#handle.appendFile(bytes));
  }
}
