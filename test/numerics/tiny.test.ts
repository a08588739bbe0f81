/** A model of 5.2 million parameters whose weights come from a counter hash: only digests of it are stored. */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, it } from 'vitest';
import { group, job, makeEngine, stepOptions } from './checkpoint.js';
import { goldenFolder, maxAbsolute } from './golden.js';

interface TinyGolden {
  params: number;
  weights_sha256_float32: Record<string, string>;
  input_ids: number[][];
  lm_loss_64: number;
  logps_64: number[][];
  last_logits_64_first_32: number[][];
  grads: Record<string, { norm: number; sum: number; at: number[]; values: number[] }>;
}
const golden = JSON.parse(readFileSync(`${goldenFolder}tiny.json`, 'utf8')) as TinyGolden;
const hiddenSize = 256;

const mask64 = (1n << 64n) - 1n;

/** splitmix64 of (hash of the name + i), its upper 24 bits as a number in [-1, 1). */
function uniform(name: string, count: number): Float32Array {
  let base = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(name)) base = ((base ^ BigInt(byte)) * 0x100000001b3n) & mask64;
  const out = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    let z = (base + BigInt(i) + 0x9e3779b97f4a7c15n) & mask64;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask64;
    out[i] = Number((z ^ (z >> 31n)) >> 40n) * 2 ** -23 - 1;
  }
  return out;
}

function weight(name: string, shape: readonly number[]): Float32Array {
  const values = uniform(
    name,
    shape.reduce((product, size) => product * size, 1),
  );
  const isNorm = shape.length === 1 && name.endsWith('.weight');
  const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
  const std = name.includes('embed_tokens') ? 1.5 / Math.sqrt(hiddenSize) : 1 / Math.sqrt(fanIn);
  const scale = Math.fround(shape.length === 1 ? 0.1 : std * Math.sqrt(3));
  return values.map((value) => (isNorm ? 1 + Math.fround(value * scale) : value * scale));
}

describe('golden tiny: 5.2 million parameters against transformers in float64', () => {
  const engine = makeEngine();
  afterAll(() => engine.dispose());

  it('weights, log-probs, logits, loss, and norm, sum and entries of every gradient', async () => {
    const model = await engine.createModel({
      family: 'qwen2',
      numbers: {
        vocab_size: 4096,
        hidden_size: hiddenSize,
        intermediate_size: 640,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-6,
        tie_word_embeddings: 1,
        max_position_embeddings: 32768,
        'rope_parameters.rope_theta': 1e6,
      },
      texts: {},
      dtype: 'fp32',
      optimizer: { states: 'fp32', weights: 'master', seed: 0 },
    });
    const tensors = model.tensors();
    expect(tensors.map(({ name }) => name).sort()).toEqual(Object.keys(golden.weights_sha256_float32).sort());
    let parameters = 0;
    for (const { name, shape } of tensors) {
      const values = weight(name, shape);
      parameters += values.length;
      expect(createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex'), name).toBe(
        golden.weights_sha256_float32[name],
      );
      await model.writeTensor(name, 'value', values);
    }
    expect(parameters).toBe(golden.params);
    const rows = golden.input_ids.map((ids) => group(ids.slice(0, 1), [{ tokens: Int32Array.from(ids.slice(1)) }]));
    const result = await model.forwardBackward(
      rows,
      [{ kind: 'nll', weight: 1, normalization: 'tokens' }],
      stepOptions,
      job(),
    );
    expect(Math.abs(result.loss - golden.lm_loss_64)).toBeLessThan(5e-6);
    expect(maxAbsolute(result.logprobs, golden.logps_64.flat())).toBeLessThan(3e-5);
    for (const [name, { norm, sum, at, values }] of Object.entries(golden.grads)) {
      const got = await model.readTensor(name, 'gradient');
      const bound = 1e-5 * norm;
      const total = got.reduce((all, value) => all + value, 0);
      expect(Math.abs(Math.sqrt(got.reduce((all, value) => all + value ** 2, 0)) - norm), name).toBeLessThan(bound);
      expect(Math.abs(total - sum), name).toBeLessThan(bound * Math.sqrt(got.length));
      for (const [i, place] of at.entries()) expect(Math.abs(got[place]! - values[i]!), name).toBeLessThan(bound);
    }
    for (const [row, ids] of golden.input_ids.entries()) {
      // The logits after the whole row: those of one more token.
      const [last] = [group(ids, [{ tokens: Int32Array.of(0) }])];
      const logits = await model.logits(last, 'on', job());
      expect(maxAbsolute(logits.subarray(0, 32), golden.last_logits_64_first_32[row]!)).toBeLessThan(3e-5);
    }
  });
});
