// Before the first step the policy is its own reference: the KL is exactly 0 and moves nothing. And the entropy bonus, whose
// gradient goes through the head by a way of its own.
import { afterAll, describe, expect, it } from 'vitest';
import type { NativeGrpoObjective } from '../../src/binding/contract-objectives.js';
import type { NativeGroup, NativeModel } from '../../src/binding/contract.js';
import { group, job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';

const dapo: NativeGrpoObjective = {
  kind: 'grpo',
  weight: 1,
  lossType: 'dapo',
  importanceSampling: 'token',
  epsilonLow: 0.2,
  epsilonHigh: 0.2,
  delta: 0,
  beta: 0,
  klBiasCorrection: true,
  klClamp: 10,
  maxCompletionLength: 0,
};

const bare: NativeGroup[] = [
  group(
    [5, 9, 33, 21, 7],
    [
      { tokens: Int32Array.of(11, 45, 3, 77, 505), advantage: 0.75, temperature: 0.9 },
      { tokens: Int32Array.of(12, 45, 3), advantage: -0.5, temperature: 0.9 },
    ],
  ),
  group([8, 30], [{ tokens: Int32Array.of(200, 6, 41, 99), mask: Uint8Array.of(1, 1, 0, 1), advantage: -0.25 }]),
];

/** Groups with their own log-probs under these names. */
async function withOwn(model: NativeModel, names: ('oldLogprobs' | 'referenceLogprobs')[]): Promise<NativeGroup[]> {
  const { logprobs } = await model.logprobs(bare, { ...stepOptions, entropy: false }, job());
  let at = 0;
  return bare.map((one) => ({
    ...one,
    completions: one.completions.map((completion) => {
      const own = logprobs.slice(at, (at += completion.tokens.length));
      return { ...completion, ...Object.fromEntries(names.map((name) => [name, own])) };
    }),
  }));
}

async function gradientsOf(
  model: NativeModel,
  groups: NativeGroup[],
  objective: NativeGrpoObjective,
  maxTokensPerMicroBatch = 4096,
): Promise<{ loss: number; metrics: Record<string, number>; gradients: Float32Array[] }> {
  await model.zeroGradients();
  const options = { ...stepOptions, maxTokensPerMicroBatch };
  const { loss, metrics } = await model.forwardBackward(groups, [objective], options, job());
  const gradients = await Promise.all(model.tensors().map(({ name }) => model.readTensor(name, 'gradient')));
  await model.zeroGradients();
  return { loss, metrics, gradients };
}

const engine = makeEngine();
afterAll(() => engine.dispose());

describe.each(['fp32', 'bf16'] as const)('step 0 in %s', async (dtype) => {
  const model = await loadGoldenModel(engine, 'micro-text', dtype);
  const groups = await withOwn(model, ['oldLogprobs', 'referenceLogprobs']);

  it.each([4096, 1])('has a KL of exactly 0, with micro-batches of %i tokens', async (budget) => {
    for (const klEstimator of ['k1', 'k2', 'k3'] as const) {
      const { metrics } = await gradientsOf(model, groups, { ...dapo, beta: 0.5, klEstimator }, budget);
      expect(Math.abs(metrics['kl']!)).toBe(0);
    }
  });

  it('moves nothing by k2 and k3', async () => {
    const without = await gradientsOf(model, groups, dapo);
    expect(without.gradients.some((one) => one.some((value) => value !== 0))).toBe(true);
    for (const klEstimator of ['k2', 'k3'] as const) {
      const leashed = await gradientsOf(model, groups, { ...dapo, beta: 0.5, klEstimator });
      expect(leashed.loss).toBe(without.loss);
      expect(leashed.gradients).toEqual(without.gradients);
    }
  });
});

describe('the entropy bonus', async () => {
  const model = await loadGoldenModel(engine, 'micro-text');
  const silent = bare.map((one) => ({
    ...one,
    completions: one.completions.map((completion) => ({ ...completion, advantage: 0 })),
  }));
  const bonus = { ...dapo, entropyCoef: 1 };

  it('is the mean entropy of active tokens', async () => {
    const { loss, metrics } = await gradientsOf(model, silent, bonus);
    const { entropies } = await model.logprobs(bare, { ...stepOptions, entropy: true }, job());
    const active = entropies.filter((_, t) => t !== 10);
    const mean = active.reduce((sum, value) => sum + value, 0) / active.length;
    expect(loss).toBeCloseTo(-mean, 6);
    expect(metrics['entropy']).toBeCloseTo(mean, 6);
    expect(Math.abs(metrics['policy_loss']!)).toBe(0);
  });

  it('has the gradient of finite differences', async () => {
    const { gradients } = await gradientsOf(model, silent, bonus);
    for (const [i, { name }] of model.tensors().entries()) {
      const gradient = gradients[i]!;
      const squared = gradient.reduce((sum, value) => sum + value * value, 0);
      if (squared < 1e-10) continue;
      const value = await model.readTensor(name, 'value');
      const lossAt = async (length: number): Promise<number> => {
        const moved = value.map((one, k) => one + (length * gradient[k]!) / Math.sqrt(squared));
        await model.writeTensor(name, 'value', moved);
        return (await gradientsOf(model, silent, bonus)).loss;
      };
      const h = 0.02;
      const slope =
        (8 * ((await lossAt(h)) - (await lossAt(-h))) - ((await lossAt(2 * h)) - (await lossAt(-2 * h)))) / (12 * h);
      await model.writeTensor(name, 'value', value);
      expect(Math.abs(slope / Math.sqrt(squared) - 1), name).toBeLessThan(0.01);
    }
  });
});
