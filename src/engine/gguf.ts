/**
 * GGUF files: metadata and the table of tensors, checked against the file before anything is believed. Little-endian,
 * versions 2 and 3, as ggml's documentation of the format describes them. Data are not read here; native code reads them.
 */
import { isUtf8 } from 'node:buffer';
import { open, type FileHandle } from 'node:fs/promises';
import { GavelError } from '../errors.js';
import { corruptFile, fileError } from './checkpoint-files.js';

/** Elements and bytes of a block, by ggml's numbers of the storage types this engine reads. */
const storageTypes = new Map<number, { dtype: GgufDtype; elements: number; bytes: number }>([
  [0, { dtype: 'F32', elements: 1, bytes: 4 }],
  [1, { dtype: 'F16', elements: 1, bytes: 2 }],
  [2, { dtype: 'Q4_0', elements: 32, bytes: 18 }],
  [3, { dtype: 'Q4_1', elements: 32, bytes: 20 }],
  [8, { dtype: 'Q8_0', elements: 32, bytes: 34 }],
  [12, { dtype: 'Q4_K', elements: 256, bytes: 144 }],
  [14, { dtype: 'Q6_K', elements: 256, bytes: 210 }],
  [30, { dtype: 'BF16', elements: 1, bytes: 2 }],
]);
/** Names of others, for the error that refuses them. */
const otherTypes: Readonly<Record<number, string>> = {
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  13: 'Q5_K',
  15: 'Q8_K',
};

/** Numbers of few bits in blocks with shared scales. */
export type BlockDtype = 'Q8_0' | 'Q4_0' | 'Q4_1' | 'Q4_K' | 'Q6_K';
export type GgufDtype = 'F32' | 'F16' | 'BF16' | BlockDtype;
export type GgufNumbers =
  Uint8Array | Int8Array | Uint16Array | Int16Array | Uint32Array | Int32Array | Float32Array | Float64Array;
/** Metadata arrays are of numbers (64-bit integers as Float64Array), of strings or of booleans (as Uint8Array). */
export type GgufValue = string | number | boolean | string[] | GgufNumbers;

/** `shape` is row-major, [rows, columns]; `offset` counts from the start of the file. */
export interface GgufTensor {
  name: string;
  dtype: GgufDtype;
  shape: number[];
  offset: number;
  sizeBytes: number;
}

export interface GgufHeader {
  path: string;
  metadata: ReadonlyMap<string, GgufValue>;
  tensors: ReadonlyMap<string, GgufTensor>;
}

const firstBytes = 4 << 20;
/** Vocabularies of 256 thousand tokens take some 15 MB. */
const maxHeaderBytes = 64 << 20;

/** Thrown inside when the bytes read so far end; never leaves this file. */
class NeedsMore extends Error {}

/**
 * Reads and validates the header of a file. Errors: 'corrupt_checkpoint' naming file and key or tensor, 'unsupported' (a
 * version, a storage type, a split or big-endian file), 'io', 'permission_denied'.
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw fileError(cause, path, 'a GGUF file');
  }
  try {
    const info = await file.stat();
    if (!info.isFile()) throw corruptFile(path, 'not a file');
    for (let wanted = firstBytes; ; wanted *= 4) {
      const bytes = await readStart(file, Math.min(wanted, info.size, maxHeaderBytes));
      try {
        return parseGgufHeader(bytes, path, info.size);
      } catch (error) {
        if (!(error instanceof NeedsMore)) throw error;
        if (bytes.length < wanted && bytes.length < maxHeaderBytes) throw corruptFile(path, 'its header is cut off');
        if (bytes.length >= maxHeaderBytes) throw corruptFile(path, `a header of over ${maxHeaderBytes} bytes`);
      }
    }
  } catch (error) {
    throw GavelError.is(error) ? error : fileError(error, path, 'a GGUF file');
  } finally {
    await file.close();
  }
}

async function readStart(file: FileHandle, size: number): Promise<Buffer> {
  const bytes = Buffer.alloc(size);
  let done = 0;
  while (done < size) {
    const { bytesRead } = await file.read(bytes, done, size - done, done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return bytes.subarray(0, done);
}

/** Reads values in order; every length is checked against the bytes that are there before anything is made of it. */
class Cursor {
  at = 0;
  readonly #view: DataView;

  constructor(
    readonly bytes: Buffer,
    readonly path: string,
    readonly fileSize: number,
  ) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  /** The place of `size` bytes, which are then behind. */
  take(size: number): number {
    const from = this.at;
    if (from + size > this.fileSize) throw corruptFile(this.path, `${size} bytes at ${from} lie past its end`);
    if (from + size > this.bytes.length) throw new NeedsMore();
    this.at = from + size;
    return from;
  }

  u32(): number {
    return this.#view.getUint32(this.take(4), true);
  }

  /** A 64-bit count; over 2^53 nothing real counts. */
  count(what: string): number {
    const value = this.#view.getBigUint64(this.take(8), true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw corruptFile(this.path, `${what} of ${value}`);
    return Number(value);
  }

  text(what: string): string {
    const size = this.count(`${what} length`);
    const from = this.take(size);
    const part = this.bytes.subarray(from, from + size);
    if (!isUtf8(part)) throw corruptFile(this.path, `${what} at byte ${from} is not UTF-8`);
    return part.toString('utf8');
  }

  number(type: number, key: string): number | boolean {
    const size = numberSizes[type]!;
    const from = this.take(size);
    const view = this.#view;
    switch (type) {
      case 0:
        return view.getUint8(from);
      case 1:
        return view.getInt8(from);
      case 2:
        return view.getUint16(from, true);
      case 3:
        return view.getInt16(from, true);
      case 4:
        return view.getUint32(from, true);
      case 5:
        return view.getInt32(from, true);
      case 6:
        return view.getFloat32(from, true);
      case 7:
        return view.getUint8(from) !== 0;
      case 10:
      case 11: {
        const value = type === 10 ? view.getBigUint64(from, true) : view.getBigInt64(from, true);
        if (!Number.isSafeInteger(Number(value))) throw corruptFile(this.path, `key "${key}" holds ${value}`);
        return Number(value);
      }
      default:
        return view.getFloat64(from, true);
    }
  }
}

/** Bytes of the number types by their code; 8 is a string, 9 an array. */
const numberSizes: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

function numbersOf(type: number, count: number): GgufNumbers {
  if (type === 0 || type === 7) return new Uint8Array(count);
  if (type === 1) return new Int8Array(count);
  if (type === 2) return new Uint16Array(count);
  if (type === 3) return new Int16Array(count);
  if (type === 4) return new Uint32Array(count);
  if (type === 5) return new Int32Array(count);
  if (type === 6) return new Float32Array(count);
  return new Float64Array(count);
}

function readArray(cursor: Cursor, key: string): GgufValue {
  const type = cursor.u32();
  const count = cursor.count(`an array "${key}"`);
  const least = type === 8 ? 8 : numberSizes[type];
  if (least === undefined) throw corruptFile(cursor.path, `key "${key}" is an array of type ${type}`);
  if (count * least > cursor.fileSize - cursor.at) {
    throw corruptFile(cursor.path, `key "${key}" is an array of ${count} entries, past its end`);
  }
  // All bytes of it are here before room is made for it.
  if (cursor.at + count * least > cursor.bytes.length) throw new NeedsMore();
  if (type === 8) {
    const texts: string[] = [];
    for (let i = 0; i < count; i++) texts.push(cursor.text(`entry ${i} of "${key}"`));
    return texts;
  }
  const values = numbersOf(type, count);
  for (let i = 0; i < count; i++) values[i] = Number(cursor.number(type, key));
  return values;
}

function readValue(cursor: Cursor, key: string): GgufValue {
  const type = cursor.u32();
  if (type === 8) return cursor.text(`key "${key}"`);
  if (type === 9) return readArray(cursor, key);
  if (numberSizes[type] === undefined) throw corruptFile(cursor.path, `key "${key}" is of type ${type}`);
  return cursor.number(type, key);
}

function readMetadata(cursor: Cursor, count: number): Map<string, GgufValue> {
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < count; i++) {
    const key = cursor.text(`key ${i}`);
    if (metadata.has(key)) throw corruptFile(cursor.path, `key "${key}" stands twice`);
    metadata.set(key, readValue(cursor, key));
  }
  return metadata;
}

function readTensorEntry(cursor: Cursor, index: number): GgufTensor {
  const { path } = cursor;
  const name = cursor.text(`name of tensor ${index}`);
  const axes = cursor.u32();
  if (axes < 1 || axes > 4) throw corruptFile(path, `tensor "${name}" has ${axes} dimensions`);
  const shape: number[] = [];
  for (let axis = 0; axis < axes; axis++) shape.unshift(cursor.count(`a dimension of "${name}"`));
  const type = cursor.u32();
  const offset = cursor.count(`the offset of "${name}"`);
  const storage = storageTypes.get(type);
  if (storage === undefined) {
    const received = otherTypes[type] ?? `type ${type}`;
    throw new GavelError(
      'unsupported',
      `Expected F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K for tensor "${name}" of "${path}" but received ` +
        `${received}. Take a file of another quantization.`,
      { fields: { path, name, received } },
    );
  }
  const columns = shape.at(-1)!;
  const elements = shape.reduce((product, size) => product * size, 1);
  const sizeBytes = (elements / storage.elements) * storage.bytes;
  if (elements === 0 || columns % storage.elements !== 0 || !Number.isSafeInteger(sizeBytes)) {
    throw corruptFile(path, `tensor "${name}" of ${storage.dtype} has the shape [${shape.join(', ')}]`);
  }
  return { name, dtype: storage.dtype, shape, offset, sizeBytes };
}

/** Offsets become places in the file; no tensor may overlap another or reach past the end. */
function placeTensors(cursor: Cursor, entries: readonly GgufTensor[], alignment: number): Map<string, GgufTensor> {
  const { path, fileSize } = cursor;
  const start = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  let end = start;
  for (const entry of [...entries].sort((a, b) => a.offset - b.offset)) {
    const { name, sizeBytes } = entry;
    const offset = start + entry.offset;
    if (tensors.has(name)) throw corruptFile(path, `tensor "${name}" stands twice`);
    if (entry.offset % alignment !== 0) throw corruptFile(path, `tensor "${name}" is not aligned to ${alignment}`);
    if (offset < end) throw corruptFile(path, `tensor "${name}" overlaps the one before it`);
    end = offset + sizeBytes;
    if (end > fileSize) throw corruptFile(path, `tensor "${name}" ends at byte ${end}, past the file's ${fileSize}`);
    tensors.set(name, { ...entry, offset });
  }
  return tensors;
}

function checkVersion(cursor: Cursor): void {
  const { path } = cursor;
  if (cursor.fileSize < 24) throw corruptFile(path, `${cursor.fileSize} bytes, less than the 24 of a header`);
  if (cursor.bytes.toString('latin1', cursor.take(4), 4) !== 'GGUF') throw corruptFile(path, 'not a GGUF file');
  const version = cursor.u32();
  if (version === 2 || version === 3) return;
  const received = version > 0xffff ? 'a big-endian file' : `version ${version}`;
  throw new GavelError(
    'unsupported',
    `Expected a little-endian GGUF file of version 2 or 3 at "${path}" but received ${received}. Convert it anew.`,
    { fields: { path, received } },
  );
}

/** Validates the first bytes of a file of `fileSize` bytes. */
export function parseGgufHeader(bytes: Buffer, path: string, fileSize: number): GgufHeader {
  const cursor = new Cursor(bytes, path, fileSize);
  checkVersion(cursor);
  const numTensors = cursor.count('a tensor count');
  const numKeys = cursor.count('a key count');
  // The least an entry takes: a key is length, type and a byte; a tensor length, one dimension, type and offset.
  if (numKeys * 13 + numTensors * 32 > fileSize) {
    throw corruptFile(path, `${numKeys} keys and ${numTensors} tensors do not fit into ${fileSize} bytes`);
  }
  const metadata = readMetadata(cursor, numKeys);
  const entries: GgufTensor[] = [];
  for (let i = 0; i < numTensors; i++) entries.push(readTensorEntry(cursor, i));
  const alignment = metadata.get('general.alignment') ?? 32;
  if (typeof alignment !== 'number' || !Number.isInteger(alignment) || alignment < 8 || alignment > 65536) {
    throw corruptFile(path, `general.alignment is ${JSON.stringify(alignment)}`);
  }
  const split = metadata.get('split.count');
  if (typeof split === 'number' && split > 1) {
    throw new GavelError(
      'unsupported',
      `Expected a whole GGUF file at "${path}" but received one of ${split} parts. Merge them first.`,
      { fields: { path, parts: split } },
    );
  }
  return { path, metadata, tensors: placeTensors(cursor, entries, alignment) };
}
