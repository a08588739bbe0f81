// `gavel-rl/kernels` against plain loops in double, and the table of GRPO numbers that the field's trainer gives.
import { describe, expect, it } from 'vitest';
import { attention, dpoLoss, grpoLoss, linear, logprobs, rmsNorm, sampleTokens } from '../../src/kernels.js';

/** Deterministic numbers in (-1, 1). */
const numbers = (count: number, seed: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => {
    const x = Math.sin((i + 1) * 12.9898 + seed * 78.233) * 43758.5453;
    return Math.fround((x - Math.floor(x)) * 2 - 1);
  });

const largestDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  expect(a.length).toBe(b.length);
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i]! - b[i]!));
  return largest;
};

const bf16 = (values: Float32Array): Uint16Array =>
  Uint16Array.from(new Uint32Array(values.buffer), (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16);
const widen = (values: Uint16Array): Float32Array =>
  new Float32Array(Uint32Array.from(values, (bits) => bits << 16).buffer);

function product(x: Float32Array, weight: Float32Array, m: number, n: number, k: number): Float64Array {
  const out = new Float64Array(m * n);
  for (let row = 0; row < m; row++) {
    for (let column = 0; column < n; column++) {
      for (let i = 0; i < k; i++) out[row * n + column]! += x[row * k + i]! * weight[column * k + i]!;
    }
  }
  return out;
}

describe('linear', () => {
  it.each([
    [1, 1, 1],
    [3, 33, 7],
    [17, 70, 65],
  ])('is x weight^T for M, N, K = %i, %i, %i in fp32 and bf16', (m, n, k) => {
    const [x, weight] = [numbers(m * k, 1), numbers(n * k, 2)];
    expect(largestDifference(linear(x, weight, m, n, k), product(x, weight, m, n, k))).toBeLessThan(1e-5);
    const [xHalf, weightHalf] = [bf16(x), bf16(weight)];
    const exact = product(widen(xHalf), widen(weightHalf), m, n, k);
    expect(largestDifference(linear(xHalf, weightHalf, m, n, k), exact)).toBeLessThan(0.04);
  });

  it('refuses other types and lengths', () => {
    expect(() => linear(new Float32Array(4), new Uint16Array(4), 2, 2, 2)).toThrow(/Float32Array for `weight`/);
    expect(() => linear(new Uint16Array(4), new Float32Array(4), 2, 2, 2)).toThrow(/Uint16Array \(bf16\).*`weight`/);
    expect(() => linear(new Float32Array(5), new Float32Array(4), 2, 2, 2)).toThrow(/4 elements for `x`/);
  });
});

describe('rmsNorm', () => {
  it('is x / rms(x) * weight', () => {
    const [x, weight] = [numbers(3 * 50, 3), numbers(50, 4)];
    const expected = Float64Array.from(x, (value, i) => {
      const row = x.subarray(Math.floor(i / 50) * 50, Math.floor(i / 50) * 50 + 50);
      const mean = row.reduce((sum, one) => sum + one * one, 0) / 50;
      return (value / Math.sqrt(mean + 1e-6)) * weight[i % 50]!;
    });
    expect(largestDifference(rmsNorm(x, weight), expected)).toBeLessThan(1e-5);
    expect(() => rmsNorm(x, numbers(49, 1))).toThrow(/whole number of rows of 49/);
  });
});

describe('attention', () => {
  it.each([
    [1, true],
    [5, true],
    [130, true],
    [130, false],
  ])('of %i tokens, causal %s', (tokens, causal) => {
    const shape = { tokens, queryHeads: 4, kvHeads: 2, headDim: 16 };
    const [q, k, v] = [numbers(tokens * 64, 5), numbers(tokens * 32, 6), numbers(tokens * 32, 7)];
    const expected = new Float64Array(tokens * 64);
    for (let t = 0; t < tokens; t++) {
      for (let head = 0; head < 4; head++) {
        const kv = Math.floor(head / 2) * 16;
        const keys = causal ? t + 1 : tokens;
        const scores = Array.from({ length: keys }, (_, key) => {
          let score = 0;
          for (let d = 0; d < 16; d++) score += q[t * 64 + head * 16 + d]! * k[key * 32 + kv + d]!;
          return Math.exp(score / 4);
        });
        const sum = scores.reduce((total, score) => total + score, 0);
        for (let d = 0; d < 16; d++) {
          let out = 0;
          for (let key = 0; key < keys; key++) out += (scores[key]! / sum) * v[key * 32 + kv + d]!;
          expected[t * 64 + head * 16 + d] = out;
        }
      }
    }
    expect(largestDifference(attention(q, k, v, { ...shape, causal }), expected)).toBeLessThan(1e-5);
  });

  it('refuses a head size that is no multiple of 16', () => {
    const empty = new Float32Array(0);
    expect(() => attention(empty, empty, empty, { tokens: 1, queryHeads: 1, kvHeads: 1, headDim: 24 })).toThrow(
      /multiple of 16/,
    );
  });
});

describe('logprobs', () => {
  it('is log_softmax over the whole vocabulary, with entropies', () => {
    const [hiddenSize, vocabulary] = [33, 700];
    const [hidden, weight] = [numbers(2 * hiddenSize, 8), numbers(vocabulary * hiddenSize, 9)];
    const tokens = Int32Array.of(3, 699);
    const found = logprobs(hidden, weight, tokens, { hiddenSize, vocabulary, temperature: 0.7 });
    const logits = product(hidden, weight, 2, vocabulary, hiddenSize);
    tokens.forEach((token, row) => {
      const scaled = logits.subarray(row * vocabulary, (row + 1) * vocabulary).map((logit) => logit / 0.7);
      const normalizer = Math.log(scaled.reduce((sum, logit) => sum + Math.exp(logit), 0));
      const entropy = scaled.reduce((sum, logit) => sum - Math.exp(logit - normalizer) * (logit - normalizer), 0);
      expect(found.logprobs[row]).toBeCloseTo(scaled[token]! - normalizer, 4);
      expect(found.entropies[row]).toBeCloseTo(entropy, 4);
    });
    expect(() => logprobs(hidden, weight, Int32Array.of(0, 700), { hiddenSize, vocabulary })).toThrow(
      /token ids from 0 to 699/,
    );
  });
});

describe('sampleTokens', () => {
  const logits = Float32Array.of(0, 1, 2, 3, 3, 2, 1, 0);

  it('takes the best when greedy, and keeps what filters leave', () => {
    const greedy = sampleTokens(logits, { vocabulary: 4, greedy: true });
    expect([...greedy.tokens]).toEqual([3, 0]);
    const kept = sampleTokens(logits, { vocabulary: 4, topK: 1 });
    expect([...kept.tokens]).toEqual([3, 0]);
    expect(kept.logKeptMass[0]).toBeCloseTo(kept.logprobs[0]!, 5);
    expect(kept.logprobs[0]).toBeCloseTo(3 - Math.log(1 + Math.E + Math.E ** 2 + Math.E ** 3), 5);
  });

  it('draws by seed and row alone, with the right frequencies', () => {
    const rows = 4000;
    const many = new Float32Array(rows * 2).map((_, i) => (i % 2 === 0 ? Math.log(3) : 0));
    const first = sampleTokens(many, { vocabulary: 2, seed: 5 });
    expect(sampleTokens(many, { vocabulary: 2, seed: 5 }).tokens).toEqual(first.tokens);
    expect(sampleTokens(many, { vocabulary: 2, seed: 6 }).tokens).not.toEqual(first.tokens);
    const zeros = first.tokens.reduce((sum, token) => sum + Number(token === 0), 0);
    // Five standard deviations around 3/4.
    expect(Math.abs(zeros / rows - 0.75)).toBeLessThan(5 * Math.sqrt((0.75 * 0.25) / rows));
  });
});

describe('grpoLoss', () => {
  it('names the array that is missing', () => {
    expect(() => grpoLoss({} as never)).toThrow(/Expected Float64Array for `input\.\w+` but received undefined/);
    expect(() => dpoLoss({} as never)).toThrow(/Expected Float64Array for `input\.\w+` but received undefined/);
  });

  it('names the key that nobody reads', () => {
    const none = new Float64Array(0);
    expect(() => grpoLoss({ logProbs: none } as never)).toThrow(/`input\.logProbs`\. Did you mean `logprobs`/);
    expect(() => grpoLoss({ options: { epsilon: 0.1 } } as never)).toThrow(/`input\.options\.epsilon`/);
    expect(() => dpoLoss({ options: { loss_type: 'ipo' } } as never)).toThrow(/`input\.options\.loss_type`/);
  });

  const flat = (rows: number[][]): Float64Array => Float64Array.from(rows.flat());
  const input = {
    logprobs: flat([
      [-1, -0.5, -2],
      [-0.7, -1.5, -0.2],
      [-0.3, -0.9, -1.1],
      [-2.2, -0.4, -0.6],
    ]),
    oldLogprobs: flat([
      [-1.1, -0.9, -2],
      [-0.7, -1.2, -0.6],
      [-0.35, -0.6, -1.4],
      [-1.7, -0.4, -1],
    ]),
    referenceLogprobs: flat([
      [-1.2, -0.6, -1.7],
      [-0.9, -1, -0.3],
      [-0.5, -0.8, -1],
      [-2, -0.7, -0.5],
    ]),
    mask: Uint8Array.of(1, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 1),
    offsets: Int32Array.of(0, 3, 6, 9, 12),
    advantages: Float64Array.of(0.7070067953, -0.7070067953, 0.7067070073, -0.7067070073),
  };

  it.each([
    [{ lossType: 'grpo' }, -0.027527, 0.247398, -0.065114],
    [{ lossType: 'grpo', epsilonHigh: 0.28 }, -0.032241, 0.247398, -0.065114],
    [{ lossType: 'grpo', delta: 1.1 }, -0.038517, 0.221918, 0],
    [{ lossType: 'grpo', beta: 0.04 }, -0.026221, 0.246305, -0.064377],
    [{ lossType: 'grpo', beta: 0.04, klBiasCorrection: false }, -0.026033, 0.246596, -0.064509],
    [{ lossType: 'grpo', importanceSampling: 'sequence' }, -0.071526, 0.265211, -0.069602],
    [{ lossType: 'bnpo' }, 0.057694, 0.215829, -0.086818],
    [{}, 0.057694, 0.215829, -0.086818],
    [{ lossType: 'dr_grpo', maxCompletionLength: 4 }, 0.032453, 0.121404, -0.048835],
    [{ lossType: 'sapo' }, -0.094589, 0.268962, -0.064934],
    [{ lossType: 'cispo', epsilonHigh: 1.3 }, -0.019962, 0.243648, -0.086818],
    [{ lossType: 'vespo' }, -0.214102, 0.170102, -0.030498],
    [{ lossType: 'luspo' }, 0.129812, 0.485615, -0.195341],
  ] as const)('%j', (options, loss, norm, first) => {
    const found = grpoLoss({ ...input, options });
    expect(found.loss).toBeCloseTo(loss, 6);
    expect(Math.hypot(...found.gradient)).toBeCloseTo(norm, 6);
    expect(found.gradient[0]).toBeCloseTo(first, 6);
    expect(found.gradient[5]).toBe(0);
  });

  it('is on-policy without old log-probs, and names its metrics', () => {
    const { oldLogprobs: _old, ...onPolicy } = input;
    const found = grpoLoss(onPolicy);
    expect(found.loss).toBeCloseTo(0.07849, 5);
    expect(found.metrics['clip_ratio/region_mean']).toBe(0);
    expect(grpoLoss(input).metrics['clip_ratio/region_mean']).toBeCloseTo(1 / 3, 6);
  });

  it('refuses offsets that do not fit, and a beta without reference', () => {
    const { referenceLogprobs: _reference, ...without } = input;
    expect(() => grpoLoss({ ...without, options: { beta: 0.1 } })).toThrow(/`input.referenceLogprobs`/);
    expect(() => grpoLoss({ ...input, offsets: Int32Array.of(0, 3, 2, 9, 12) })).toThrow(/`input.offsets`/);
  });
});
