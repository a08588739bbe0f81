import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NativeEngine, NativeGroup, NativeModel } from '../../src/binding/contract.js';
import { job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';
import { Golden, maxAbsolute, relativeL2 } from './golden.js';
import { goldenGroups, grpo } from './trl-golden.js';

describe('golden text: micro-text against transformers and TRL in float64', () => {
  let engine: NativeEngine;
  let model: NativeModel;
  let golden: Golden;
  let batch: Awaited<ReturnType<typeof goldenGroups>>;

  beforeAll(async () => {
    engine = makeEngine();
    golden = await Golden.open('text');
    model = await loadGoldenModel(engine, 'micro-text');
    batch = await goldenGroups(golden);
  });
  afterAll(() => engine.dispose());

  it('logits of every completion position', async () => {
    const want = await golden.tensor('logits_64');
    const [, columns, vocabulary] = want.shape as [number, number, number];
    for (const [row, one] of batch.groups.entries()) {
      const completion = one.completions[0]!;
      const plain = { ...one, completions: [{ tokens: completion.tokens }] };
      const got = await model.logits(plain, 'on', job());
      const first = (row * columns + golden.json.prompt_len - 1) * vocabulary;
      const expected = want.data.subarray(first, first + completion.tokens.length * vocabulary);
      expect(maxAbsolute(got, expected)).toBeLessThan(2e-5);
    }
  });

  it('log-probs and entropies', async () => {
    const want = await golden.tensor('logps_64');
    const entropies = await golden.tensor('entropies_64');
    const length = want.shape[1]!;
    const got = await model.logprobs(batch.groups, { ...stepOptions, entropy: true }, job());
    const pick = (from: Float64Array): number[] => batch.picks.map(({ row, column }) => from[row * length + column]!);
    expect(maxAbsolute(got.logprobs, pick(want.data))).toBeLessThan(1e-5);
    expect(maxAbsolute(got.entropies, pick(entropies.data))).toBeLessThan(1e-5);
  });

  it('the GRPO loss, its metrics, and the gradient of every parameter', async () => {
    await model.zeroGradients();
    const result = await model.forwardBackward(batch.groups, [grpo(golden)], stepOptions, job());
    expect(result.loss).toBeCloseTo(golden.json.grpo_loss_64, 5);
    for (const name of ['kl', 'entropy', 'clip_ratio/low_mean', 'clip_ratio/high_mean', 'clip_ratio/region_mean']) {
      expect(result.metrics[name], name).toBeCloseTo(golden.json.grpo_metrics_64[name], 5);
    }
    const names = golden.names('grpo_grad.');
    expect(names).toHaveLength(26);
    for (const name of names) {
      const want = await golden.tensor(name);
      const got = await model.readTensor(name.slice('grpo_grad.'.length), 'gradient');
      expect(relativeL2(got, want.data), name).toBeLessThan(1e-5);
    }
    await model.zeroGradients();
  });

  it('the GRPO loss and gradients of a low-rank adapter', async () => {
    const { r: rank, alpha, targets, grpo_loss_64 } = golden.json.lora;
    const adapted = await loadGoldenModel(engine, 'micro-text');
    const names = adapted
      .tensors()
      .map(({ name }) => name)
      .filter((name) => (targets as string[]).some((target) => name.endsWith(`.${target}.weight`)));
    await adapted.attachAdapter({
      targets: names.map((name) => ({ name, rank, scale: alpha / rank })),
      dropout: 0,
      seed: 0,
      trainableTokens: new Int32Array(0),
    });
    const stored = golden.names('lora.');
    expect(stored).toHaveLength(12);
    for (const name of stored) {
      const { data } = await golden.tensor(name);
      await adapted.writeTensor(name.slice('lora.'.length), 'value', Float32Array.from(data));
    }
    const result = await adapted.forwardBackward(batch.groups, [grpo(golden)], stepOptions, job());
    expect(result.loss).toBeCloseTo(grpo_loss_64, 5);
    for (const name of stored) {
      const want = await golden.tensor(name.replace('lora.', 'lora_grad.'));
      const got = await adapted.readTensor(name.slice('lora.'.length), 'gradient');
      expect(relativeL2(got, want.data), name).toBeLessThan(1e-5);
    }
    await adapted.dispose();
  });

  it('greedy generation', async () => {
    const { tokens, logps, margin_to_second: margins } = golden.json.generate;
    const completions: Int32Array[] = [];
    const logprobs: Float32Array[] = [];
    await model.sample(
      batch.groups.map((one, id) => ({
        id,
        promptTokens: one.promptTokens,
        images: [],
        count: 1,
        maxNewTokens: tokens[0].length as number,
        seed: 0,
        temperature: 0,
        stopTokens: new Int32Array(),
      })),
      { maxRows: 3, bannedTokens: new Int32Array() },
      (finished) => {
        for (const one of finished) {
          completions[one.request] = one.tokens;
          logprobs[one.request] = one.logprobs;
        }
      },
      job(),
    );
    for (const [row, want] of (tokens as number[][]).entries()) {
      // transformers suppresses EOS here; where it would have won, or by a hair, the texts may part.
      const sure = (margins[row] as number[]).findIndex((margin) => margin < 1e-4);
      const length = sure < 0 ? want.length : sure;
      expect(Array.from(completions[row]!).slice(0, length)).toEqual(want.slice(0, length));
      expect(maxAbsolute(logprobs[row]!.slice(0, length), (logps[row] as number[]).slice(0, length))).toBeLessThan(
        1e-5,
      );
    }
  });

  it('six AdamW steps of the GRPO loss', async () => {
    const { adamw, grpo_64: want, clip_grad_norm: maxGradNorm } = golden.json.trajectory;
    const fresh = await loadGoldenModel(engine, 'micro-text');
    for (const [step, expected] of (want as { loss: number; grad_norm: number }[]).entries()) {
      const { loss } = await fresh.forwardBackward(batch.groups, [grpo(golden)], stepOptions, job());
      const update = await fresh.optimizerStep({
        learningRate: adamw.lr_grpo,
        beta1: 0.9,
        beta2: 0.999,
        eps: adamw.eps,
        weightDecay: adamw.weight_decay,
        decayParameters: 'all',
        maxGradNorm,
      });
      expect(Math.abs(loss - expected.loss), `loss of step ${step}`).toBeLessThan(2e-5);
      expect(Math.abs(update.gradNorm - expected.grad_norm) / expected.grad_norm, `norm of step ${step}`).toBeLessThan(
        1e-4,
      );
    }
    await fresh.dispose();
  });

  it('recomputing blocks and splitting micro-batches leave the gradient as it is', async () => {
    const gradients = async (options: typeof stepOptions): Promise<Float32Array[]> => {
      await model.zeroGradients();
      await model.forwardBackward(batch.groups, [grpo(golden)], options, job());
      return Promise.all(model.tensors().map(({ name }) => model.readTensor(name, 'gradient')));
    };
    const plain = await gradients(stepOptions);
    const recomputed = await gradients({ ...stepOptions, activationCheckpointing: true });
    const split = await gradients({ ...stepOptions, maxTokensPerMicroBatch: 1 });
    for (const [i, { name }] of model.tensors().entries()) {
      expect(relativeL2(recomputed[i]!, plain[i]!), name).toBeLessThan(1e-6);
      expect(relativeL2(split[i]!, plain[i]!), name).toBeLessThan(1e-5);
    }
    await model.zeroGradients();
  });
});

describe('golden vl: micro-vl, images and vision tower included', () => {
  let engine: NativeEngine;
  let model: NativeModel;
  let golden: Golden;
  let groups: NativeGroup[];
  let picks: { row: number; column: number }[];

  beforeAll(async () => {
    engine = makeEngine();
    golden = await Golden.open('vl');
    model = await loadGoldenModel(engine, 'micro-vl');
    const batch = await goldenGroups(golden);
    const pixels = await golden.tensor('pixel_values');
    const grids = await golden.tensor('image_grid_thw');
    const columns = pixels.shape[1]!;
    let patch = 0;
    const images = Array.from({ length: grids.shape[0]! }, (_, i) => {
      const grid = [grids.data[3 * i]!, grids.data[3 * i + 1]!, grids.data[3 * i + 2]!] as const;
      const count = grid[0] * grid[1] * grid[2];
      const own = Float32Array.from(pixels.data.subarray(patch * columns, (patch + count) * columns));
      patch += count;
      return { pixels: own, grid };
    });
    let next = 0;
    groups = batch.groups.map((one, row) => ({
      ...one,
      images: images.slice(next, (next += golden.json.num_images[row])),
    }));
    picks = batch.picks;
  });
  afterAll(() => engine.dispose());

  it('logits and log-probs', async () => {
    const want = await golden.tensor('logits_64');
    const [, columns, vocabulary] = want.shape as [number, number, number];
    for (const [row, one] of groups.entries()) {
      const completion = one.completions[0]!;
      const got = await model.logits({ ...one, completions: [{ tokens: completion.tokens }] }, 'on', job());
      const first = (row * columns + golden.json.prompt_len - 1) * vocabulary;
      expect(maxAbsolute(got, want.data.subarray(first, first + completion.tokens.length * vocabulary))).toBeLessThan(
        3e-5,
      );
    }
    const logps = await golden.tensor('logps_64');
    const got = await model.logprobs(groups, { ...stepOptions, entropy: false }, job());
    const expected = picks.map(({ row, column }) => logps.data[row * logps.shape[1]! + column]!);
    expect(maxAbsolute(got.logprobs, expected)).toBeLessThan(1e-5);
  });

  it('the GRPO loss and the gradient of every parameter, vision tower included', async () => {
    for (const activationCheckpointing of [false, true]) {
      await model.zeroGradients();
      const result = await model.forwardBackward(
        groups,
        [grpo(golden)],
        { ...stepOptions, activationCheckpointing },
        job(),
      );
      expect(result.loss).toBeCloseTo(golden.json.grpo_loss_64, 5);
      const names = golden.names('grpo_grad.');
      expect(names).toHaveLength(69);
      for (const name of names) {
        const want = await golden.tensor(name);
        const got = await model.readTensor(name.slice('grpo_grad.'.length), 'gradient');
        expect(relativeL2(got, want.data), name).toBeLessThan(3e-5);
      }
    }
    await model.zeroGradients();
  });
});
