import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { findDuplicateKey } from '../../src/data/duplicate-key.js';
import {
  dtypeSizes,
  parseSafetensorsHeader,
  readCheckpointTensors,
  readSafetensorsHeader,
  readTensor,
  sortForWriting,
  writeSafetensorsHeader,
  type Dtype,
  type TensorPlan,
} from '../../src/data/safetensors.js';
import { GavelError } from '../../src/errors.js';

const goldens = new URL('../goldens/', import.meta.url).pathname;
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-safetensors-'));
});
afterAll(() => rm(folder, { recursive: true }));

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const sizeOf = ({ shape, dtype }: TensorPlan): number => shape.reduce((a, b) => a * b, dtypeSizes[dtype]);

const plans = fc.uniqueArray(
  fc.record({
    name: fc.string({ unit: 'grapheme', minLength: 1 }).filter((name) => name !== '__metadata__'),
    dtype: fc.constantFrom(...(Object.keys(dtypeSizes) as Dtype[])),
    shape: fc.array(fc.nat(5), { maxLength: 4 }),
  }),
  { selector: ({ name }) => name, maxLength: 8 },
);

describe('safetensors', () => {
  it('reads a checkpoint that the reference implementation wrote', async () => {
    const { tensors, metadata } = await readCheckpointTensors(join(goldens, 'micro-text'));
    expect(metadata).toEqual({ format: 'pt' });
    expect(tensors.get('model.embed_tokens.weight')).toMatchObject({
      dtype: 'F32',
      shape: [512, 64],
      sizeBytes: 131072,
    });
    const total = [...tensors.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
    expect(total).toBe(119_360);
    const data = await readTensor(tensors.get('model.norm.weight')!);
    expect(data).toBeInstanceOf(Float32Array);
    expect(data).toHaveLength(64);
  });

  it('reads back what it writes, whatever the tensors', () => {
    fc.assert(
      fc.property(plans, (tensors) => {
        const ordered = sortForWriting(tensors);
        const header = writeSafetensorsHeader(ordered, { format: 'pt', ключ: 'значение' });
        expect(header.length % 8).toBe(0);
        const fileSize = header.length + ordered.reduce((sum, plan) => sum + sizeOf(plan), 0);
        const read = parseSafetensorsHeader(header.subarray(8), 'x', fileSize);
        expect(read.metadata).toEqual({ format: 'pt', ключ: 'значение' });
        let offset = header.length;
        expect(read.tensors.size).toBe(ordered.length);
        for (const plan of ordered) {
          const sizeBytes = sizeOf(plan);
          expect(read.tensors.get(plan.name)).toEqual({
            dtype: plan.dtype,
            shape: plan.shape,
            path: 'x',
            offset,
            sizeBytes,
          });
          if (sizeBytes > 0) expect(offset % dtypeSizes[plan.dtype]).toBe(0);
          offset += sizeBytes;
        }
      }),
    );
  });

  it.each([
    [
      'overlap',
      '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}',
      6,
      'overlaps',
    ],
    [
      'gap',
      '{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}',
      6,
      'unused',
    ],
    ['past the end', '{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', 8, 'past the file'],
    ['trailing bytes', '{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}', 9, 'after the last'],
    ['shape and size', '{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,16]}}', 16, 'needs 12 bytes'],
    ['backwards', '{"a":{"dtype":"F32","shape":[3],"data_offsets":[16,4]}}', 16, 'backwards'],
    [
      'duplicate name',
      '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}',
      0,
      'twice',
    ],
    ['duplicate field', '{"a":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}', 0, 'twice'],
    ['dtype', '{"a":{"dtype":"toString","shape":[0],"data_offsets":[0,0]}}', 0, 'unknown dtype'],
    ['negative size', '{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,0]}}', 0, 'shape'],
    ['huge shape', '{"a":{"dtype":"U8","shape":[9007199254740991,4096],"data_offsets":[0,0]}}', 0, 'too large'],
    ['unknown field', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":1}}', 0, 'unknown key'],
    ['metadata', '{"__metadata__":{"a":1}}', 0, '__metadata__'],
    ['not an object', '[]', 0, 'start with'],
    ['not JSON', '{"a":', 0, 'JSON'],
  ])('refuses %s', (_, header, dataBytes, reason) => {
    const bytes = utf8(header);
    expect(() => parseSafetensorsHeader(bytes, 'bad.safetensors', 8 + bytes.length + dataBytes)).toThrow(
      expect.objectContaining({
        code: 'corrupt_checkpoint',
        fields: { path: 'bad.safetensors', reason: expect.stringContaining(reason) as string },
      }),
    );
  });

  it.each([
    ['empty', Buffer.alloc(0)],
    ['short', Buffer.from([1, 2, 3])],
    ['header over 100 MB', Buffer.from([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0])],
    ['header of 2^63 bytes', Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x80])],
    ['header past the end', Buffer.from([100, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x7d])],
    ['not UTF-8', Buffer.from([4, 0, 0, 0, 0, 0, 0, 0, 0x7b, 0x22, 0xff, 0x22])],
  ])('refuses a file that is %s', async (name, bytes) => {
    const path = join(folder, `${name.replace(/\W/g, '-')}.safetensors`);
    await writeFile(path, bytes);
    await expect(readSafetensorsHeader(path)).rejects.toMatchObject({ code: 'corrupt_checkpoint', fields: { path } });
  });

  it('throws nothing but GavelError, whatever the bytes', () => {
    const valid = Buffer.from(writeSafetensorsHeader([{ name: 'a', dtype: 'F32', shape: [2, 3] }]));
    const mutated = fc.array(fc.tuple(fc.nat(valid.length - 9), fc.nat(255)), { maxLength: 6 }).map((edits) => {
      const bytes = Buffer.from(valid.subarray(8));
      for (const [at, value] of edits) bytes[at] = value;
      return bytes;
    });
    fc.assert(
      fc.property(
        fc.oneof(fc.uint8Array({ maxLength: 64 }), mutated, fc.json().map(utf8)),
        fc.nat(200),
        (bytes, size) => {
          try {
            parseSafetensorsHeader(bytes, 'fuzz', size);
          } catch (error) {
            expect(error).toBeInstanceOf(GavelError);
            expect((error as GavelError).code).toBe('corrupt_checkpoint');
          }
        },
      ),
      { numRuns: 500 },
    );
  });

  it('finds duplicate keys at any depth and only those', () => {
    fc.assert(
      fc.property(fc.json(), (json) => {
        // A parsed and printed value has no duplicates; fc.json never writes any either.
        expect(findDuplicateKey(JSON.stringify(JSON.parse(json)))).toBeUndefined();
      }),
    );
    expect(findDuplicateKey('{"a":["a","a",{"b":1,"c":"b","b":2}]}')).toBe('b');
    expect(findDuplicateKey('{"a":{"x":1},"b":{"x":1},"c":"a"}')).toBeUndefined();
  });

  it('reads every supported dtype', async () => {
    const path = join(folder, 'dtypes.safetensors');
    const parts: [Dtype, Uint8Array, number[]][] = [
      ['F64', new Uint8Array(new Float64Array([0.1, -2]).buffer), [0.1, -2]],
      ['I64', new Uint8Array(new BigInt64Array([-5n, 7n]).buffer), [-5, 7]],
      ['F32', new Uint8Array(new Float32Array([0.5, 3]).buffer), [0.5, 3]],
      ['BF16', new Uint8Array(new Uint16Array([0x3f80, 0xc040]).buffer), [1, -3]],
      ['U8', new Uint8Array([200, 1]), [200, 1]],
    ];
    const header = writeSafetensorsHeader(parts.map(([dtype]) => ({ name: dtype, dtype, shape: [2] })));
    await writeFile(path, Buffer.concat([header, ...parts.map(([, bytes]) => bytes)]));
    const { tensors } = await readSafetensorsHeader(path);
    for (const [dtype, , values] of parts) {
      expect(Array.from(await readTensor(tensors.get(dtype)!), Number)).toEqual(values);
    }
  });

  it('reads shards through the index and refuses an index that disagrees with them', async () => {
    const shard = async (name: string, tensor: string): Promise<void> =>
      writeFile(
        join(folder, name),
        Buffer.concat([writeSafetensorsHeader([{ name: tensor, dtype: 'U8', shape: [3] }]), Buffer.alloc(3)]),
      );
    await shard('model-1.safetensors', 'a');
    await shard('model-2.safetensors', 'b');
    const index = (map: Record<string, string>): Promise<void> =>
      writeFile(
        join(folder, 'model.safetensors.index.json'),
        JSON.stringify({ metadata: { total_size: 6 }, weight_map: map }),
      );
    await index({ a: 'model-1.safetensors', b: 'model-2.safetensors' });
    const { tensors } = await readCheckpointTensors(folder);
    expect([...tensors.keys()].sort()).toEqual(['a', 'b']);
    expect(tensors.get('b')!.path).toBe(join(folder, 'model-2.safetensors'));
    for (const map of [
      { a: 'model-2.safetensors', b: 'model-2.safetensors' },
      { a: 'model-1.safetensors', b: 'model-2.safetensors', c: 'model-2.safetensors' },
      { a: '../model-1.safetensors', b: 'model-2.safetensors' },
    ] as Record<string, string>[]) {
      await index(map);
      await expect(readCheckpointTensors(folder)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    }
    await expect(readCheckpointTensors(join(folder, 'missing'))).rejects.toMatchObject({ code: 'io' });
  });
});
