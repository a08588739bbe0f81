// Weights of GGUF files in the engine: blocks dequantized and rows put back in order while they are read.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEngine, type Model } from '../../src/engine/index.js';
import { readCheckpointTensors, readSafetensorsHeader, readTensor } from '../../src/engine/safetensors.js';
import { goldens, sameBits, temporaryFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
let model: Model;
let cache = '';
const cacheBefore = process.env['XDG_CACHE_HOME'];
beforeAll(async () => {
  cache = await mkdtemp(join(tmpdir(), 'gavel-gguf-'));
  process.env['XDG_CACHE_HOME'] = cache;
  model = await engine.loadModel(join(goldens, 'gguf/micro-llama.gguf'));
});
afterAll(async () => {
  await engine.dispose();
  await rm(cache, { recursive: true });
  if (cacheBefore === undefined) delete process.env['XDG_CACHE_HOME'];
  else process.env['XDG_CACHE_HOME'] = cacheBefore;
});

describe('a GGUF model', () => {
  it('has the rows of q and k in the order of Hugging Face, bit for bit', async () => {
    const { tensors } = await readSafetensorsHeader(join(goldens, 'gguf/models.safetensors'));
    expect(tensors.size).toBe(2);
    for (const [name, entry] of tensors) {
      const expected = (await readTensor(entry)) as Float32Array;
      expect(sameBits(await model.readTensor(name.replace('llama.', '')), expected), name).toBe(true);
    }
  });

  it('is the checkpoint it was made of, up to the rounding of its storage types', async () => {
    const { tensors } = await readCheckpointTensors(join(goldens, 'micro-llama'));
    for (const { name } of model.tensors()) {
      const [expected, values] = [(await readTensor(tensors.get(name)!)) as Float32Array, await model.readTensor(name)];
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - values[i]!)), 0);
      // Four bits have 16 steps over the range of a block; norms are fp32.
      expect(worst, name).toBeLessThanOrEqual(name.includes('norm') ? 0 : largest / 7);
    }
  });

  it('samples, and is saved as a folder that loads with the same weights', async () => {
    const prompt = { id: 1, promptTokens: Int32Array.of(5, 9, 33), maxNewTokens: 4 };
    const drawn = await model.sample([prompt], { temperature: 0 }).completions();
    const folder = join(await temporaryFolder(), 'exported');
    await model.exportHf(folder);
    expect(JSON.parse(await readFile(join(folder, 'tokenizer_config.json'), 'utf8'))).toMatchObject({
      eos_token: '<|im_end|>',
    });
    const again = await engine.loadModel(folder);
    for (const { name } of model.tensors()) {
      expect(sameBits(await again.readTensor(name), await model.readTensor(name)), name).toBe(true);
    }
    expect((await again.sample([prompt], { temperature: 0 }).completions())[0]!.tokens).toEqual(drawn[0]!.tokens);
    await again.dispose();
  });

  it('of the qwen2 architecture is tied and not reordered', async () => {
    const qwen = await engine.loadModel(join(goldens, 'gguf/micro-qwen2.gguf'), { dtype: 'bf16' });
    const { tensors } = await readCheckpointTensors(join(goldens, 'micro-text'));
    const name = 'model.layers.0.self_attn.k_proj.weight';
    const expected = (await readTensor(tensors.get(name)!)) as Float32Array;
    const values = await qwen.readTensor(name);
    // fp32 in the file, rounded once to bf16.
    for (const [i, value] of values.entries())
      expect(Math.abs(value - expected[i]!)).toBeLessThanOrEqual(Math.abs(expected[i]!) / 256);
    expect(qwen.tensors().map((tensor) => tensor.name)).not.toContain('lm_head.weight');
    await qwen.dispose();
  });

  it('refuses heads that do not divide the rows, and blocks that do not divide the columns', async () => {
    const { tensors } = await readCheckpointTensors(join(goldens, 'gguf/micro-llama.gguf'));
    const name = 'model.layers.0.self_attn.q_proj.weight';
    const { path, offset, sizeBytes } = tensors.get(name)!;
    const source = { name, kind: 'value' as const, path, offset, sizeBytes, dtype: 'Q8_0' as const };
    const { native } = model.parts;
    await expect(native.loadTensors([{ ...source, interleavedHeads: 3 }])).rejects.toThrow(/each of 3 heads/);
    await expect(native.loadTensors([{ ...source, dtype: 'Q6_K' }])).rejects.toThrow(/whole blocks of 256/);
    await expect(native.loadTensors([source, source])).rejects.toThrow(/twice/);
    await expect(native.loadTensors([{ ...source, kind: 'merged' }])).rejects.toMatchObject({
      code: 'invalid_argument',
    });
  });
});
