// What a trained weight keeps between steps: every kind of optimizer state trains, is counted, and resumes bit for bit.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type LoadModelOptions, type Model } from '../../src/engine/index.js';
import { readSafetensorsHeader } from '../../src/engine/safetensors.js';
import { sameBits, temporaryFolder, textFolder, textGroup, visionFolder, visionGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

interface Settings {
  dtype: 'fp32' | 'bf16';
  optimizer: NonNullable<LoadModelOptions['optimizer']>;
}
const kinds = (['fp32', 'bf16', 'int8'] as const).flatMap((states): Settings[] => [
  { dtype: 'fp32', optimizer: { states } },
  { dtype: 'bf16', optimizer: { states, weights: 'master' } },
  { dtype: 'bf16', optimizer: { states, weights: 'stochastic', seed: 3 } },
]);
const named = kinds.map((settings): [string, Settings] => [
  `${settings.dtype} weights${settings.optimizer.weights === 'stochastic' ? ' rounded stochastically' : ''}, ${settings.optimizer.states} moments`,
  settings,
]);

async function train(model: Model, from: number, to: number): Promise<number> {
  let loss = 0;
  for (let step = from; step < to; step++) {
    ({ loss } = await model.forwardBackward([textGroup(step % 3)], [{ kind: 'nll' }]));
    await model.optimizerStep({ learningRate: 3e-3, beta2: 0.95, weightDecay: 0.1 });
  }
  return loss;
}

async function expectSame(a: Model, b: Model, withMaster: boolean): Promise<void> {
  for (const { name } of a.tensors()) {
    for (const kind of ['value', 'moment1', 'moment2', ...(withMaster ? (['master'] as const) : [])] as const) {
      expect(sameBits(await b.readTensor(name, kind), await a.readTensor(name, kind)), `${kind} of ${name}`).toBe(true);
    }
  }
}

describe('optimizer states', () => {
  it.each(named)('resume bit for bit: %s', async (_name, settings) => {
    const folder = join(await temporaryFolder(), 'checkpoint');
    const model = await engine.loadModel(textFolder, settings);
    await train(model, 0, 2);
    await model.save(folder);
    const restored = await engine.loadModel(folder, settings);
    await restored.load(folder);
    await expectSame(model, restored, settings.dtype === 'bf16' && settings.optimizer.weights === 'master');
    await train(model, 2, 5);
    await train(restored, 2, 5);
    await expectSame(model, restored, settings.dtype === 'bf16' && settings.optimizer.weights === 'master');
    await model.dispose();
    await restored.dispose();
  });

  it.each(['int8', 'bf16'] as const)('resume the adapter of a run bit for bit: %s', async (states) => {
    const folder = join(await temporaryFolder(), 'checkpoint');
    const optimizer = { states, weights: 'stochastic' } as const;
    const settings = { dtype: 'bf16', optimizer, lora: { rank: 4, targets: ['q_proj', 'v_proj', 'mlp'] } } as const;
    const open = (): Promise<Model> =>
      engine.loadModel(textFolder, { ...settings, lora: { ...settings.lora, targets: [...settings.lora.targets] } });
    const [model, restored] = [await open(), await open()];
    await train(model, 0, 2);
    await model.save(folder);
    await restored.load(folder);
    await train(model, 2, 4);
    await train(restored, 2, 4);
    const parts = model.tensors().filter(({ adapter }) => adapter);
    expect(parts.length).toBeGreaterThan(10);
    for (const { name } of parts) {
      for (const kind of ['value', 'moment1', 'moment2'] as const) {
        const expected = await model.readTensor(name, kind);
        expect(sameBits(await restored.readTensor(name, kind), expected), `${kind} of ${name}`).toBe(true);
      }
    }
    await model.dispose();
    await restored.dispose();
  });

  it.each(named)('train as fp32 does: %s', async (_name, settings) => {
    const [plain, model] = [await engine.loadModel(textFolder), await engine.loadModel(textFolder, settings)];
    const [first, expected, actual] = [await train(plain, 0, 1), await train(plain, 1, 40), await train(model, 0, 40)];
    expect(expected).toBeLessThan(first / 4);
    // Of the way that fp32 went down.
    expect(Math.abs(actual - expected) / (first - expected)).toBeLessThan(0.03);
    await plain.dispose();
    await model.dispose();
  });

  it('take the bytes that they promise', async () => {
    const bytes: Record<string, number> = {};
    for (const states of ['fp32', 'bf16', 'int8'] as const) {
      const model = await engine.loadModel(textFolder, { dtype: 'bf16', optimizer: { states, weights: 'stochastic' } });
      const before = model.memory().weightBytes;
      await train(model, 0, 1);
      expect(model.memory().weightBytes).toBe(before);
      bytes[states] = model.memory().optimizerBytes;
      await model.dispose();
    }
    expect(bytes['bf16']).toBe(bytes['fp32']! / 2);
    expect(bytes['int8']! / bytes['fp32']!).toBeCloseTo((2 + 8 / 256) / 8, 2);
  });

  it('save 8-bit moments as codes and scales, once a fused parameter', async () => {
    const folder = join(await temporaryFolder(), 'checkpoint');
    const model = await engine.loadModel(visionFolder, { optimizer: { states: 'int8' } });
    await model.forwardBackward([visionGroup()], [{ kind: 'nll' }]);
    await model.optimizerStep({ learningRate: 1e-3 });
    await model.save(folder);
    const { tensors, metadata } = await readSafetensorsHeader(join(folder, 'optimizer.safetensors'));
    expect(metadata).toMatchObject({ step: '1', dtype: 'fp32', states: 'int8' });
    const entries = [...tensors].map(([name, { dtype, shape }]) => [name, dtype, shape]);
    expect(entries).toContainEqual(['codes1.model.layers.0.self_attn.k_proj.weight', 'U8', [32, 64]]);
    expect(tensors.has('scales1.model.layers.0.self_attn.q_proj.weight')).toBe(true);
    expect(tensors.has('scales1.model.layers.0.self_attn.k_proj.weight')).toBe(false);
    const other = await engine.loadModel(visionFolder, { optimizer: { states: 'int8' } });
    await other.load(folder);
    await expectSame(model, other, false);
    await model.dispose();
    await other.dispose();
  });

  it('refuse the file of other settings, a file that lacks a tensor, and a moment that is written from outside', async () => {
    const folder = join(await temporaryFolder(), 'checkpoint');
    const model = await engine.loadModel(textFolder, { optimizer: { states: 'int8' } });
    await train(model, 0, 1);
    await model.save(folder);
    const other = await engine.loadModel(textFolder, { optimizer: { states: 'bf16' } });
    const refusal = other.load(folder);
    await expect(refusal).rejects.toMatchObject({ code: 'invalid_argument', fields: { name: 'states' } });
    await expect(refusal).rejects.toThrow(/Expected an optimizer state with states "bf16" .* but received "int8"/);
    const norm = new Float32Array(64);
    await expect(model.writeTensor('model.norm.weight', 'moment1', norm)).rejects.toMatchObject({
      code: 'unsupported',
    });
    const path = join(folder, 'optimizer.safetensors');
    const text = await readFile(path, 'latin1');
    await writeFile(path, text.replace('codes2.model.norm.weight', 'codes2.model.morn.weight'), 'latin1');
    await expect(model.load(folder)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await expect(model.load(folder)).rejects.toThrow(/"codes2.model.morn.weight" is no optimizer state/);
    await model.dispose();
    await other.dispose();
  });

  it('start anew with resetOptimizer()', async () => {
    for (const states of ['fp32', 'int8'] as const) {
      const model = await engine.loadModel(textFolder, { optimizer: { states } });
      await train(model, 0, 2);
      await model.resetOptimizer();
      expect(model.optimizerSteps).toBe(0);
      const moment = await model.readTensor('model.layers.0.mlp.down_proj.weight', 'moment2');
      expect(moment.every((value) => value === 0)).toBe(true);
      await model.dispose();
    }
  });

  it.each([
    ['matrices', ['matrix']],
    ['all', ['matrix', 'embedding', 'norm', 'bias']],
  ] as const)('decay %s alone', async (decayParameters, decayed) => {
    const model = await engine.loadModel(visionFolder);
    const values = new Map<string, Float32Array>();
    for (const { name } of model.tensors()) values.set(name, await model.readTensor(name));
    // Zero gradients: what moves is decay.
    await model.optimizerStep({ learningRate: 0.5, weightDecay: 0.5, decayParameters });
    const kinds = new Set<string>();
    for (const { name, kind } of model.tensors()) {
      kinds.add(kind);
      const factor = (decayed as readonly string[]).includes(kind) ? 0.75 : 1;
      const expected = values.get(name)!.map((value) => value * factor);
      expect(sameBits(await model.readTensor(name), expected), `${kind} ${name}`).toBe(true);
    }
    expect([...kinds].sort()).toEqual(['bias', 'embedding', 'matrix', 'norm']);
    await model.dispose();
  });

  it('are checked against the dtype', async () => {
    const refusal = engine.loadModel(textFolder, { dtype: 'fp32', optimizer: { weights: 'stochastic' } });
    await expect(refusal).rejects.toMatchObject({ code: 'invalid_argument' });
    await expect(refusal).rejects.toThrow(/Expected 'master' for `optimizer.weights` of an fp32 model/);
  });
});
