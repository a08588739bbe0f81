// GGUF headers, and what a file's metadata become as a Hugging Face folder. The files were written by the `gguf` package
// (scripts/goldens/gguf_files.py).
import { mkdtemp, readFile, readlink, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Tokenizer } from '../../src/data/tokenizer.js';
import { ChatTemplate } from '../../src/data/template.js';
import { parseGgufHeader, readGgufHeader, type GgufHeader } from '../../src/engine/gguf.js';
import { ggufConfig, ggufGenerationConfig, huggingFaceName } from '../../src/engine/gguf-config.js';
import { ggufFolder, importGguf } from '../../src/engine/gguf-import.js';
import { shortDecimal } from '../../src/engine/gguf-metadata.js';
import { ggufTokenizer } from '../../src/engine/gguf-tokenizer.js';
import { readCheckpointTensors } from '../../src/engine/safetensors.js';

const goldens = join(import.meta.dirname, '../goldens');
const llama = join(goldens, 'gguf/micro-llama.gguf');
const qwen2 = join(goldens, 'gguf/micro-qwen2.gguf');
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-gguf-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A header with some keys changed; undefined removes one. */
function withKeys({ path, metadata, tensors }: GgufHeader, changes: Record<string, unknown>): GgufHeader {
  const changed = new Map<string, unknown>(metadata);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined) changed.delete(key);
    else changed.set(key, value);
  }
  return { path, metadata: changed as GgufHeader['metadata'], tensors };
}

describe('headers', () => {
  it('lists tensors row-major, with their places in the file', async () => {
    const { tensors, metadata } = await readGgufHeader(join(goldens, 'gguf/blocks.gguf'));
    expect(metadata.get('general.architecture')).toBe('llama');
    expect([...tensors.values()].map(({ name, dtype, shape, sizeBytes }) => [name, dtype, shape, sizeBytes])).toEqual(
      Object.entries({ Q8_0: 1088, Q4_0: 576, Q4_1: 640, Q4_K: 576, Q6_K: 840, F32: 4096, F16: 2048, BF16: 2048 }).map(
        ([name, size]) => [name, name, [2, 512], size],
      ),
    );
    const ends = [...tensors.values()].map(({ offset, sizeBytes }) => offset + sizeBytes);
    for (const { offset } of tensors.values()) expect(offset % 32).toBe(0);
    expect(Math.ceil(Math.max(...ends) / 32) * 32).toBe((await readFile(join(goldens, 'gguf/blocks.gguf'))).length);
  });

  it('refuses every truncation', async () => {
    const bytes = await readFile(join(goldens, 'gguf/blocks.gguf'));
    const path = join(folder, 'cut.gguf');
    for (let size = 0; size < bytes.length - 32; size += 61) {
      await writeFile(path, bytes.subarray(0, size));
      await expect(readGgufHeader(path), String(size)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    }
  });

  it('names what is wrong', async () => {
    const bytes = await readFile(llama);
    const change = (edit: (copy: Buffer) => void): (() => GgufHeader) => {
      const copy = Buffer.from(bytes);
      edit(copy);
      return () => parseGgufHeader(copy, 'x.gguf', copy.length);
    };
    const at = (text: string): number => bytes.indexOf(text);
    expect(change((b) => b.write('GGML'))).toThrow(/"x.gguf": not a GGUF file/);
    expect(change((b) => b.writeUInt32LE(1, 4))).toThrow(/version 1/);
    expect(change((b) => b.writeUInt32BE(3, 4))).toThrow(/big-endian/);
    expect(change((b) => b.writeBigUInt64LE(1n << 40n, 8))).toThrow(/do not fit into/);
    expect(change((b) => b.writeBigUInt64LE(1n << 62n, 16))).toThrow(/a key count of/);
    expect(change((b) => b.writeUInt32LE(77, at('general.architecture') + 20))).toThrow(
      /"general.architecture" is of type 77/,
    );
    expect(change((b) => b.fill(0xff, at('micro llama'), at('micro llama') + 1))).toThrow(/is not UTF-8/);
    const tokens = at('tokenizer.ggml.tokens') + 'tokenizer.ggml.tokens'.length;
    expect(change((b) => b.writeBigUInt64LE(1n << 50n, tokens + 8))).toThrow(/"tokenizer.ggml.tokens" is an array of/);
    const entry = at('token_embd.weight') + 'token_embd.weight'.length;
    expect(change((b) => b.writeUInt32LE(9, entry))).toThrow(/"token_embd.weight" has 9 dimensions/);
    expect(change((b) => b.writeBigUInt64LE(1n << 52n, entry + 4))).toThrow(
      /"token_embd.weight" of Q8_0 has the shape/,
    );
    expect(change((b) => b.writeUInt32LE(10, entry + 20))).toThrow(/token_embd.weight" of "x.gguf" but received Q2_K/);
    expect(change((b) => b.writeBigUInt64LE(1n << 45n, entry + 24))).toThrow(/"token_embd.weight" ends at byte/);
    expect(change((b) => b.writeBigUInt64LE(3n, entry + 24))).toThrow(/is not aligned to 32/);
  });
});

describe('configurations', () => {
  it('of the llama architecture', async () => {
    const header = await readGgufHeader(llama);
    const original = JSON.parse(await readFile(join(goldens, 'micro-llama/config.json'), 'utf8')) as object;
    const { bos_token_id, eos_token_id, ...config } = ggufConfig(header, {});
    expect({ bos_token_id, eos_token_id }).toEqual({ bos_token_id: 510, eos_token_id: 511 });
    expect({ ...original, ...config, num_hidden_layers: 2, pad_token_id: 503 }).toEqual(original);
    expect(ggufGenerationConfig(withKeys(header, { 'tokenizer.ggml.eot_token_id': 7 }))).toEqual({
      bos_token_id: 510,
      eos_token_id: [511, 7],
      pad_token_id: 509,
    });
  });

  it('of the qwen2 architecture, whose head is the embedding', async () => {
    const config = ggufConfig(await readGgufHeader(qwen2), {});
    expect(config).toMatchObject({ model_type: 'qwen2', tie_word_embeddings: true, rms_norm_eps: 1e-6 });
    expect(config).not.toHaveProperty('head_dim');
  });

  it('name the scaling of rotary embeddings', async () => {
    const header = await readGgufHeader(llama);
    const rope = (keys: Record<string, unknown>): unknown => ggufConfig(withKeys(header, keys), {})['rope_parameters'];
    expect(rope({})).toEqual({ rope_type: 'default', rope_theta: 10000 });
    expect(rope({ 'llama.rope.scaling.type': 'linear', 'llama.rope.scaling.factor': 4 })).toEqual({
      rope_type: 'linear',
      factor: 4,
      rope_theta: 10000,
    });
    expect(
      rope({
        'llama.rope.scaling.type': 'yarn',
        'llama.rope.scaling.factor': 4,
        'llama.rope.scaling.original_context_length': 64,
      }),
    ).toEqual({ rope_type: 'yarn', factor: 4, rope_theta: 10000, original_max_position_embeddings: 64 });
    expect(() => rope({ 'llama.rope.scaling.type': 'longrope' })).toThrow(/longrope/);
  });

  it("recognise Llama 3's scaling by its table of divisors", async () => {
    const header = await readGgufHeader(llama);
    const frequencies = { name: 'rope_freqs.weight', dtype: 'F32' as const, shape: [8], offset: 0, sizeBytes: 32 };
    const scaled = withKeys(header, { 'llama.rope.freq_base': 500000 });
    const tables = { ...scaled, tensors: new Map([...header.tensors, ['rope_freqs.weight', frequencies]]) };
    // As transformers computes them for theta 500000, head size 16 and factor 8.
    const divisors = [1, 1, 1, 1, 2.6945304, 8, 8, 8];
    expect(ggufConfig(tables, { divisors })['rope_parameters']).toEqual({
      rope_type: 'llama3',
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 8192,
      rope_theta: 500000,
    });
    expect(() => ggufConfig(tables, { divisors: divisors.map((one) => one * 1.1) })).toThrow(/rope_freqs/);
  });

  it('refuse what this engine does not compute, and sizes that the tensors deny', async () => {
    const header = await readGgufHeader(llama);
    const config =
      (keys: Record<string, unknown>): (() => unknown) =>
      () =>
        ggufConfig(withKeys(header, keys), {});
    expect(config({ 'general.architecture': 'gpt2' })).toThrow(/received "gpt2"/);
    expect(config({ 'llama.expert_count': 8 })).toThrow(/llama.expert_count/);
    expect(config({ 'llama.rope.dimension_count': 8 })).toThrow(/llama.rope.dimension_count/);
    expect(config({ 'llama.block_count': undefined })).toThrow(/"llama.block_count" is missing/);
    expect(config({ 'llama.block_count': 1e9 })).toThrow(/1000000000 layers/);
    expect(config({ 'llama.attention.head_count': 'four' })).toThrow(/"llama.attention.head_count" is not a count/);
    expect(config({ 'llama.embedding_length': 128 })).toThrow(/has 64 columns, not 128/);
  });

  it('know every name, and leave an unknown one to be refused', () => {
    expect(huggingFaceName('blk.12.attn_q_norm.weight')).toBe('model.layers.12.self_attn.q_norm.weight');
    expect(huggingFaceName('output.weight')).toBe('lm_head.weight');
    expect(huggingFaceName('blk.0.constructor.weight')).toBe('blk.0.constructor.weight');
    expect(huggingFaceName('toString.weight')).toBe('toString.weight');
  });

  it('write a float32 as people do', () => {
    expect([9.999999747378752e-6, 1e-6, 500000, 0.1].map((value) => shortDecimal(Math.fround(value)))).toEqual([
      1e-5, 1e-6, 500000, 0.1,
    ]);
  });
});

describe('a folder made of a file', () => {
  it('holds configuration, tokenizer and template, and links to the weights', async () => {
    const into = join(folder, 'imported');
    await importGguf(llama, into);
    expect(await readlink(join(into, 'model.gguf'))).toBe(llama);
    const { tensors } = await readCheckpointTensors(into);
    expect(tensors.get('model.layers.0.self_attn.q_proj.weight')).toMatchObject({ dtype: 'Q8_0', interleavedHeads: 4 });
    expect(tensors.get('model.layers.0.self_attn.k_proj.weight')).toMatchObject({ dtype: 'F32', interleavedHeads: 2 });
    expect(tensors.get('model.layers.0.self_attn.v_proj.weight')).not.toHaveProperty('interleavedHeads');
    const tokenizer = await Tokenizer.load(into);
    expect(tokenizer.eosId).toBe(511);
    expect(tokenizer.tokenId('<|im_start|>')).toBe(510);
    const template = await ChatTemplate.load(into);
    const text = template.render([{ role: 'user', content: 'the 12' }], { addGenerationPrompt: true });
    expect(text).toBe('<|im_start|>user\nthe 12<|im_end|>\n<|im_start|>assistant\n');
    expect(tokenizer.decode(tokenizer.encode(text), { skipSpecial: false })).toBe(text);
  });

  it('splits text as `tokenizer.ggml.pre` says', async () => {
    const header = await readGgufHeader(llama);
    const load = async (pre: string | undefined): Promise<Tokenizer> => {
      const into = join(folder, `pre-${pre}`);
      await importGguf(llama, into);
      const definition = JSON.stringify(ggufTokenizer(withKeys(header, { 'tokenizer.ggml.pre': pre })));
      await writeFile(join(into, 'tokenizer.json'), definition);
      return Tokenizer.load(into);
    };
    const pieces = async (pre: string | undefined, text: string): Promise<string[]> => {
      const tokenizer = await load(pre);
      return tokenizer.encode(text).map((id) => tokenizer.decode([id]));
    };
    // "12" is a merge, which the digits of smollm and qwen2 cannot reach; " the" is one in all.
    expect(await pieces('smollm', ' the 12')).toEqual([' the', ' ', '1', '2']);
    expect(await pieces('qwen2', ' the 12')).toEqual([' the', ' ', '1', '2']);
    expect(await pieces('llama-bpe', ' the 12')).toEqual([' the', ' ', '12']);
    expect(await pieces('gpt-2', '12')).toEqual(['12']);
    expect(await pieces(undefined, '12')).toEqual(['12']);
    // Two line ends are one word in the patterns of GPT-4's line, and two pieces of blanks before a word in GPT-2's.
    expect(await pieces('qwen2', '\n\nthe')).toEqual(['\n\n', 't', 'he']);
    expect(await pieces('gpt-2', '\n\nthe')).toEqual(['\n', '\n', 't', 'he']);
  });

  it('refuses other tokenizers and broken vocabularies', async () => {
    const header = await readGgufHeader(llama);
    const make =
      (keys: Record<string, unknown>): (() => unknown) =>
      () =>
        ggufTokenizer(withKeys(header, keys));
    expect(make({ 'tokenizer.ggml.model': 'llama' })).toThrow(/received "llama"/);
    expect(make({ 'tokenizer.ggml.pre': 'tekken' })).toThrow(/received "tekken"/);
    expect(make({ 'tokenizer.ggml.merges': ['no pe'] })).toThrow(/merge 0/);
    expect(make({ 'tokenizer.ggml.tokens': ['a', 'a'], 'tokenizer.ggml.token_type': undefined })).toThrow(
      /there twice/,
    );
    expect(make({ 'tokenizer.ggml.token_type': new Int32Array(3) })).toThrow(/has 3 entries for 512 tokens/);
  });

  it('comes from the cache the second time, and anew for a file that was replaced', async () => {
    const before = process.env['XDG_CACHE_HOME'];
    process.env['XDG_CACHE_HOME'] = join(folder, 'cache');
    try {
      const file = join(folder, 'moved.gguf');
      await writeFile(file, await readFile(llama));
      const [one, two] = await Promise.all([ggufFolder(file), ggufFolder(file)]);
      expect(one).toBe(two);
      expect(await ggufFolder(file)).toBe(one);
      await writeFile(file, await readFile(qwen2));
      const other = await ggufFolder(file);
      expect(other).not.toBe(one);
      expect(await readFile(join(other, 'config.json'), 'utf8')).toContain('qwen2');
      await truncate(file, 5000);
      await expect(readCheckpointTensors(other)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
      await rm(file);
      await expect(readCheckpointTensors(other)).rejects.toThrow(/model\.gguf/);
      await expect(ggufFolder(file)).rejects.toMatchObject({ code: 'io' });
    } finally {
      if (before === undefined) delete process.env['XDG_CACHE_HOME'];
      else process.env['XDG_CACHE_HOME'] = before;
    }
  });
});
