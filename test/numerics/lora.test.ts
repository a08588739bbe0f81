import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEngine, type Engine } from '../../src/engine/engine.js';
import type { Group, Model } from '../../src/engine/model.js';
import type { LoadModelOptions, Objective } from '../../src/engine/options.js';
import { Golden, goldenFolder, maxAbsolute, relativeL2 } from './golden.js';

/** How far the engine may be from float64, in units of what PyTorch's own float32 run is off (stated in the golden). */
const factor = 8;
const cases = ['list', 'rslora', 'all-linear', 'pattern', 'tokens'] as const;
const base = `${goldenFolder}micro-text`;
const nll: Objective = { kind: 'nll' };

/** The engine's name of a tensor that PEFT names. */
const engineName = (name: string): string => name.replace('.token_adapter.trainable_tokens_delta', '.trainable_tokens');

describe('low-rank adapters against PEFT (scripts/goldens/adapters.py)', () => {
  let engine: Engine;
  let golden: Golden;
  let folder: string;
  beforeAll(async () => {
    engine = await createEngine({ threads: 2 });
    golden = await Golden.open('lora');
    folder = mkdtempSync(join(tmpdir(), 'gavel-lora-'));
  });
  afterAll(async () => {
    await engine.dispose();
    rmSync(folder, { recursive: true });
  });

  interface GoldenRow {
    prompt_ids: number[];
    completion_ids: number[];
  }
  const rows = (): GoldenRow[] => golden.json.rows as GoldenRow[];
  const plain = (temperature = 1): Group[] =>
    rows().map(({ prompt_ids, completion_ids }) => ({
      promptTokens: Int32Array.from(prompt_ids),
      images: [],
      completions: [{ tokens: Int32Array.from(completion_ids), temperature }],
    }));
  const load = (name: string): Promise<Model> => engine.loadModel(base, { adapter: `${goldenFolder}lora-${name}` });

  it.each(cases)('%s: log-probs, GRPO and LM losses and gradients', async (name) => {
    const model = await load(name);
    const { grpo_config, grpo_loss_64, lm_loss_64, lm_grad_samples, errors_of_torch_float32 } = golden.json.cases[name];
    const want = (suffix: string) => golden.tensor(`${name}.${suffix}`);
    const { logprobs, entropies } = await model.logprobs(plain(0.9), { entropy: true });
    const { logps, entropies: entropyError, grpo_grads, lm_grads } = errors_of_torch_float32;
    expect(maxAbsolute(logprobs, (await want('logps_64')).data)).toBeLessThan(factor * logps.max_abs);
    expect(maxAbsolute(entropies, (await want('entropies_64')).data)).toBeLessThan(
      factor * entropyError.max_abs + 1e-6,
    );

    const old = (await want('old_per_token_logps')).data;
    const reference = (await want('ref_per_token_logps')).data;
    const advantages = (await want('advantages')).data;
    let at = 0;
    const groups = plain(grpo_config.temperature).map((group, i): Group => {
      const [{ tokens, temperature } = { tokens: new Int32Array(0), temperature: 1 }] = group.completions;
      const range = [at, (at += tokens.length)] as const;
      const oldLogprobs = Float32Array.from(old.subarray(...range));
      const referenceLogprobs = Float32Array.from(reference.subarray(...range));
      return {
        ...group,
        completions: [
          { tokens, temperature: temperature ?? 1, advantage: advantages[i]!, oldLogprobs, referenceLogprobs },
        ],
      };
    });
    const { loss_type: lossType, epsilon, epsilon_high: epsilonHigh, beta } = grpo_config;
    const objective: Objective = {
      kind: 'grpo',
      lossType,
      epsilonLow: epsilon,
      epsilonHigh,
      beta,
      klBiasCorrection: golden.json.cases[name].grpo_config.kl_bias_correction ?? true,
      klClamp: 0,
    };
    const grpo = await model.forwardBackward(groups, [objective]);
    expect(Math.abs(grpo.loss - grpo_loss_64)).toBeLessThan(5e-6);
    const gradients = golden.names(`${name}.grpo_grad.`);
    expect(gradients.length).toBe(model.tensors().filter(({ adapter }) => adapter).length);
    for (const stored of gradients) {
      const tensor = stored.slice(`${name}.grpo_grad.`.length);
      const got = await model.readTensor(engineName(tensor), 'gradient');
      expect(relativeL2(got, (await golden.tensor(stored)).data), tensor).toBeLessThan(
        factor * grpo_grads[tensor].rel_l2 + 1e-6,
      );
    }
    await model.zeroGradients();
    const lm = await model.forwardBackward(plain(), [nll]);
    expect(Math.abs(lm.loss - lm_loss_64)).toBeLessThan(5e-6);
    for (const [tensor, { at: places, values, norm }] of Object.entries<any>(lm_grad_samples)) {
      const got = await model.readTensor(engineName(tensor), 'gradient');
      const bound = factor * lm_grads[tensor].max_abs + 2e-6;
      expect(Math.abs(Math.hypot(...got) - norm), tensor).toBeLessThan(bound * 4);
      for (const [i, place] of (places as number[]).entries()) {
        expect(Math.abs(got[place]! - values[i]), `${tensor}[${place}]`).toBeLessThan(bound);
      }
    }
    // A frozen weight has no gradient at all.
    await expect(model.readTensor('model.layers.0.input_layernorm.weight', 'gradient')).rejects.toThrow(/trainable/);
    await model.dispose();
  });

  it('with the adapter off the policy is the base model, bit for bit', async () => {
    const plainModel = await engine.loadModel(base);
    const want = await plainModel.logprobs(plain(0.9));
    expect(maxAbsolute(want.logprobs, (await golden.tensor('adapter_off.logps_64')).data)).toBeLessThan(3e-5);
    for (const name of ['list', 'tokens']) {
      const model = await load(name);
      const on = await model.logprobs(plain(0.9));
      const off = await model.logprobs(plain(0.9), { adapter: 'off' });
      expect(off.logprobs).toEqual(want.logprobs);
      expect(on.logprobs).not.toEqual(want.logprobs);
      expect((await model.logprobs(plain(0.9))).logprobs).toEqual(on.logprobs);
      await model.dispose();
    }
    // A fresh adapter adds nothing.
    for (const dtype of ['fp32', 'bf16'] as const) {
      const bare = await engine.loadModel(base, { dtype });
      const fresh = await engine.loadModel(base, { dtype, lora: { rank: 3 } });
      expect((await fresh.logprobs(plain())).logprobs).toEqual((await bare.logprobs(plain())).logprobs);
      await Promise.all([bare.dispose(), fresh.dispose()]);
    }
    await plainModel.dispose();
  });

  it('merged weights equal those of PEFT, and the exported model the adapted one', async () => {
    for (const name of ['list', 'rslora', 'pattern', 'tokens']) {
      const model = await load(name);
      for (const stored of golden.names(`${name}.merged.`)) {
        const got = await model.readTensor(stored.slice(`${name}.merged.`.length), 'merged');
        expect(maxAbsolute(got, (await golden.tensor(stored)).data)).toBeLessThan(2e-7);
      }
      const out = join(folder, `merged-${name}`);
      await model.exportHf(out);
      const merged = await engine.loadModel(out);
      expect(merged.adapter).toBeUndefined();
      const got = await merged.logprobs(plain(0.9));
      expect(maxAbsolute(got.logprobs, (await golden.tensor(`${name}.logps_64`)).data)).toBeLessThan(3e-5);
      await Promise.all([model.dispose(), merged.dispose()]);
    }
  });

  it.each(cases)('%s: what is saved is PEFT again, byte for byte the same tensors', async (name) => {
    const model = await load(name);
    const out = join(folder, `adapter-${name}`);
    await model.saveAdapter(out);
    const config = JSON.parse(readFileSync(join(out, 'adapter_config.json'), 'utf8')) as Record<string, unknown>;
    const original = JSON.parse(
      readFileSync(`${goldenFolder}lora-${name}/adapter_config.json`, 'utf8'),
    ) as typeof config;
    expect(config).toMatchObject({ peft_type: 'LORA', use_rslora: original['use_rslora'] });
    expect(config['trainable_token_indices']).toEqual(original['trainable_token_indices']);
    const again = await engine.loadModel(out);
    expect(again.adapter).toEqual(model.adapter);
    for (const { name: tensor, adapter } of model.tensors()) {
      if (adapter) expect(await again.readTensor(tensor)).toEqual(await model.readTensor(tensor));
    }
    expect((await again.logprobs(plain())).logprobs).toEqual((await model.logprobs(plain())).logprobs);
    await Promise.all([model.dispose(), again.dispose()]);
  });

  it.each(['fp32', 'bf16'] as const)('%s: sampled and trained log-probs are equal bit for bit', async (dtype) => {
    const model = await engine.loadModel(base, { dtype, adapter: `${goldenFolder}lora-all-linear` });
    const run = model.sample(
      rows().map(({ prompt_ids }, id) => ({ id, promptTokens: Int32Array.from(prompt_ids) })),
      { count: 3, maxNewTokens: 40, seed: 5, stopTokens: [] },
    );
    for await (const { request, tokens, logprobs } of run) {
      const group: Group = { ...plain()[request]!, completions: [{ tokens }] };
      expect((await model.logprobs([group])).logprobs).toEqual(logprobs);
      const trained = await model.forwardBackward([group], [nll]);
      expect(trained.logprobs).toEqual(logprobs);
    }
    await model.dispose();
  });

  it('training moves the adapter alone, resumes bit for bit, and a clone is the same policy', async () => {
    const options = {
      dtype: 'bf16',
      lora: { rank: 4, targets: ['q_proj', 'mlp'], trainableTokens: [300, 5] },
    } satisfies LoadModelOptions;
    const step = async (model: Model): Promise<void> => {
      await model.forwardBackward(plain(), [nll]);
      await model.optimizerStep({ learningRate: 1e-2 });
    };
    const model = await engine.loadModel(base, options);
    const names = model.tensors().filter(({ adapter }) => !adapter);
    const before = await Promise.all(names.map(({ name }) => model.readTensor(name)));
    await step(model);
    const saved = join(folder, 'resume');
    await model.save(saved);
    await step(model);
    const other = await engine.loadModel(base, options);
    await other.load(saved);
    await step(other);
    for (const { name, adapter } of model.tensors()) {
      if (adapter) expect(await other.readTensor(name), name).toEqual(await model.readTensor(name));
    }
    const clone = await engine.cloneModel(model);
    const want = (await model.logprobs(plain())).logprobs;
    expect((await clone.logprobs(plain())).logprobs).toEqual(want);
    expect((await other.logprobs(plain())).logprobs).toEqual(want);
    expect((await model.logprobs(plain(), { adapter: 'off' })).logprobs).not.toEqual(want);
    for (const [i, { name, kind }] of names.entries()) {
      if (kind !== 'embedding') expect(await model.readTensor(name), name).toEqual(before[i]);
    }
    await Promise.all([model.dispose(), other.dispose(), clone.dispose()]);
  });

  it('dropout is refused in reinforcement learning and does not depend on how rows are split', async () => {
    const options = { lora: { rank: 4, dropout: 0.5, seed: 3 } };
    const gradientOf = async (maxTokensPerMicroBatch: number): Promise<Float32Array> => {
      const model = await engine.loadModel(base, options);
      await model.forwardBackward(plain(), [nll], { maxTokensPerMicroBatch });
      const gradient = await model.readTensor('model.layers.1.mlp.down_proj.lora_B.weight', 'gradient');
      await model.dispose();
      return gradient;
    };
    const whole = await gradientOf(4096);
    expect(relativeL2(await gradientOf(1), whole)).toBeLessThan(1e-5);
    expect(whole.some((value) => value !== 0)).toBe(true);
    const model = await engine.loadModel(base, options);
    // No dropout where nothing trains.
    const bare = await engine.loadModel(base);
    expect((await model.logprobs(plain())).logprobs).toEqual((await bare.logprobs(plain())).logprobs);
    const objective: Objective = { kind: 'grpo', lossType: 'grpo' };
    await expect(model.forwardBackward(plain(), [objective])).rejects.toMatchObject({ code: 'invalid_argument' });
    await Promise.all([model.dispose(), bare.dispose()]);
  });

  it('names what is wrong with targets and folders', async () => {
    await expect(engine.loadModel(base, { lora: { targets: ['q_porj'] } })).rejects.toThrow(/q_porj/);
    await expect(engine.loadModel(base, { lora: { exclude: ['layers'] } })).rejects.toThrow(/exclude/);
    await expect(engine.loadModel(base, { lora: { trainableTokens: [512] } })).rejects.toThrow(/512/);
    await expect(engine.loadModel(base, { lora: {}, freeze: ['mlp'] })).rejects.toMatchObject({
      code: 'invalid_argument',
    });
    await expect(engine.loadModel(base, { lora: { rank: 0 } })).rejects.toThrow(/nothing would train/);
    cpSync(`${goldenFolder}lora-list`, join(folder, 'ranks'), { recursive: true });
    const ranks = join(folder, 'ranks/adapter_config.json');
    writeFileSync(ranks, readFileSync(ranks, 'utf8').replace('"r": 4', '"r": 8'));
    await expect(engine.loadModel(base, { adapter: join(folder, 'ranks') })).rejects.toThrow(/rank 8/);
    await expect(engine.loadModel(base, { adapter: base })).rejects.toThrow(/adapter_config/);
    cpSync(`${goldenFolder}lora-list`, join(folder, 'other'), { recursive: true });
    const path = join(folder, 'other/adapter_config.json');
    writeFileSync(path, readFileSync(path, 'utf8').replace('"r": 4', '"r": 0'));
    await expect(
      engine.loadModel(`${goldenFolder}micro-text`, { adapter: join(folder, 'other') }),
    ).rejects.toMatchObject({
      code: 'corrupt_checkpoint',
    });
    const frozen = await engine.loadModel(base, { freeze: ['layers.0', 'embed_tokens'] });
    const trainable = frozen.tensors().filter((tensor) => tensor.trainable);
    expect(trainable.map(({ name }) => name).every((name) => /layers\.1\.|^model\.norm/.test(name))).toBe(true);
    expect(trainable.length).toBeGreaterThan(5);
    await frozen.dispose();
  });
});
