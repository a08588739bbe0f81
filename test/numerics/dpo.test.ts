// Direct preference optimization through a model: log 2 before the first step, the gradient of plain log-probs there, pairs
// in one group or in two, any cut into micro-batches, and a margin that grows.
import { afterAll, describe, expect, it } from 'vitest';
import type { NativeDpoObjective, NativeObjective } from '../../src/binding/contract-objectives.js';
import type { NativeCompletionInput, NativeGroup, NativeModel } from '../../src/binding/contract.js';
import { group, job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';
import { relativeL2 } from './golden.js';

const engine = makeEngine();
afterAll(() => engine.dispose());
const model = await loadGoldenModel(engine, 'micro-text');

const noise = (index: number): number => Math.abs(Math.sin(index * 12.9898) * 43758.5453) % 1;
const tokens = (length: number, key: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => 3 + Math.floor(noise(key * 100 + i) * 500));
const completion = (length: number, key: number): NativeCompletionInput => ({
  tokens: tokens(length, key),
  temperature: 0.9,
  mask: Uint8Array.from({ length }, (_, i) => (i === 2 && key % 2 === 1 ? 0 : 1)),
});

// Completions 0 1 | 2 | 3 | 4 5 | 6 | 7; the pairs of 2 and 3 with 6 and 7 cross: groups 1, 2, 4 and 5 interleave.
const bare: NativeGroup[] = [
  group(tokens(7, 1), [completion(5, 10), completion(9, 11)]),
  group(tokens(12, 2), [completion(4, 12)]),
  group(tokens(3, 3), [completion(8, 13)]),
  group(tokens(20, 4), [completion(6, 14), completion(3, 15)]),
  group(tokens(12, 2), [completion(7, 16)]),
  group(tokens(3, 3), [completion(2, 17)]),
];
const pairs = { chosen: Int32Array.of(0, 2, 7, 5), rejected: Int32Array.of(1, 6, 3, 4) };

async function withReference(shift: number): Promise<NativeGroup[]> {
  const { logprobs } = await model.logprobs(bare, { ...stepOptions, entropy: false }, job());
  let at = 0;
  return bare.map((one) => ({
    ...one,
    completions: one.completions.map((each) => {
      const own = logprobs.slice(at, (at += each.tokens.length));
      return { ...each, referenceLogprobs: own.map((value, i) => value + (noise(i + at) - 0.5) * shift) };
    }),
  }));
}

const dpo = (changes: Partial<NativeDpoObjective> = {}): NativeDpoObjective => ({
  kind: 'dpo',
  weight: 1,
  loss: 'sigmoid',
  beta: 0.1,
  labelSmoothing: 0,
  pairs,
  ...changes,
});

interface Step {
  loss: number;
  metrics: Record<string, number>;
  gradients: Float32Array[];
  logprobs: Float32Array;
  microBatches: number;
}

async function step(
  groups: NativeGroup[],
  objectives: NativeObjective[],
  options: Partial<typeof stepOptions> = {},
  target: NativeModel = model,
): Promise<Step> {
  await target.zeroGradients();
  const result = await target.forwardBackward(groups, objectives, { ...stepOptions, ...options }, job());
  const gradients = await Promise.all(target.tensors().map(({ name }) => target.readTensor(name, 'gradient')));
  await target.zeroGradients();
  return { ...result, gradients };
}

const far = (a: Float32Array[], b: Float32Array[]): number => Math.max(...a.map((one, i) => relativeL2(one, b[i]!)));

describe('dpo with the reference equal to the policy', async () => {
  const groups = await withReference(0);

  it.each([4096, 1])('has the loss log 2 exactly, in micro-batches of %i tokens', async (maxTokensPerMicroBatch) => {
    const found = await step(groups, [dpo()], { maxTokensPerMicroBatch });
    expect(found.loss).toBe(Math.LN2);
    expect(found.metrics).toMatchObject({ 'rewards/chosen': 0, 'rewards/rejected': 0, 'rewards/accuracies': 0 });
    expect(found.metrics['rewards/margins']).toBe(0);
  });

  it('has the gradient of log-probs, whatever the reference is: bit for bit that of on-policy luspo', async () => {
    // Per token beta / 2 over 4 pairs for chosen, minus that for rejected; luspo: advantage over 8 completions.
    const asAdvantages = groups.map((one) => ({ ...one }));
    let index = 0;
    for (const one of asAdvantages) {
      one.completions = one.completions.map((each) => ({
        ...each,
        advantage: pairs.chosen.includes(index++) ? 0.5 : -0.5,
      }));
    }
    const luspo: NativeObjective = {
      kind: 'grpo',
      weight: 1,
      lossType: 'luspo',
      importanceSampling: 'token',
      epsilonLow: 0.2,
      epsilonHigh: 0.2,
      delta: 0,
      beta: 0,
      klBiasCorrection: true,
      klClamp: 0,
      maxCompletionLength: 0,
    };
    const found = await step(groups, [dpo({ beta: 0.5 })]);
    expect(found.gradients.some((one) => one.some((value) => value !== 0))).toBe(true);
    // The same order of groups, so the same order of additions.
    const order = [0, 1, 4, 2, 5, 3];
    const ordered = await step(
      order.map((g) => asAdvantages[g]!),
      [luspo],
    );
    expect(found.gradients).toEqual(ordered.gradients);
  });
});

describe('dpo', async () => {
  const groups = await withReference(0.8);

  it.each([
    ['sigmoid', dpo()],
    ['label smoothing', dpo({ beta: 2, labelSmoothing: 0.1 })],
    ['ipo', dpo({ loss: 'ipo' })],
  ] as const)('is the same for any cut: %s', async (_name, objective) => {
    const whole = await step(groups, [objective]);
    expect(whole.microBatches).toBe(1);
    expect(whole.metrics['rewards/margins']).toBeCloseTo(
      whole.metrics['rewards/chosen']! - whole.metrics['rewards/rejected']!,
      12,
    );
    // Four units: a group, groups 1 and 4, 2 and 5, a group.
    const cut = await step(groups, [objective], { maxTokensPerMicroBatch: 1 });
    expect(cut.microBatches).toBe(4);
    expect(Math.abs(cut.loss - whole.loss)).toBeLessThan(1e-6);
    expect(far(cut.gradients, whole.gradients)).toBeLessThan(1e-5);
    expect(cut.logprobs).toEqual(whole.logprobs);
    for (const [name, value] of Object.entries(whole.metrics)) expect(cut.metrics[name], name).toBeCloseTo(value, 10);
    // Log-probs come back in the order of the call, though units reorder its groups.
    const { logprobs } = await model.logprobs(groups, { ...stepOptions, entropy: false }, job());
    expect(cut.logprobs).toEqual(logprobs);
  });

  it('takes a step in several calls', async () => {
    const whole = await step(groups, [dpo()]);
    await model.zeroGradients();
    let loss = 0;
    for (const p of [3, 0, 2, 1]) {
      const one = { chosen: pairs.chosen.slice(p, p + 1), rejected: pairs.rejected.slice(p, p + 1) };
      loss += (await model.forwardBackward(groups, [dpo({ pairs: one, stepPairs: 4 })], stepOptions, job())).loss;
    }
    const gradients = await Promise.all(model.tensors().map(({ name }) => model.readTensor(name, 'gradient')));
    await model.zeroGradients();
    expect(Math.abs(loss - whole.loss)).toBeLessThan(1e-12);
    expect(far(gradients, whole.gradients)).toBeLessThan(1e-5);
  });

  it('joins a language loss, and at weight 0 is not there', async () => {
    const nll: NativeObjective = { kind: 'nll', weight: 0.5, normalization: 'tokens' };
    const [alone, other, both] = [
      await step(groups, [dpo()]),
      await step(groups, [nll]),
      await step(groups, [nll, dpo()]),
    ];
    expect(both.loss).toBeCloseTo(alone.loss + other.loss, 6);
    expect(both.metrics).toMatchObject({ ...other.metrics, 'rewards/margins': alone.metrics['rewards/margins'] });
    const sum = alone.gradients.map((one, i) => one.map((value, k) => value + other.gradients[i]![k]!));
    expect(far(both.gradients, sum)).toBeLessThan(1e-5);
    const absent = await step(groups, [nll, dpo({ weight: 0 })]);
    expect(absent).toEqual(other);
  });

  it.each(['sigmoid', 'ipo'] as const)('widens the margin: %s', async (loss) => {
    const trained = await loadGoldenModel(engine, 'micro-text');
    const start = await withReference(0);
    const objective = dpo({ loss, beta: 0.5 });
    const adamw = { learningRate: 5e-5, beta1: 0.9, beta2: 0.999, eps: 1e-8, weightDecay: 0, maxGradNorm: 1 };
    const losses: number[] = [];
    const accuracies: number[] = [];
    for (let i = 0; i < 6; i++) {
      const result = await trained.forwardBackward(start, [objective], stepOptions, job());
      losses.push(result.loss);
      accuracies.push(result.metrics['rewards/accuracies']!);
      await trained.optimizerStep({ ...adamw, decayParameters: 'matrices' });
    }
    expect(losses).toEqual([...losses].sort((a, b) => b - a));
    expect(accuracies.at(-1)).toBe(1);
    await trained.dispose();
  });
});
