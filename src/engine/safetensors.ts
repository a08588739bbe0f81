/**
 * Safetensors headers: read, validated to the letter, and written. Tensor bytes are not mapped; whoever needs them reads
 * `sizeBytes` bytes at `offset` of `path`. Format: 8-byte little-endian header length, JSON header, data.
 */
import { lstat, open, stat, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { corruptFile, fileError, readOptionalJson } from './checkpoint-files.js';
import { findDuplicateKey } from './duplicate-key.js';
import { readGgufHeader, type BlockDtype } from './gguf.js';
import { ggufTensorIndex, ggufWeights } from './gguf-config.js';

/** Bytes per element of every dtype the format names. */
export const dtypeSizes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E5M2: 1,
  F8_E4M3: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

export type Dtype = keyof typeof dtypeSizes;

/** Where a tensor lies. `offset` counts from the start of the file. */
export interface TensorEntry {
  /** Block formats come from GGUF files alone. */
  dtype: Dtype | BlockDtype;
  shape: number[];
  path: string;
  offset: number;
  sizeBytes: number;
  /** Heads whose rows the file has as pairs of an interleaved rotary embedding. */
  interleavedHeads?: number;
}

/** A file's or folder's tensors by name, and the string metadata of the header. */
export interface TensorIndex {
  tensors: Map<string, TensorEntry>;
  metadata: Record<string, string>;
}

const maxHeaderBytes = 100_000_000;

/** Reads and validates the header of one file. Anything malformed throws 'corrupt_checkpoint' with file and reason. */
export async function readSafetensorsHeader(path: string): Promise<TensorIndex> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (cause) {
    throw fileError(cause, path, 'a safetensors file');
  }
  try {
    const about = await file.stat();
    if (!about.isFile()) throw corruptFile(path, 'it is no regular file');
    const { size } = about;
    if (size < 8) throw corruptFile(path, `${size} bytes, less than the 8 of the header length`);
    const length = Buffer.alloc(8);
    await readFully(file, path, length, 0);
    const header = Buffer.alloc(headerLength(length, path, size));
    await readFully(file, path, header, 8);
    return parseSafetensorsHeader(header, path, size);
  } finally {
    await file.close();
  }
}

/** How long the header is, by the first 8 bytes of a file of `fileSize` bytes. Too long a one is 'corrupt_checkpoint'. */
export function headerLength(first: Buffer, path: string, fileSize: number): number {
  const numBytes = first.readBigUInt64LE();
  if (numBytes > BigInt(maxHeaderBytes)) throw corruptFile(path, `header of ${numBytes} bytes, over 100 MB`);
  if (Number(numBytes) > fileSize - 8) throw corruptFile(path, `header of ${numBytes} bytes, past the end of the file`);
  return Number(numBytes);
}

/** Validates header bytes (without the 8 of their length) against a file of `fileSize` bytes. */
export function parseSafetensorsHeader(header: Uint8Array, path: string, fileSize: number): TensorIndex {
  const parsed = parseObject(header, path);
  const dataStart = 8 + header.length;
  const tensors = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const [name, value] of Object.entries(parsed)) {
    if (name === '__metadata__') metadata = checkMetadata(value, path);
    else tensors.set(name, checkTensor(name, value, path, dataStart));
  }
  let end = dataStart;
  for (const [name, tensor] of [...tensors].sort(
    (a, b) => a[1].offset - b[1].offset || a[1].sizeBytes - b[1].sizeBytes,
  )) {
    if (tensor.offset < end) throw corruptFile(path, `tensor "${name}" overlaps the one before it`);
    if (tensor.offset > end) throw corruptFile(path, `${tensor.offset - end} unused bytes before tensor "${name}"`);
    end = tensor.offset + tensor.sizeBytes;
  }
  if (end > fileSize) throw corruptFile(path, `tensors end at byte ${end}, past the file's ${fileSize}`);
  if (end < fileSize) throw corruptFile(path, `${fileSize - end} bytes after the last tensor`);
  return { tensors, metadata };
}

function parseObject(header: Uint8Array, path: string): Record<string, unknown> {
  if (header[0] !== 0x7b) throw corruptFile(path, 'header does not start with "{"');
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(header);
    value = JSON.parse(text);
  } catch (cause) {
    throw corruptFile(path, `header is not UTF-8 JSON: ${(cause as Error).message}`, cause);
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate !== undefined) throw corruptFile(path, `key ${JSON.stringify(duplicate)} stands twice in the header`);
  return value as Record<string, unknown>;
}

function checkMetadata(value: unknown, path: string): Record<string, string> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw corruptFile(path, '__metadata__ is not an object');
  }
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') throw corruptFile(path, `__metadata__ "${key}" is not a string`);
  }
  return value as Record<string, string>;
}

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

function checkTensor(name: string, value: unknown, path: string, dataStart: number): TensorEntry {
  const bad = (reason: string): GavelError => corruptFile(path, `tensor "${name}": ${reason}`);
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw bad('not an object');
  const { dtype, shape, data_offsets: offsets, ...rest } = value as Record<string, unknown>;
  const unknownKey = Object.keys(rest)[0];
  if (unknownKey !== undefined) throw bad(`unknown key "${unknownKey}"`);
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeSizes, dtype))
    throw bad(`unknown dtype ${JSON.stringify(dtype)}`);
  if (!Array.isArray(shape) || !shape.every(isCount)) throw bad('shape is not a list of counts');
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isCount))
    throw bad('data_offsets are not two counts');
  const [begin, end] = offsets as [number, number];
  if (end < begin) throw bad(`data_offsets ${begin}..${end} run backwards`);
  const numBytes = shape.reduce((product, size) => product * size, dtypeSizes[dtype as Dtype]);
  if (!Number.isSafeInteger(numBytes)) throw bad('shape is too large');
  if (numBytes !== end - begin)
    throw bad(`shape [${shape.join(', ')}] of ${dtype} needs ${numBytes} bytes, not ${end - begin}`);
  return { dtype: dtype as Dtype, shape, path, offset: dataStart + begin, sizeBytes: end - begin };
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/**
 * The tensors of a checkpoint: a `.safetensors` or `.gguf` file, or a folder with model.safetensors, a sharded
 * model.safetensors.index.json, or model.gguf. Every name of an index must lie in the shard it names, and in no other.
 */
export async function readCheckpointTensors(path: string): Promise<TensorIndex> {
  let info;
  try {
    info = await stat(path);
  } catch (cause) {
    throw fileError(cause, path, 'a checkpoint');
  }
  if (!info.isDirectory()) return path.endsWith('.gguf') ? readGgufTensors(path) : readSafetensorsHeader(path);
  const single = join(path, 'model.safetensors');
  if (await exists(single)) return readSafetensorsHeader(single);
  const indexName = 'model.safetensors.index.json';
  const index = await readOptionalJson(path, indexName);
  if (index !== undefined) return readShards(path, join(path, indexName), index['weight_map']);
  // A link whose target is gone is an error that names it, not a folder without weights.
  const gguf = ggufWeights(path);
  if (
    await lstat(gguf).then(
      () => true,
      () => false,
    )
  )
    return readGgufTensors(gguf);
  throw new GavelError(
    'io',
    `Expected model.safetensors, ${indexName} or model.gguf in "${path}" but found none of them. Name a checkpoint.`,
    { fields: { path } },
  );
}

const readGgufTensors = async (path: string): Promise<TensorIndex> => ggufTensorIndex(await readGgufHeader(path));

async function readShards(folder: string, indexPath: string, weightMap: unknown): Promise<TensorIndex> {
  if (typeof weightMap !== 'object' || weightMap === null || Array.isArray(weightMap)) {
    throw corruptFile(indexPath, 'weight_map is not an object');
  }
  const shardOf = new Map(Object.entries(weightMap));
  for (const [name, shard] of shardOf) {
    if (typeof shard !== 'string' || !/^[^/\\]+\.safetensors$/.test(shard)) {
      throw corruptFile(
        indexPath,
        `"${name}" names ${JSON.stringify(shard)}, not a .safetensors file beside the index`,
      );
    }
  }
  const tensors = new Map<string, TensorEntry>();
  let metadata: Record<string, string> = {};
  for (const shard of new Set(shardOf.values() as Iterable<string>)) {
    const found = await readSafetensorsHeader(join(folder, shard));
    metadata = { ...metadata, ...found.metadata };
    for (const [name, entry] of found.tensors) {
      if (shardOf.get(name) !== shard)
        throw corruptFile(indexPath, `tensor "${name}" lies in ${shard}, the index says otherwise`);
      tensors.set(name, entry);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name)) throw corruptFile(indexPath, `tensor "${name}" is not in ${shard as string}`);
  }
  return { tensors, metadata };
}

/** What a header says of a tensor that is still to be written. */
export interface TensorPlan {
  name: string;
  dtype: Dtype;
  shape: readonly number[];
}

/** The order a file is written in: wide dtypes first, then by name, so that every tensor is aligned to its own size. */
export function sortForWriting<T extends TensorPlan>(tensors: readonly T[]): T[] {
  const byName = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
  return [...tensors].sort((a, b) => dtypeSizes[b.dtype] - dtypeSizes[a.dtype] || byName(a.name, b.name));
}

/**
 * The bytes before the data: length and header, padded with spaces to a multiple of 8. Tensors lie in the order given,
 * without gaps. `metadata` defaults to {format: "pt"}, which transformers asks for.
 */
export function writeSafetensorsHeader(
  tensors: readonly TensorPlan[],
  metadata: Readonly<Record<string, string>> = { format: 'pt' },
): Uint8Array {
  const entries: [string, unknown][] = [['__metadata__', metadata]];
  let end = 0;
  for (const { name, dtype, shape } of tensors) {
    const begin = end;
    end += shape.reduce((product, size) => product * size, dtypeSizes[dtype]);
    entries.push([name, { dtype, shape, data_offsets: [begin, end] }]);
  }
  if (new Set(entries.map(([name]) => name)).size !== entries.length) {
    throw new GavelError(
      'invalid_argument',
      'Expected distinct tensor names but received one twice. Rename one of them.',
    );
  }
  const text = `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`).join(',')}}`;
  const numBytes = Buffer.byteLength(text);
  const out = Buffer.alloc(8 + Math.ceil(numBytes / 8) * 8, 0x20);
  out.writeBigUInt64LE(BigInt(out.length - 8));
  out.write(text, 8);
  return out;
}

/** A tensor's elements; BF16 widens to float32, which is exact. */
export type TensorData = Float32Array | Float64Array | BigInt64Array | Int32Array | Uint8Array;

/** Reads one tensor (F32, F64, BF16, I64, I32, U8, BOOL) in the order of the file, row-major. */
export async function readTensor(entry: TensorEntry): Promise<TensorData> {
  const bytes = Buffer.from(new ArrayBuffer(entry.sizeBytes));
  const file = await open(entry.path, 'r');
  try {
    await readFully(file, entry.path, bytes, entry.offset);
  } finally {
    await file.close();
  }
  const { buffer } = bytes;
  switch (entry.dtype) {
    case 'F32':
      return new Float32Array(buffer);
    case 'F64':
      return new Float64Array(buffer);
    case 'I64':
      return new BigInt64Array(buffer);
    case 'I32':
      return new Int32Array(buffer);
    case 'U8':
    case 'BOOL':
      return new Uint8Array(buffer);
    case 'BF16': {
      const wide = Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16);
      return new Float32Array(wide.buffer);
    }
    default:
      throw new GavelError(
        'unsupported',
        `Expected F32, F64, BF16, I64, I32, U8 or BOOL but received ${entry.dtype}. Convert it.`,
        {
          fields: { dtype: entry.dtype, path: entry.path },
        },
      );
  }
}

async function readFully(file: FileHandle, path: string, into: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { bytesRead } = await file.read(into, done, into.length - done, position + done);
    if (bytesRead === 0)
      throw corruptFile(path, `ends at byte ${position + done}, before byte ${position + into.length}`);
    done += bytesRead;
  }
}
