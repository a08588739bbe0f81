// The gradient of a step does not depend on how its rows are cut into micro-batches or calls, for every policy loss:
// denominators belong to the whole optimizer step.
import { afterAll, describe, expect, it } from 'vitest';
import type { NativeGrpoObjective, NativeLossType } from '../../src/binding/contract-objectives.js';
import type { NativeGroup } from '../../src/binding/contract.js';
import { group, job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';
import { relativeL2 } from './golden.js';

const lossTypes: NativeLossType[] = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo'];

const objective = (lossType: NativeLossType, importanceSampling: 'token' | 'sequence'): NativeGrpoObjective => ({
  kind: 'grpo',
  weight: 1,
  lossType,
  importanceSampling,
  epsilonLow: 0.2,
  epsilonHigh: lossType === 'cispo' ? 3 : 0.28,
  delta: 0,
  beta: 0.04,
  klBiasCorrection: true,
  klClamp: 0,
  maxCompletionLength: 24,
});

/** Numbers in [0, 1) of an index. */
const noise = (index: number): number => Math.abs(Math.sin(index * 12.9898) * 43758.5453) % 1;

describe('the gradient of a GRPO step', async () => {
  const engine = makeEngine();
  afterAll(() => engine.dispose());
  const model = await loadGoldenModel(engine, 'micro-text');

  // Unlike lengths, a masked token, a group of another size: every denominator would differ from cut to cut.
  const bare: NativeGroup[] = [
    [7, [3, 19, 11]],
    [31, [1, 8]],
    [2, [24, 5, 13, 2]],
    [12, [9, 9]],
  ].map(([promptLength, lengths], g) =>
    group(
      Array.from({ length: promptLength as number }, (_, i) => 3 + Math.floor(noise(g * 100 + i) * 500)),
      (lengths as number[]).map((length, c) => ({
        tokens: Int32Array.from({ length }, (_, i) => 3 + Math.floor(noise(g * 1000 + c * 50 + i + 7) * 500)),
        mask: Uint8Array.from({ length }, (_, i) => (i === 2 && c === 1 ? 0 : 1)),
        advantage: noise(g * 10 + c + 1) * 3 - 1.5,
      })),
    ),
  );
  const { logprobs } = await model.logprobs(bare, { ...stepOptions, entropy: false }, job());
  let at = 0;
  const groups = bare.map((one) => ({
    ...one,
    completions: one.completions.map((completion) => {
      const own = logprobs.slice(at, (at += completion.tokens.length));
      return {
        ...completion,
        oldLogprobs: own.map((value, i) => value + (noise(i + at) - 0.5) * 0.6),
        referenceLogprobs: own.map((value, i) => value + (noise(i + 2 * at) - 0.5) * 0.4),
      };
    }),
  }));
  const stepCompletions = groups.reduce((sum, { completions }) => sum + completions.length, 0);
  const stepTokens = groups
    .flatMap(({ completions }) => completions)
    .reduce((sum, { mask }) => sum + mask!.reduce((ones, bit) => ones + bit, 0), 0);

  /** Loss and gradients of a step made of several calls. */
  async function step(
    parts: NativeGroup[][],
    kind: NativeGrpoObjective,
    options: Partial<typeof stepOptions> & { stepCompletions?: number; stepTokens?: number },
  ): Promise<{ loss: number; gradients: Float32Array[]; microBatches: number }> {
    await model.zeroGradients();
    let loss = 0;
    let microBatches = 0;
    for (const part of parts) {
      const result = await model.forwardBackward(part, [kind], { ...stepOptions, ...options }, job());
      loss += result.loss;
      microBatches += result.microBatches;
    }
    const gradients = await Promise.all(model.tensors().map(({ name }) => model.readTensor(name, 'gradient')));
    await model.zeroGradients();
    return { loss, gradients, microBatches };
  }

  const far = (a: Float32Array[], b: Float32Array[]): number => Math.max(...a.map((one, i) => relativeL2(one, b[i]!)));

  const everyCase = lossTypes.flatMap((type) =>
    (['token', 'sequence'] as const).map((level) => [type, level] as const),
  );

  it.each(everyCase)('%s with ratios by %s is the same for any cut', async (type, level) => {
    const kind = objective(type, level);
    const whole = await step([groups], kind, {});
    expect(whole.microBatches).toBe(1);
    expect(Math.max(...whole.gradients.flatMap((one) => [...one].map(Math.abs)))).toBeGreaterThan(1e-4);
    for (const [budget, count] of [
      [1, 4],
      [72, 3],
    ] as const) {
      const cut = await step([groups], kind, { maxTokensPerMicroBatch: budget });
      expect(cut.microBatches).toBe(count);
      expect(Math.abs(cut.loss - whole.loss)).toBeLessThan(1e-6);
      expect(far(cut.gradients, whole.gradients)).toBeLessThan(1e-5);
    }
    const denominators = { stepCompletions, stepTokens };
    const calls = await step([groups.slice(2), groups.slice(0, 2)], kind, denominators);
    expect(Math.abs(calls.loss - whole.loss)).toBeLessThan(1e-6);
    expect(far(calls.gradients, whole.gradients)).toBeLessThan(1e-5);
    // Calls that know nothing of each other give another step: the comparison above can fail.
    const apart = await step([groups.slice(2), groups.slice(0, 2)], kind, {});
    expect(far(apart.gradients, whole.gradients)).toBeGreaterThan(0.1);
  });

  // Every filter, bonus and factor that knows of other tokens than its own.
  const filtered = (type: NativeLossType, level: 'token' | 'sequence'): NativeGrpoObjective => ({
    ...objective(type, level),
    klEstimator: 'k2',
    ...(['cispo', 'sapo', 'vespo'].includes(type) ? {} : { dualClip: 1.1 }),
    entropyCoef: 0.05,
    topEntropyQuantile: 0.6,
    offPolicyThreshold: 0.02,
  });
  const weighted = groups.map((one, g) => ({
    ...one,
    completions: one.completions.map((completion, c) => ({
      ...completion,
      samplingLogprobs: completion.oldLogprobs.map((value, i) => value + (noise(i + 70 * g + 9 * c) - 0.5) * 0.3),
      importanceRatio: Float32Array.from(completion.mask!, (on, i) => (on === 1 ? 0.5 + noise(i + 31 * g + c) : 1)),
    })),
  }));

  it.each(everyCase)(
    '%s with ratios by %s, filters, entropy bonus and factors is the same for any cut',
    async (...one) => {
      const kind = filtered(...one);
      const whole = await step([weighted], kind, {});
      expect(whole.microBatches).toBe(1);
      for (const [budget, count] of [
        [1, 4],
        [72, 3],
      ] as const) {
        const cut = await step([weighted], kind, { maxTokensPerMicroBatch: budget });
        expect(cut.microBatches).toBe(count);
        expect(Math.abs(cut.loss - whole.loss)).toBeLessThan(1e-6);
        expect(far(cut.gradients, whole.gradients)).toBeLessThan(1e-5);
      }
    },
  );

  it('moves with the bonus, each filter and each factor, so that the comparisons above see them', async () => {
    const kind = filtered('dapo', 'token');
    const whole = await step([weighted], kind, {});
    for (const off of [{ entropyCoef: 0 }, { topEntropyQuantile: 1 }, { offPolicyThreshold: 1e9 }, { dualClip: 0 }]) {
      const other = await step([weighted], { ...kind, ...off }, {});
      expect(far(other.gradients, whole.gradients), JSON.stringify(off)).toBeGreaterThan(1e-3);
    }
    expect(far((await step([groups], kind, {})).gradients, whole.gradients)).toBeGreaterThan(1e-3);
  });

  it.each(everyCase)(
    '%s with ratios by %s counts rows that were dropped because their advantage is 0',
    async (...one) => {
      const kind = { ...objective(...one), beta: 0 };
      const some = groups.map((each, g) => ({
        ...each,
        completions: each.completions.map((completion) => (g === 1 ? { ...completion, advantage: 0 } : completion)),
      }));
      const whole = await step([some], kind, {});
      const dropped = await step([some.filter((_, g) => g !== 1)], kind, { stepCompletions, stepTokens });
      expect(Math.abs(dropped.loss - whole.loss)).toBeLessThan(1e-6);
      expect(far(dropped.gradients, whole.gradients)).toBeLessThan(1e-5);
      const forgotten = await step([some.filter((_, g) => g !== 1)], kind, {});
      expect(far(forgotten.gradients, whole.gradients)).toBeGreaterThan(0.05);
    },
  );

  it('finds the entropy threshold of several micro-batches beforehand, to the bit', async () => {
    const kind = { ...objective('dapo', 'token'), topEntropyQuantile: 0.35 };
    const { topEntropyQuantile, ...given } = kind;
    const { entropies } = await model.logprobs(groups, { ...stepOptions, entropy: true }, job());
    const mask = groups.flatMap(({ completions }) => completions.flatMap((completion) => [...completion.mask!]));
    const sorted = entropies.filter((_, i) => mask[i] === 1).sort();
    const rank = (1 - topEntropyQuantile) * (sorted.length - 1);
    const [low, high] = [sorted[Math.floor(rank)]!, sorted[Math.floor(rank) + 1]!];
    const entropyThreshold = low + (rank - Math.floor(rank)) * (high - low);
    for (const maxTokensPerMicroBatch of [1, 72, 4096]) {
      const found = await step([groups], kind, { maxTokensPerMicroBatch });
      const stated = await step([groups], { ...given, entropyThreshold }, { maxTokensPerMicroBatch });
      expect(found).toEqual(stated);
    }
    // So a step of several calls has the gradient of one.
    const whole = await step([groups], kind, {});
    const denominators = { stepCompletions, stepTokens };
    const calls = await step([groups.slice(2), groups.slice(0, 2)], { ...given, entropyThreshold }, denominators);
    expect(far(calls.gradients, whole.gradients)).toBeLessThan(1e-5);
  });
});
