// Hugging Face's warpers through the public kernel: the log-prob is of the full distribution, the kept mass and every draw
// are of the set its mask keeps. The masks themselves are compared token by token in native/test/sample_token_test.cpp.
import { describe, expect, it } from 'vitest';
import { sampleTokens } from '../../src/kernels.js';
import { Golden } from './golden.js';

const golden = await Golden.open('sampling');
const settings = [
  ['temperature0.7', { temperature: 0.7 }],
  ['top_k5', { topK: 5 }],
  ['top_k100_over_vocab', { topK: 5000 }],
  ['top_p0.9', { topP: 0.9 }],
  ['top_p0.1', { topP: 0.1 }],
  ['min_p0.1', { minP: 0.1 }],
  ['min_p0.02', { minP: 0.02 }],
  ['temperature0.6_top_k20_top_p0.95_min_p0.01', { temperature: 0.6, topK: 20, topP: 0.95, minP: 0.01 }],
] as const;

/** log_softmax of one row, in double. */
function logSoftmax(row: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(row);
  const largest = Math.max(...values);
  const normalizer = largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return values.map((value) => value - normalizer);
}

describe.each(['small', 'wide'])('filters over %s logits', (table) => {
  it.each(settings)('%s', async (name, setting) => {
    const { temperature = 1, ...filters } = setting as Record<string, number>;
    const { data, shape } = await golden.tensor(table);
    const [rows, vocabulary] = shape as [number, number];
    const keep = (await golden.tensor(`${table}.${name}.keep`)).data;
    const logits = Float32Array.from(data, (logit) => Math.fround(logit) * Math.fround(1 / temperature));
    const seen = new Set<number>();
    for (let seed = 0; seed < 40; seed++) {
      const drawn = sampleTokens(logits, { vocabulary, seed, ...filters });
      for (let row = 0; row < rows; row++) {
        const logprobs = logSoftmax(logits.subarray(row * vocabulary, (row + 1) * vocabulary));
        const kept = keep.subarray(row * vocabulary, (row + 1) * vocabulary);
        const mass = logprobs.reduce((sum, logprob, token) => sum + kept[token]! * Math.exp(logprob), 0);
        const token = drawn.tokens[row]!;
        // Rows 2 and 3 of `small` hold ties, of which top-p keeps as many, but which ones is the sort's choice.
        const hasTies = table === 'small' && (row === 2 || row === 3) && 'topP' in filters;
        if (!hasTies) expect(kept[token]).toBe(1);
        expect(Math.abs(drawn.logprobs[row]! - logprobs[token]!)).toBeLessThan(2e-6);
        expect(Math.abs(drawn.logKeptMass[row]! - Math.log(mass))).toBeLessThan(2e-6);
        seen.add(row * vocabulary + token);
      }
    }
    // The draws move over what is kept.
    const choices = keep.reduce((sum, bit) => sum + bit, 0);
    expect(seen.size).toBeGreaterThan(Math.min(rows, choices - 1));
  });
});
