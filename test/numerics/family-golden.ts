/**
 * The goldens of scripts/goldens/families.py: rows of one prompt and one completion each, with pictures and videos, and how far
 * torch's own float32 run is from its float64 one.
 */
import { readFileSync } from 'node:fs';
import { expect } from 'vitest';
import type { NativeObjective } from '../../src/binding/contract-objectives.js';
import type { NativeEngine, NativeGroup, NativeImage, NativeModel } from '../../src/binding/contract.js';
import { modelSpec, type JsonObject } from '../../src/engine/model-config.js';
import { readCheckpointTensors } from '../../src/engine/safetensors.js';
import { canonicalName, matchTensors } from '../../src/engine/tensor-names.js';
import { group, job, stepOptions } from './checkpoint.js';
import { goldenFolder, type Golden } from './golden.js';

/** Allowed: so many times torch's own float32 error, plus a floor for values that are zero but for rounding. */
export const factor = 8;
const floor = 1e-7;

export interface Item {
  kind: 'image' | 'video';
  grid?: [number, number, number];
  size?: [number, number];
  seconds_per_grid?: number;
  pixels: { seed: number; shape: number[] };
}

interface FloatError {
  max_abs: number;
  rel_l2: number;
  norm?: number;
}

interface Sample {
  norm: number;
  at: number[];
  values: number[];
}

export interface Case {
  model: string;
  config?: string;
  rows: { prompt_ids: number[]; completion_ids: number[]; items?: Item[] }[];
  grpo_loss_64: number;
  grpo_loss_32: number;
  lm_loss_64?: number;
  lm_loss_32?: number;
  grpo_config: { beta: number; epsilon: number; epsilon_high: number; temperature: number };
  grpo_grad_samples?: Record<string, Sample>;
  lm_grad_samples?: Record<string, Sample>;
  generate?: { tokens: number[]; logps: number[]; margin_to_second: number[] }[];
  errors_of_torch_float32: Record<'logits' | 'logps' | 'entropies', FloatError> &
    Partial<Record<'grpo_grads' | 'lm_grads', Record<string, FloatError>>>;
}

/** A model of a golden checkpoint, by the engine's own reading of its config and tensor names. */
export async function loadFamily(
  engine: NativeEngine,
  name: string,
  dtype: 'fp32' | 'bf16' = 'fp32',
  file = 'config.json',
): Promise<NativeModel> {
  const folder = `${goldenFolder}${name}`;
  const config = JSON.parse(readFileSync(`${folder}/${file}`, 'utf8')) as JsonObject;
  const model = await engine.createModel(modelSpec(config, dtype));
  await model.loadTensors(matchTensors(model.tensors(), await readCheckpointTensors(folder), folder, config));
  return model;
}

/** The goldens' pixels: a 32-bit integer hash of the element's index, exact in float32. */
export function hashedPixels(seed: number, count: number): Float32Array {
  const pixels = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let x = (i + Math.imul(seed, 0x9e3779b9)) >>> 0;
    x = Math.imul(x ^ (x >>> 16), 0x7feb352d) >>> 0;
    x = Math.imul(x ^ (x >>> 15), 0x846ca68b) >>> 0;
    x = (x ^ (x >>> 16)) >>> 0;
    pixels[i] = ((x >>> 24) - 127.5) / 64;
  }
  return pixels;
}

/** [tiles, channels, height, width] as rows of one patch each, [channel, y, x]. */
export function patchesOf(pixels: Float32Array, shape: readonly number[], patch: number): NativeImage {
  const [tiles, channels, height, width] = shape as [number, number, number, number];
  const rows = height / patch;
  const cols = width / patch;
  const out = new Float32Array(pixels.length);
  let at = 0;
  for (let tile = 0; tile < tiles; tile++) {
    for (let row = 0; row < rows; row++) {
      for (let col = 0; col < cols; col++) {
        for (let channel = 0; channel < channels; channel++) {
          for (let y = 0; y < patch; y++) {
            const from = ((tile * channels + channel) * height + row * patch + y) * width + col * patch;
            out.set(pixels.subarray(from, from + patch), at);
            at += patch;
          }
        }
      }
    }
  }
  return { pixels: out, grid: [tiles, rows, cols] };
}

export function imageOf({ kind, grid, size, seconds_per_grid: secondsPerGrid, pixels }: Item): NativeImage {
  const values = hashedPixels(
    pixels.seed,
    pixels.shape.reduce((product, length) => product * length, 1),
  );
  return {
    ...(grid === undefined ? patchesOf(values, pixels.shape, 7) : { pixels: values, grid }),
    kind,
    ...(size === undefined ? {} : { size }),
    ...(secondsPerGrid === undefined ? {} : { secondsPerGrid }),
  };
}

/** One group a row, with what the GRPO objective reads. */
export async function groupsOf(golden: Golden, one: Case, prefix = ''): Promise<NativeGroup[]> {
  const advantages = (await golden.tensor(`${prefix}advantages`)).data;
  const old = Float32Array.from((await golden.tensor(`${prefix}old_per_token_logps`)).data);
  const reference = Float32Array.from((await golden.tensor(`${prefix}ref_per_token_logps`)).data);
  let at = 0;
  return one.rows.map(({ prompt_ids: prompt, completion_ids: tokens, items }, row) => {
    const end = at + tokens.length;
    const completion = {
      tokens: Int32Array.from(tokens),
      temperature: one.grpo_config.temperature,
      advantage: advantages[row]!,
      oldLogprobs: old.slice(at, end),
      referenceLogprobs: reference.slice(at, end),
    };
    at = end;
    return group(prompt, [completion], (items ?? []).map(imageOf));
  });
}

export const grpo = (one: Case): NativeObjective => ({
  kind: 'grpo',
  weight: 1,
  lossType: 'dapo',
  importanceSampling: 'token',
  epsilonLow: one.grpo_config.epsilon,
  epsilonHigh: one.grpo_config.epsilon_high,
  delta: 0,
  beta: one.grpo_config.beta,
  klBiasCorrection: true,
  klClamp: 0,
  maxCompletionLength: 64,
});

export const nll: NativeObjective = { kind: 'nll', weight: 1, normalization: 'tokens' };

const l2 = (values: ArrayLike<number>): number => Math.sqrt(Array.from(values).reduce((sum, x) => sum + x * x, 0));

export const distance = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
  expect(got.length).toBe(want.length);
  return l2(Array.from(got, (x, i) => x - want[i]!));
};

const worst = (got: ArrayLike<number>, want: ArrayLike<number>): number => {
  expect(got.length).toBe(want.length);
  return Array.from(got, (x, i) => Math.abs(x - want[i]!)).reduce((a, b) => Math.max(a, b), 0);
};

/** Logits, log-probs and entropies of the rows [0, count). */
export async function compareForward(
  model: NativeModel,
  golden: Golden,
  one: Case,
  prefix = '',
  count = one.rows.length,
) {
  const groups = (await groupsOf(golden, one, prefix)).slice(0, count);
  const errors = one.errors_of_torch_float32;
  const logits = await golden.tensor(`${prefix}logits_64`);
  const vocabulary = logits.shape[1]!;
  let at = 0;
  for (const [row, { completions, ...rest }] of groups.entries()) {
    const { tokens } = completions[0]!;
    const got = await model.logits({ ...rest, completions: [{ tokens }] }, 'on', job());
    const want = logits.data.subarray(at * vocabulary, (at + tokens.length) * vocabulary);
    expect(worst(got, want), `logits of row ${row}`).toBeLessThan(factor * errors.logits.max_abs);
    at += tokens.length;
  }
  const got = await model.logprobs(groups, { ...stepOptions, entropy: true }, job());
  for (const [name, values] of [
    ['logps', got.logprobs],
    ['entropies', got.entropies],
  ] as const) {
    const want = (await golden.tensor(`${prefix}${name}_64`)).data.subarray(0, at);
    expect(worst(values, want), name).toBeLessThan(factor * errors[name].max_abs + floor);
  }
}

/** Both losses and the gradient of every parameter, whole or by samples. Returns the names compared under GRPO. */
export async function compareBackward(model: NativeModel, golden: Golden, one: Case, prefix = '') {
  const groups = await groupsOf(golden, one, prefix);
  const plain = groups.map((row) => ({
    ...row,
    completions: row.completions.map(({ tokens }) => ({ tokens })),
  }));
  const names = new Map(model.tensors().map(({ name }) => [canonicalName(name), name]));
  const compared = new Set<string>();
  for (const kind of one.lm_loss_64 === undefined ? (['grpo'] as const) : (['grpo', 'lm'] as const)) {
    for (const activationCheckpointing of kind === 'grpo' ? [false, true] : [false]) {
      await model.zeroGradients();
      const { loss } = await model.forwardBackward(
        kind === 'grpo' ? groups : plain,
        [kind === 'grpo' ? grpo(one) : nll],
        { ...stepOptions, activationCheckpointing },
        job(),
      );
      const [want, single] = [one[`${kind}_loss_64`]!, one[`${kind}_loss_32`]!];
      expect(Math.abs(loss - want), `${kind} loss`).toBeLessThan(factor * Math.abs(single - want) + 1e-6);
      const whole = golden.names(`${prefix}${kind}_grad.`).map((name) => name.slice(`${prefix}${kind}_grad.`.length));
      for (const name of [...whole, ...Object.keys(one[`${kind}_grad_samples`] ?? {})]) {
        const native = names.get(canonicalName(name));
        expect(native, name).toBeDefined();
        const got = await model.readTensor(native!, 'gradient');
        const { max_abs: most, rel_l2: relative, norm } = one.errors_of_torch_float32[`${kind}_grads`]![name]!;
        const allowed = factor * relative * norm! + floor;
        const sample = one[`${kind}_grad_samples`]?.[name];
        if (sample === undefined) {
          const { data } = await golden.tensor(`${prefix}${kind}_grad.${name}`);
          expect(distance(got, data), `${kind} gradient of ${name}`).toBeLessThan(allowed);
        } else {
          expect(Math.abs(l2(got) - sample.norm), `norm of the ${kind} gradient of ${name}`).toBeLessThan(allowed);
          const picked = sample.at.map((index) => got[index]!);
          expect(worst(picked, sample.values), `${kind} gradient of ${name}`).toBeLessThan(factor * most + floor);
        }
        if (kind === 'grpo') compared.add(native!);
      }
    }
  }
  await model.zeroGradients();
  return compared;
}

/** Greedy tokens with the end token suppressed, up to the first place that a hair decides, and their log-probs. */
export async function compareGreedy(model: NativeModel, one: Case, count = one.rows.length) {
  const runs = one.generate!.slice(0, count);
  await model.sample(
    one.rows.slice(0, count).map(({ prompt_ids: prompt, items }, id) => ({
      id,
      promptTokens: Int32Array.from(prompt),
      images: (items ?? []).map(imageOf),
      count: 1,
      maxNewTokens: runs[id]!.tokens.length,
      seed: 0,
      temperature: 0,
      stopTokens: new Int32Array(),
    })),
    { maxRows: 3, bannedTokens: Int32Array.of(505) },
    (finished) => {
      for (const { request, tokens, logprobs } of finished) {
        const { tokens: want, logps, margin_to_second: margins } = runs[request]!;
        const sure = margins.findIndex((margin) => margin < 1e-4);
        const length = sure < 0 ? want.length : sure;
        expect(Array.from(tokens).slice(0, length), `row ${request}`).toEqual(want.slice(0, length));
        expect(worst(logprobs.slice(0, length), logps.slice(0, length)), `row ${request}`).toBeLessThan(2e-5);
      }
    },
    job(),
  );
}
