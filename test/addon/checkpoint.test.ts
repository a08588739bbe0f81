// Checkpoints: what is saved and loaded again is equal bit for bit; what is broken says so and loses nothing.
import { access, chmod, copyFile, mkdir, readdir, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Model } from '../../src/engine/index.js';
import { modelSpec } from '../../src/engine/model-config.js';
import { readSafetensorsHeader, writeSafetensorsHeader } from '../../src/engine/safetensors.js';
import { canonicalName } from '../../src/engine/tensor-names.js';
import { sameBits, temporaryFolder, textFolder, textGroup, visionFolder, visionGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

async function trainTwice(model: Model): Promise<void> {
  for (let step = 0; step < 2; step++) {
    await model.forwardBackward([textGroup(step)], [{ kind: 'nll' }]);
    await model.optimizerStep({ learningRate: 1e-3 });
  }
}

const bytesOf = (folder: string, name: string): Promise<Buffer> => readFile(join(folder, name));

/** Rewrites a checkpoint's weights with other names, shapes or dtypes in the header. */
async function rewriteHeader(
  from: string,
  into: string,
  change: (
    tensors: { name: string; dtype: 'F32'; shape: number[] }[],
  ) => { name: string; dtype: 'F32'; shape: number[] }[],
): Promise<void> {
  await mkdir(into, { recursive: true });
  await copyFile(join(from, 'config.json'), join(into, 'config.json'));
  const path = join(from, 'model.safetensors');
  const { tensors } = await readSafetensorsHeader(path);
  const order = [...tensors].sort((a, b) => a[1].offset - b[1].offset);
  const data = (await readFile(path)).subarray(order[0]![1].offset);
  const plans = change(order.map(([name, { shape }]) => ({ name, dtype: 'F32', shape })));
  await writeFile(join(into, 'model.safetensors'), Buffer.concat([writeSafetensorsHeader(plans), data]));
}

describe('loading', () => {
  it('reads the golden weights exactly', async () => {
    const model = await engine.loadModel(textFolder);
    const { tensors } = await readSafetensorsHeader(join(textFolder, 'model.safetensors'));
    const file = await readFile(join(textFolder, 'model.safetensors'));
    for (const { name, shape } of model.tensors()) {
      const entry = tensors.get(name)!;
      expect(shape).toEqual(entry.shape);
      const bytes = Uint8Array.from(file.subarray(entry.offset, entry.offset + entry.sizeBytes));
      expect(sameBits(await model.readTensor(name), new Float32Array(bytes.buffer)), name).toBe(true);
    }
    await model.dispose();
  });

  it('knows the names of newer checkpoints', async () => {
    const folder = await temporaryFolder();
    const renamed = (name: string): string =>
      name.startsWith('visual.') ? `model.${name}` : name.replace(/^model\./, 'model.language_model.');
    await rewriteHeader(visionFolder, folder, (tensors) => tensors.map((one) => ({ ...one, name: renamed(one.name) })));
    const [old, current] = [await engine.loadModel(visionFolder), await engine.loadModel(folder)];
    expect((await current.logprobs([visionGroup()])).logprobs).toEqual((await old.logprobs([visionGroup()])).logprobs);
    await old.dispose();
    await current.dispose();
    expect(canonicalName('language_model.model.norm.weight')).toBe('model.norm.weight');
    for (const [name, canonical] of [
      ['model.language_model.norm.weight', 'model.norm.weight'],
      ['norm.weight', 'model.norm.weight'],
      ['layers.0.mlp.up_proj.weight', 'model.layers.0.mlp.up_proj.weight'],
      ['language_model.lm_head.weight', 'lm_head.weight'],
      ['model.visual.merger.norm.weight', 'visual.merger.norm.weight'],
      ['model.vision_tower.encoder.layers.0.mlp.fc1.bias', 'vision_tower.encoder.layers.0.mlp.fc1.bias'],
      ['vision_tower.vision_model.encoder.layers.0.mlp.fc1.bias', 'vision_tower.encoder.layers.0.mlp.fc1.bias'],
      ['model.multi_modal_projector.linear_1.weight', 'multi_modal_projector.linear_1.weight'],
      ['model.image_newline', 'image_newline'],
    ] as const) {
      expect(canonicalName(name)).toBe(canonical);
    }
  });

  it.each([
    [
      'missing',
      'these are missing: model.norm.weight',
      (name: string) => (name === 'model.norm.weight' ? 'model.other.weight' : name),
    ],
    [
      'unexpected',
      'these are',
      (name: string) => (name === 'model.layers.1.self_attn.v_proj.bias' ? 'model.layers.2.bias' : name),
    ],
  ])('names tensors that are %s', async (_case, text, rename) => {
    const folder = await temporaryFolder();
    await rewriteHeader(textFolder, folder, (tensors) => tensors.map((one) => ({ ...one, name: rename(one.name) })));
    const refusal = engine.loadModel(folder);
    await expect(refusal).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await expect(refusal).rejects.toThrow(text);
  });

  it('names tensors of another shape', async () => {
    const folder = await temporaryFolder();
    await rewriteHeader(textFolder, folder, (tensors) =>
      tensors.map((one) => (one.name === 'model.norm.weight' ? { ...one, shape: [8, 8] } : one)),
    );
    await expect(engine.loadModel(folder)).rejects.toThrow(/model\.norm\.weight is \[8, 8\], not \[64\]/);
  });

  it('refuses a truncated file, an absent folder and broken JSON', async () => {
    const folder = await temporaryFolder();
    await expect(engine.loadModel(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'io' });
    for (const name of ['config.json', 'model.safetensors']) await copyFile(join(textFolder, name), join(folder, name));
    await truncate(join(folder, 'model.safetensors'), 200_000);
    await expect(engine.loadModel(folder)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await writeFile(join(folder, 'config.json'), '{');
    await expect(engine.loadModel(folder)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
  });

  it('a file that shrinks after its header was read is corrupt, not a crash', async () => {
    const folder = await temporaryFolder();
    const path = join(folder, 'model.safetensors');
    await copyFile(join(textFolder, 'model.safetensors'), path);
    const { tensors } = await readSafetensorsHeader(path);
    await truncate(path, 100_000);
    const model = await engine.loadModel(textFolder);
    const sources = [...tensors].map(([name, { offset, sizeBytes }]) => ({
      name,
      kind: 'value' as const,
      path,
      offset,
      sizeBytes,
      dtype: 'F32' as const,
    }));
    const refusal = model.parts.native.loadTensors(sources);
    await expect(refusal).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await expect(refusal).rejects.toThrow(/the file ends there/);
    await model.dispose();
  });

  it('widens BF16 and F16 exactly', async () => {
    const folder = await temporaryFolder();
    const values = [1, -2.5, 0.0009765625, 5.960464477539063e-8, 65504, -0];
    const halves = Uint16Array.of(0x3c00, 0xc100, 0x1400, 0x0001, 0x7bff, 0x8000);
    const file = join(folder, 'half.bin');
    const padded = new Uint16Array(64);
    padded.set(halves);
    await writeFile(file, Buffer.from(padded.buffer));
    const model = await engine.loadModel(textFolder);
    await model.parts.native.loadTensors([
      { name: 'model.norm.weight', kind: 'value', path: file, offset: 0, sizeBytes: 128, dtype: 'F16' },
    ]);
    expect([...(await model.readTensor('model.norm.weight')).subarray(0, 6)]).toEqual(values);
    await model.parts.native.loadTensors([
      { name: 'model.norm.weight', kind: 'value', path: file, offset: 0, sizeBytes: 128, dtype: 'BF16' },
    ]);
    const wide = new Float32Array(Uint32Array.from(padded, (bits) => bits << 16).buffer);
    expect(await model.readTensor('model.norm.weight')).toEqual(wide);
    await model.dispose();
  });

  it('refuses arithmetic it does not have', () => {
    const config = { model_type: 'qwen2', hidden_size: 64 };
    for (const change of [
      { hidden_act: 'gelu' },
      { model_type: 'gpt2' },
      { model_type: 'mistral' },
      { model_type: 'mistral', sliding_window: 4096 },
      { use_sliding_window: true },
      { layer_types: ['full_attention', 'sliding_attention'] },
    ]) {
      expect(() => modelSpec({ ...config, ...change }, 'fp32')).toThrow(
        expect.objectContaining({ code: 'unsupported' }),
      );
    }
    expect(() => modelSpec({}, 'fp32')).toThrow(expect.objectContaining({ code: 'invalid_config' }));
    const { numbers } = modelSpec(
      { ...config, text_config: { hidden_size: 32 }, rope_theta: 5, use_cache: true },
      'fp32',
    );
    expect(numbers).toMatchObject({ hidden_size: 32, 'rope_parameters.rope_theta': 5, use_cache: 1 });
  });

  it('brings older spellings of a config into the newest', () => {
    const rope = { factor: 4, original_max_position_embeddings: 32 };
    const old = modelSpec(
      { model_type: 'llama', rope_theta: 500, rope_scaling: { type: 'yarn', ...rope }, rope_parameters: { factor: 9 } },
      'fp32',
    );
    const now = modelSpec(
      { model_type: 'llama', rope_parameters: { rope_type: 'yarn', rope_theta: 500, ...rope } },
      'fp32',
    );
    expect(old.texts!['rope_parameters.rope_type']).toBe('yarn');
    const { rope_theta: _top, ...numbers } = old.numbers;
    expect(numbers).toEqual(now.numbers);
    const nested = modelSpec(
      {
        model_type: 'llava_onevision',
        image_grid_pinpoints: [
          [28, 28],
          [28, 56],
        ],
        vision_aspect_ratio: 'anyres_max_9',
        tie_word_embeddings: false,
        text_config: { model_type: 'qwen2', tie_word_embeddings: true, rope_theta: 7 },
      },
      'fp32',
    );
    expect(nested.numbers).toMatchObject({
      image_grid_pinpoints: [28, 28, 28, 56],
      tie_word_embeddings: 1,
      'rope_parameters.rope_theta': 7,
    });
    expect(nested.texts).toMatchObject({ vision_aspect_ratio: 'anyres_max_9', model_type: 'qwen2' });
    expect(modelSpec({ model_type: 'mistral', sliding_window: null }, 'fp32').family).toBe('llama');
    expect(modelSpec({ model_type: 'qwen3_vl_text' }, 'fp32').family).toBe('qwen3');
  });
});

describe('creating', () => {
  it('gives the same weights for the same config and seed', async () => {
    const config = JSON.parse(await readFile(join(visionFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
    const [a, b, c] = [
      await engine.createModel(config, { seed: 5 }),
      await engine.createModel(config, { seed: 5 }),
      await engine.createModel(config, { seed: 6 }),
    ];
    const name = 'model.layers.0.mlp.up_proj.weight';
    const values = await a.readTensor(name);
    expect(sameBits(await b.readTensor(name), values)).toBe(true);
    expect(sameBits(await c.readTensor(name), values)).toBe(false);
    const std = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
    expect(std).toBeGreaterThan(0.019);
    expect(std).toBeLessThan(0.021);
    for (const model of [a, b, c]) await model.dispose();
  });
});

describe('saving', () => {
  it.each(['fp32', 'bf16'] as const)('restores weights, optimizer and the next step bit for bit: %s', async (dtype) => {
    const folder = join(await temporaryFolder(), 'checkpoint');
    const model = await engine.loadModel(textFolder, { dtype });
    await trainTwice(model);
    await model.save(folder);
    const restored = await engine.loadModel(textFolder, { dtype });
    await restored.load(folder);
    expect(restored.optimizerSteps).toBe(2);
    const fresh = await engine.loadModel(folder);
    expect(fresh.dtype).toBe(dtype);
    await fresh.load(folder);
    for (const one of [model, restored, fresh]) {
      await one.forwardBackward([textGroup(3)], [{ kind: 'nll' }]);
      await one.optimizerStep({ learningRate: 1e-3 });
    }
    const kinds =
      dtype === 'bf16'
        ? (['value', 'master', 'moment1', 'moment2'] as const)
        : (['value', 'moment1', 'moment2'] as const);
    for (const { name } of model.tensors()) {
      for (const kind of kinds) {
        const expected = await model.readTensor(name, kind);
        expect(sameBits(await restored.readTensor(name, kind), expected), `${kind} of ${name}`).toBe(true);
        expect(sameBits(await fresh.readTensor(name, kind), expected), `${kind} of ${name}`).toBe(true);
      }
    }
    for (const one of [model, restored, fresh]) await one.dispose();
  });

  it('writes a folder that transformers loads: config, weights, tokenizer and processor files', async () => {
    const folder = join(await temporaryFolder(), 'export');
    const model = await engine.loadModel(visionFolder);
    await model.exportHf(folder);
    expect((await readdir(folder)).sort()).toEqual((await readdir(visionFolder)).sort());
    for (const name of ['config.json', 'tokenizer.json', 'preprocessor_config.json']) {
      const [written, original] = [await bytesOf(folder, name), await bytesOf(visionFolder, name)];
      expect(JSON.parse(written.toString())).toEqual(JSON.parse(original.toString()));
    }
    const [written, original] = await Promise.all(
      [folder, visionFolder].map((one) => readSafetensorsHeader(join(one, 'model.safetensors'))),
    );
    expect(written!.metadata).toEqual({ format: 'pt' });
    expect(new Map([...written!.tensors].map(([name, { shape }]) => [name, shape]))).toEqual(
      new Map([...original!.tensors].map(([name, { shape }]) => [name, shape])),
    );
    const again = await engine.loadModel(folder);
    expect((await again.logprobs([visionGroup()])).logprobs).toEqual((await model.logprobs([visionGroup()])).logprobs);
    await again.dispose();
    await model.dispose();
  });

  it('replaces an older checkpoint, fills an empty folder, and refuses a folder of something else', async () => {
    const parent = await temporaryFolder();
    const folder = join(parent, 'model');
    const model = await engine.loadModel(textFolder);
    await mkdir(folder);
    await model.save(folder);
    await writeFile(join(folder, 'stale.txt'), 'old');
    await model.save(folder, { optimizer: false });
    expect(await readdir(folder)).not.toContain('stale.txt');
    expect(await readdir(folder)).not.toContain('optimizer.safetensors');
    expect(await readdir(parent)).toEqual(['model']);
    const own = join(parent, 'thesis');
    await mkdir(own);
    await writeFile(join(own, 'chapter.txt'), 'precious');
    await expect(model.save(own)).rejects.toMatchObject({ code: 'invalid_argument' });
    expect(await readFile(join(own, 'chapter.txt'), 'utf8')).toBe('precious');
    await model.dispose();
  });

  it('says disk_full and permission_denied, and keeps what was there', async () => {
    const model = await engine.loadModel(textFolder);
    const { native } = model.parts;
    const sinks = model.tensors().map(({ name }) => ({ name, kind: 'value' as const, dtype: 'F32' as const }));
    await expect(native.saveTensors('/dev/full', new Uint8Array(8), sinks)).rejects.toMatchObject({
      code: 'disk_full',
    });
    await access('/dev/full');
    const parent = await temporaryFolder();
    const folder = join(parent, 'model');
    await model.save(folder);
    const before = await bytesOf(folder, 'model.safetensors');
    // A file where the parent folder should be fails for every user, root included.
    await expect(model.save(join(folder, 'config.json', 'deeper'))).rejects.toMatchObject({ code: 'io' });
    expect(before.equals(await bytesOf(folder, 'model.safetensors'))).toBe(true);
    if (process.getuid?.() !== 0) {
      await chmod(parent, 0o500);
      await expect(model.save(folder)).rejects.toMatchObject({ code: 'permission_denied' });
      await chmod(parent, 0o700);
    }
    await model.dispose();
  });

  it('removes the file of a save that fails', async () => {
    const path = join(await temporaryFolder(), 'partial.safetensors');
    const model = await engine.loadModel(textFolder);
    const sinks = [
      { name: 'model.norm.weight', kind: 'value' as const, dtype: 'F32' as const },
      { name: 'model.norm.weight', kind: 'moment1' as const, dtype: 'F32' as const },
    ];
    await expect(model.parts.native.saveTensors(path, new Uint8Array(8), sinks)).rejects.toMatchObject({
      code: 'invalid_argument',
    });
    await expect(stat(path)).rejects.toMatchObject({ code: 'ENOENT' });
    await model.dispose();
  });

  it('freezes a copy of the weights, or those of a folder', async () => {
    const folder = join(await temporaryFolder(), 'start');
    const model = await engine.loadModel(textFolder);
    await model.save(folder);
    await trainTwice(model);
    const [now, start] = [await model.freeze(), await model.freeze(folder)];
    expect(now.tensors().some(({ trainable }) => trainable)).toBe(false);
    expect((await now.logprobs([textGroup()])).logprobs).toEqual((await model.logprobs([textGroup()])).logprobs);
    const golden = await engine.loadModel(textFolder);
    expect((await start.logprobs([textGroup()])).logprobs).toEqual((await golden.logprobs([textGroup()])).logprobs);
    for (const one of [now, start, golden, model]) await one.dispose();
  });
});
