import { afterAll, describe, expect, it } from 'vitest';
import type { GavelError } from '../../src/errors.js';
import { group, job, makeEngine, stepOptions } from './checkpoint.js';
import { canonicalName } from '../../src/engine/tensor-names.js';
import {
  compareBackward,
  compareForward,
  compareGreedy,
  distance,
  factor,
  nll,
  groupsOf,
  loadFamily,
  patchesOf,
  type Case,
} from './family-golden.js';
import { Golden, maxAbsolute, relativeL2 } from './golden.js';
import { imageToken, smallFamilies } from './small-families.js';
import { goldenGroups, grpo as trlGrpo } from './trl-golden.js';

// Every family against transformers in float64: within 8 times the error of torch's own float32 run.

const engine = makeEngine();
afterAll(() => engine.dispose());

const untrained = (name: string): boolean => name.includes('post_layernorm');

const goldens = ['llama', 'qwen3', 'qwen3_untied', 'vl_windows', 'ov_multi', 'qwen3_vl', 'ov_heads', 'qwen3_vl_heads'];

describe.each(goldens)('golden %s', (name) => {
  const open = async () => {
    const golden = await Golden.open(name);
    const one = golden.json as Case;
    return { golden, one, model: await loadFamily(engine, one.model) };
  };

  it('logits, log-probs and entropies', async () => {
    const { golden, one, model } = await open();
    await compareForward(model, golden, one);
    await model.dispose();
  });

  it('losses and the gradient of every parameter, with recompute and without', async () => {
    const { golden, one, model } = await open();
    const compared = await compareBackward(model, golden, one);
    for (const tensor of model.tensors()) {
      if (compared.has(tensor.name)) continue;
      expect(untrained(tensor.name), `${tensor.name} was compared`).toBe(true);
    }
    await model.dispose();
  });

  it('greedy generation', async () => {
    const { one, model } = await open();
    if (one.generate !== undefined) await compareGreedy(model, one);
    else expect(name).toMatch(/_heads$/);
    await model.dispose();
  });
});

describe('rope types', () => {
  /** Rows of the golden whose length has the frequencies of the config; beyond it dynamic and longrope are refused. */
  const limits: Readonly<Record<string, number>> = { dynamic: 1, longrope: 1, 'longrope-attention-factor': 1 };

  it('each gives the logits and gradients of transformers, or says that it cannot', async () => {
    const golden = await Golden.open('llama');
    const ropes = golden.json.ropes as Record<string, Case>;
    expect(Object.keys(ropes)).toHaveLength(9);
    for (const [name, one] of Object.entries(ropes)) {
      const model = await loadFamily(engine, one.model, 'fp32', one.config);
      const count = limits[name] ?? one.rows.length;
      await compareForward(model, golden, one, `${name}.`, count);
      if (one.generate !== undefined) await compareGreedy(model, one, count);
      if (count === one.rows.length) await compareBackward(model, golden, one, `${name}.`);
      else {
        const groups = await groupsOf(golden, one, `${name}.`);
        const tooLong = expect.objectContaining({
          code: 'prompt_too_long',
          message: expect.stringContaining('Expected at most 32 positions') as string,
        }) as GavelError;
        await expect(model.logprobs(groups, { ...stepOptions, entropy: false }, job()), name).rejects.toThrow(tooLong);
        const request = {
          id: 0,
          promptTokens: Int32Array.from(one.rows[0]!.prompt_ids),
          images: [],
          count: 1,
          maxNewTokens: 21,
          seed: 0,
          temperature: 1,
          stopTokens: new Int32Array(),
        };
        const options = { maxRows: 1, bannedTokens: new Int32Array() };
        // 12 of 32 are the prompt's.
        const drawn = await model.sample([request], options, () => undefined, job());
        expect(drawn.completionTokens, name).toBe(20);
      }
      await model.dispose();
    }
  });

  it('configs of transformers 4 give the same bits as their newer spelling', async () => {
    const golden = await Golden.open('llama');
    const ropes = golden.json.ropes as Record<string, Case>;
    const old = golden.json.old_spellings as Record<string, { config: string; same_as: string | null }>;
    const logitsOf = async (config: string) => {
      const model = await loadFamily(engine, 'micro-llama', 'fp32', config);
      const [one] = await groupsOf(golden, ropes['default']!, 'default.');
      const { completions, ...rest } = one!;
      const logits = await model.logits({ ...rest, completions: [{ tokens: completions[0]!.tokens }] }, 'on', job());
      await model.dispose();
      return logits;
    };
    let compared = 0;
    for (const { config, same_as: same } of Object.values(old)) {
      // One takes its original length from max_position_embeddings, which makes it the yarn of the others.
      expect(await logitsOf(config), config).toEqual(await logitsOf(ropes[same ?? 'yarn']!.config!));
      compared++;
    }
    expect(compared).toBe(9);
  });
});

describe('LLaVA-OneVision', () => {
  it('rounds a shrunk side down as Python divides: 15 // (5 / 3) is 8', async () => {
    const { spec } = smallFamilies.find(({ name }) => name === 'llava_onevision')!;
    const numbers = { ...spec.numbers, image_grid_pinpoints: [30, 30] };
    const model = await engine.createModel({ ...spec, numbers, texts: {}, dtype: 'fp32' });
    const image = { pixels: new Float32Array(26 * 9 * 12), grid: [26, 3, 3], size: [30, 30] } as const;
    const scored = (count: number) =>
      model.logprobs(
        [group(Array<number>(count).fill(imageToken), [{ tokens: Int32Array.of(80) }], [image])],
        { ...stepOptions, entropy: false },
        job(),
      );
    const { logprobs } = await scored(9 + 8 * (8 + 1));
    expect(logprobs).toHaveLength(1);
    await expect(scored(9 + 9 * (9 + 1))).rejects.toThrow(expect.objectContaining({ code: 'image_count_mismatch' }));
    await model.dispose();
  });

  it('shrinks features beyond anyres_max_2', async () => {
    const golden = await Golden.open('ov_multi');
    const one = golden.json.anyres_max_2 as Case;
    const model = await loadFamily(engine, one.model, 'fp32', one.config);
    await compareForward(model, golden, one, 'anyres_max_2.');
    await compareBackward(model, golden, one, 'anyres_max_2.');
    await model.dispose();
  });

  it('equals the reference batch: logits, log-probs, loss and every gradient', async () => {
    const golden = await Golden.open('ov');
    const model = await loadFamily(engine, 'micro-ov');
    const { groups, picks } = await goldenGroups(golden);
    const { data, shape } = await golden.tensor('pixel_values');
    const sizes = (await golden.tensor('image_sizes')).data;
    const each = shape.slice(1).reduce((product, length) => product * length, 1);
    const batch = groups.map((row, i) => {
      const own = Float32Array.from(data.subarray(i * each, (i + 1) * each));
      const size = [sizes[2 * i]!, sizes[2 * i + 1]!] as const;
      // The batch is padded with empty tiles to its largest picture; these grids are 2 x 2 and 2 x 1.
      const tiles = row.promptTokens.filter((token) => token === 510).length > 40 ? shape[1]! : 3;
      const image = patchesOf(own.subarray(0, (each / shape[1]!) * tiles), [tiles, ...shape.slice(2)], 7);
      return { ...row, images: [{ ...image, size }] };
    });
    const errors = golden.json.errors_of_torch_float32;
    const logits = await golden.tensor('logits_64');
    const [, columns, vocabulary] = logits.shape as [number, number, number];
    for (const [row, { completions, ...rest }] of batch.entries()) {
      const { tokens } = completions[0]!;
      const got = await model.logits({ ...rest, completions: [{ tokens }] }, 'on', job());
      const first = (row * columns + golden.json.prompt_len - 1) * vocabulary;
      const want = logits.data.subarray(first, first + tokens.length * vocabulary);
      expect(maxAbsolute(got, want)).toBeLessThan(factor * errors.logits.max_abs);
    }
    const { loss, logprobs } = await model.forwardBackward(batch, [trlGrpo(golden)], stepOptions, job());
    const logps = await golden.tensor('logps_64');
    const want = picks.map(({ row, column }) => logps.data[row * logps.shape[1]! + column]!);
    expect(maxAbsolute(logprobs, want)).toBeLessThan(factor * errors.logps.max_abs);
    expect(Math.abs(loss - golden.json.grpo_loss_64)).toBeLessThan(2e-6);
    const native = new Map(model.tensors().map(({ name }) => [canonicalName(name), name]));
    const names = golden.names('grpo_grad.');
    expect(names).toHaveLength(model.tensors().length);
    for (const name of names) {
      const got = await model.readTensor(native.get(canonicalName(name.slice('grpo_grad.'.length)))!, 'gradient');
      const { data: gradient } = await golden.tensor(name);
      // Gradients of key biases and of post_layernorm are zero but for rounding.
      expect(distance(got, gradient), name).toBeLessThan(factor * 5e-6 * Math.hypot(...gradient) + 1e-7);
    }
    await model.dispose();
  });
});

describe('bf16', () => {
  // Weights and activations rounded to 8 bits, about 2^-9 a value, through a few layers: relative L2 distances.
  const allowed = { logits: 0.025, gradient: 0.08 };

  it.each(goldens)('%s stays near float64 (logits) and near fp32 (gradients of the NLL)', async (name) => {
    const golden = await Golden.open(name);
    const one = golden.json as Case;
    const model = await loadFamily(engine, one.model, 'bf16');
    const { data } = await golden.tensor('logits_64');
    const plain = (await groupsOf(golden, one)).map(({ completions, ...rest }) => ({
      ...rest,
      completions: completions.map(({ tokens }) => ({ tokens })),
    }));
    const rows: Float32Array[] = [];
    for (const row of plain) rows.push(await model.logits(row, 'on', job()));
    const logits = rows.flatMap((row) => Array.from(row));
    expect(relativeL2(logits, data)).toBeLessThan(allowed.logits);

    const exact = await loadFamily(engine, one.model);
    for (const each of [model, exact]) await each.forwardBackward(plain, [nll], stepOptions, job());
    for (const { name: tensor } of exact.tensors()) {
      const want = await exact.readTensor(tensor, 'gradient');
      if (Math.hypot(...want) < 1e-6) continue;
      expect(relativeL2(await model.readTensor(tensor, 'gradient'), want), tensor).toBeLessThan(allowed.gradient);
    }
    await model.dispose();
    await exact.dispose();
  });
});
