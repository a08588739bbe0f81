/**
 * Finds rows in a stream of bytes: lines of JSON Lines, the elements of a file that is one JSON array, or the members of one
 * JSON object. Works on bytes, so a row may cross any number of reads; only the row in hand is buffered.
 */

/** Called with a row's bytes, their offset in the file and its line (from 1). Blank lines are not rows. */
export type OnRow = (bytes: Buffer, offset: number, line: number) => void;

const newline = 0x0a;
const quote = 0x22;
const backslash = 0x5c;

const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0x09 || byte === 0x0d || byte === newline;

/** Push the file's bytes in order, then call `end`. */
export class RowScanner {
  readonly #onRow: OnRow;
  #kind: 'unknown' | 'lines' | 'array' | 'closed' = 'unknown';
  #offset = 0;
  #line = 1;
  #parts: Buffer[] = [];
  #rowOffset = 0;
  #rowLine = 1;
  #open = false;
  #depth = 0;
  #inString = false;
  #escaped = false;

  readonly #keyed: boolean;

  /** `keyed`: the file is one object; a row is then a member of it, `"key": value`. */
  constructor(onRow: OnRow, keyed = false) {
    this.#onRow = onRow;
    this.#keyed = keyed;
  }

  /** Scans the next bytes; they may be reused by the caller afterwards. */
  push(bytes: Buffer): void {
    let at = 0;
    if (this.#kind === 'unknown') at = this.#detect(bytes);
    if (this.#kind === 'lines') this.#scanLines(bytes, at);
    else if (this.#kind !== 'unknown') this.#scanArray(bytes, at);
    this.#offset += bytes.length;
  }

  /** Flushes a last line without newline. Returns what is wrong with the end of an array, if anything. */
  end(): { line: number; reason: string } | undefined {
    if (this.#kind === 'lines' && this.#open) this.#finish(Buffer.alloc(0));
    if (this.#kind === 'closed' && this.#open)
      return { line: this.#rowLine, reason: `text after the end of the JSON ${this.#whole}` };
    if (this.#kind === 'array') return { line: this.#line, reason: `the JSON ${this.#whole} does not end` };
    return undefined;
  }

  get #whole(): string {
    return this.#keyed ? 'object' : 'array';
  }

  /** Skips blanks (and a byte order mark); "[" as the first sign means an array. Returns where to go on. */
  #detect(bytes: Buffer): number {
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (this.#offset + at < 3 && (byte === 0xef || byte === 0xbb || byte === 0xbf)) continue;
      if (byte === newline) this.#line++;
      if (isBlank(byte)) continue;
      this.#kind = byte === (this.#keyed ? 0x7b : 0x5b) ? 'array' : 'lines';
      return this.#kind === 'array' ? at + 1 : at;
    }
    return bytes.length;
  }

  #scanLines(bytes: Buffer, from: number): void {
    for (let at = from; at < bytes.length;) {
      const end = bytes.indexOf(newline, at);
      const stop = end < 0 ? bytes.length : end;
      if (!this.#open) this.#begin(at);
      if (end < 0) {
        this.#parts.push(Buffer.from(bytes.subarray(at)));
        return;
      }
      this.#finish(bytes.subarray(at, stop));
      this.#line++;
      at = end + 1;
    }
  }

  #scanArray(bytes: Buffer, from: number): void {
    let start = this.#open ? from : -1;
    const closing = this.#keyed ? 0x7d : 0x5d;
    for (let at = from; at < bytes.length; at++) {
      const byte = bytes[at]!;
      if (byte === newline) this.#line++;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === backslash) this.#escaped = true;
        else if (byte === quote) this.#inString = false;
        continue;
      }
      const separates = this.#depth === 0 && (byte === 0x2c || byte === closing);
      if (separates) {
        if (this.#open) this.#finish(bytes.subarray(start, at));
        start = -1;
        if (byte === closing) this.#kind = 'closed';
        continue;
      }
      if (isBlank(byte)) continue;
      if (!this.#open) {
        this.#begin(at);
        start = at;
      }
      if (byte === quote) this.#inString = true;
      else if (byte === 0x7b || byte === 0x5b) this.#depth++;
      else if (byte === 0x7d || byte === 0x5d) this.#depth--;
    }
    if (this.#open) this.#parts.push(Buffer.from(bytes.subarray(start)));
  }

  #begin(at: number): void {
    this.#open = true;
    this.#rowOffset = this.#offset + at;
    this.#rowLine = this.#line;
  }

  #finish(rest: Buffer): void {
    const bytes = this.#parts.length === 0 ? rest : Buffer.concat([...this.#parts, rest]);
    this.#parts = [];
    this.#open = false;
    this.#depth = 0;
    let blank = true;
    for (let i = 0; i < bytes.length && blank; i++) blank = isBlank(bytes[i]!);
    if (!blank) this.#onRow(bytes, this.#rowOffset, this.#rowLine);
  }
}
