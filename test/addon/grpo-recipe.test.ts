/** The GRPO recipe's family over the real engine: losses, updates, dynamic sampling, KL in the reward, being killed. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Model } from '../../src/engine/index.js';
import type { Judgement } from '../../src/evaluation/judgement.js';
import type { StepEnd } from '../../src/recipes/events.js';
import { grpo, type GrpoOptions } from '../../src/recipes/grpo.js';
import { train, type TrainOptions } from '../../src/recipes/job.js';
import { defaultJudge, type Judge } from '../../src/recipes/judge.js';
import type { Policy } from '../../src/recipes/policy.js';
import type { RewardInput } from '../../src/rewards/reward.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { scanJsonLines } from '../../src/runs/json-lines.js';
import type { MarkedSample } from '../../src/runs/sample-pool.js';
import { atStep, collect, JudgeFixture, killedAt, stepsOf, weightsOf } from './judge-fixture.js';
import { temporaryFolder } from './model-fixture.js';

const fixture = JudgeFixture.ofThisFile();
const base: GrpoOptions = {
  groupSize: 4,
  promptsPerStep: 4,
  steps: 1,
  learningRate: 1e-3,
  maxCompletionLength: 10,
  schedule: { kind: 'constant', warmupSteps: 0 },
  gate: { enabled: false },
  beta: 0,
};

const judged = (reward: (input: RewardInput) => number | null | Promise<number | null>): Judge => ({
  ...defaultJudge,
  rewards: [{ name: 'own', reward }],
});
/** Differs within nearly every group. */
const byTokens = judged(({ tokens }) => tokens.reduce((sum, token) => sum + token, 0) % 7);
/** Every other prompt, by its id, has nothing to teach. */
const isIdle = (id: string): boolean => /[02468]$/.test(id);
const halfIdle = judged(({ row, tokens }) => (isIdle(row.id) ? 1 : tokens.reduce((sum, token) => sum + token, 0) % 7));

const recipe = (options: GrpoOptions, judge = byTokens, prompts = 8): ReturnType<typeof grpo> =>
  grpo({
    data: fixture.data.pool(prompts),
    judge,
    validation: fixture.validation(1),
    options: { ...base, ...options },
  });

interface Outcome {
  steps: StepEnd[];
  weights: number[];
  optimizerSteps: number;
}

async function runOn(
  policy: Policy,
  model: Model,
  made: ReturnType<typeof grpo>,
  options: TrainOptions = {},
): Promise<Outcome> {
  const job = train(policy, made, options);
  const steps = stepsOf(await collect(job));
  await job.result;
  return { steps, weights: await weightsOf(model), optimizerSteps: model.optimizerSteps };
}

const outcome = (options: GrpoOptions, judge = byTokens, prompts = 8): Promise<Outcome> =>
  fixture.withPolicy((policy, model) => runOn(policy, model, recipe(options, judge, prompts)));

/** What the pool of a run holds. */
async function samplesIn(folder: string): Promise<MarkedSample[]> {
  const samples: MarkedSample[] = [];
  for await (const { value } of scanJsonLines(join(folder, 'samples', 'pool.jsonl'))) {
    samples.push(value as MarkedSample);
  }
  return samples;
}

function groupsOf(samples: readonly MarkedSample[]): Map<string, MarkedSample[]> {
  const groups = new Map<string, MarkedSample[]>();
  for (const sample of samples) groups.set(sample.item, [...(groups.get(sample.item) ?? []), sample]);
  return groups;
}

const farthest = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);

describe('every loss of the family', () => {
  it.each<[string, GrpoOptions]>([
    ['grpo, dual clip', { lossType: 'grpo', dualClip: 3, epsilonHigh: 0.28 }],
    ['bnpo, delta', { lossType: 'bnpo', delta: 1.5 }],
    ['dr_grpo, no scale', { lossType: 'dr_grpo', scaleRewards: 'none' }],
    ['dapo, entropy bonus', { lossType: 'dapo', entropyCoef: 0.01 }],
    ['cispo', { lossType: 'cispo', epsilonHigh: 5 }],
    ['sapo, entropy filter', { lossType: 'sapo', topEntropyQuantile: 0.5 }],
    ['luspo of sequences', { lossType: 'luspo', importanceSampling: 'sequence' }],
    ['vespo, off-policy test', { lossType: 'vespo', offPolicyThreshold: 0.5 }],
    ['KL of k1, bias correction', { beta: 0.1, klEstimator: 'k1', klBiasCorrection: true }],
    ['leave one out', { baseline: 'leave_one_out', scaleRewards: 'batch' }],
    ['z-scores', { aggregation: 'normalize_then_sum' }],
  ])('%s: trains with two updates a rollout', async (_, options) => {
    const { steps, optimizerSteps } = await outcome({ ...options, updatesPerRollout: 2 });
    expect(optimizerSteps).toBe(2);
    expect(steps).toHaveLength(1);
    expect(steps[0]!.gradNorm).toBeGreaterThan(0);
    expect(Object.values(steps[0]!.metrics).every(Number.isFinite)).toBe(true);
    expect(steps[0]!.metrics).toMatchObject({ updates: 2, 'sampling/sampling_logp_difference/max': 0 });
    expect(steps[0]!.metrics['entropy']).toBeGreaterThan(0);
  });
});

describe('stop strings', () => {
  const texts = (stopStrings?: string[], own?: string[]): Promise<string[]> =>
    fixture.withPolicy(async (policy) => {
      const found: string[] = [];
      const validation = {
        ...fixture.validation(2),
        onJudgement: ({ text }: Judgement): number => found.push(text!),
        options: { maxNewTokens: 24, temperature: 1, ...(own && { stopStrings: own }) },
      };
      const options = { ...base, ...(stopStrings && { stopStrings }) };
      await train(policy, grpo({ data: fixture.data.pool(4), judge: byTokens, validation, options })).result;
      return found;
    });

  it('of training end what is validated too, unless the validation has its own', async () => {
    const free = await texts();
    const longest = free.toSorted((a, b) => b.length - a.length)[0]!;
    const stop = longest.trim().split(' ')[1]!;
    const cut = (await texts([stop]))[free.indexOf(longest)]!;
    expect(cut.length).toBeLessThan(longest.length);
    expect(longest.startsWith(cut)).toBe(true);
    expect(cut).toContain(stop);
    expect(await texts([stop], [])).toEqual(free);
  });
});

describe('updates', () => {
  it('keep the log-probs of sampling as the old ones: from the second on ratios leave 1', async () => {
    const once = await outcome({ learningRate: 0.02 });
    const twice = await outcome({ learningRate: 0.02, updatesPerRollout: 3 });
    expect(once.steps[0]!.metrics).toMatchObject({ 'clip_ratio/region_mean': 0, updates: 1 });
    expect(twice.steps[0]!.metrics['clip_ratio/region_mean']).toBeGreaterThan(0);
  });

  it('go over the rollout in batches, an optimizer step each', async () => {
    const { steps, optimizerSteps } = await outcome({ updatesPerRollout: 2, updateBatches: 4 });
    expect(optimizerSteps).toBe(8);
    expect(steps[0]!.metrics).toMatchObject({ updates: 8 });
  });

  it('left-out groups count in the denominators: the step is that of a pack with them, up to rounding', async () => {
    const dropped = await outcome({ dropZeroVarianceGroups: true }, halfIdle);
    const packed = await outcome({ dropZeroVarianceGroups: false }, halfIdle);
    const untouched = await fixture.withPolicy((_policy, model) => weightsOf(model));
    expect(dropped.steps[0]!.metrics['frac_reward_zero_std']).toBeGreaterThan(0);
    expect(dropped.steps[0]!.metrics['num_tokens']!).toBeLessThan(packed.steps[0]!.metrics['num_tokens']!);
    expect(dropped.steps[0]!.loss).toBeCloseTo(packed.steps[0]!.loss, 6);
    expect(dropped.steps[0]!.gradNorm).toBeCloseTo(packed.steps[0]!.gradNorm, 5);
    expect(farthest(dropped.weights, untouched)).toBeGreaterThan(5e-4);
  });

  it('there is none where every completion is truncated and masked', async () => {
    const { steps, optimizerSteps, weights } = await outcome({
      maskTruncatedCompletions: true,
      maxCompletionLength: 1,
    });
    const untouched = await fixture.withPolicy((_policy, model) => weightsOf(model));
    expect(steps[0]!.metrics).toMatchObject({ updates: 0, 'completions/clipped_ratio': 1, loss: 0 });
    expect(optimizerSteps).toBe(0);
    expect(weights).toEqual(untouched);
  });
});

describe('KL in the reward', () => {
  it('charges nothing while policy and reference are one: the first step is that of beta 0, bit for bit', async () => {
    const charged = await outcome({ beta: 0.1, klIn: 'reward', steps: 2 });
    const plain = await outcome({ steps: 2 });
    expect(charged.steps[0]!.metrics['kl']).toBe(0);
    expect(charged.steps[0]!.loss).toBe(plain.steps[0]!.loss);
    expect(charged.steps[0]!.gradNorm).toBe(plain.steps[0]!.gradNorm);
    expect(charged.steps[1]!.metrics['kl']).toBeGreaterThan(0);
    expect(charged.weights).not.toEqual(plain.weights);
  });
});

describe('dynamic sampling', () => {
  it('replaces groups that teach nothing, up to its rounds, and keeps every sample', async () => {
    const folder = join(await temporaryFolder(), 'run');
    const { steps } = await fixture.withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(folder, {});
      return await runOn(policy, model, recipe({ dynamicSamplingRounds: 6 }, halfIdle, 12), { run });
    });
    const { metrics } = steps[0]!;
    const samples = await samplesIn(folder);
    const idle = new Set(samples.map(({ item }) => item).filter(isIdle));
    expect(metrics['dynamic_sampling/groups_replaced']).toBe(idle.size);
    expect(idle.size).toBeGreaterThan(0);
    expect(metrics['dynamic_sampling/groups_drawn']).toBe(4 + idle.size);
    expect(samples).toHaveLength(4 * (4 + idle.size));
    expect(metrics['frac_reward_zero_std']).toBeCloseTo(idle.size / (4 + idle.size), 12);
  });

  it('gives up after its rounds: what is left stays in the step, and trains nothing', async () => {
    const same = judged(() => 1);
    const { steps, optimizerSteps } = await outcome({ dynamicSamplingRounds: 2 }, same);
    expect(steps[0]!.metrics).toMatchObject({
      'dynamic_sampling/rounds': 2,
      'dynamic_sampling/groups_drawn': 12,
      'dynamic_sampling/groups_replaced': 8,
      updates: 0,
    });
    expect(optimizerSteps).toBe(0);
  });

  it('replaced groups do not count in the denominators: on policy the loss is -sum(A L) / sum(L) of those it kept', async () => {
    const folder = join(await temporaryFolder(), 'run');
    const options = { lossType: 'dapo', maxCompletionLength: 40, dynamicSamplingRounds: 6 } as const;
    const { steps } = await fixture.withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(folder, {});
      return await runOn(policy, model, recipe(options, halfIdle, 12), { run });
    });
    const kept = [...groupsOf(await samplesIn(folder))].filter(([item]) => !isIdle(item)).map(([, group]) => group);
    expect(kept).toHaveLength(4);
    expect(steps[0]!.metrics['dynamic_sampling/groups_replaced']).toBeGreaterThan(0);
    let gained = 0;
    let tokens = 0;
    for (const group of kept) {
      const rewards = group.map((sample) => sample.rewards['own']!);
      const mean = rewards.reduce((sum, reward) => sum + reward) / rewards.length;
      const std = Math.sqrt(rewards.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (rewards.length - 1));
      for (const [i, { numTokens }] of group.entries()) {
        gained += ((rewards[i]! - mean) / (std + 1e-4)) * numTokens;
        tokens += numTokens;
      }
    }
    expect(Math.abs(gained / tokens)).toBeGreaterThan(1e-3);
    expect(steps[0]!.loss).toBeCloseTo(-gained / tokens, 6);
  });
});

describe('a data set smaller than a step', () => {
  it('gives its prompts again, with further samples', async () => {
    const folder = join(await temporaryFolder(), 'run');
    await fixture.withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(folder, {});
      await runOn(policy, model, recipe({ promptsPerStep: 5 }, byTokens, 2), { run });
    });
    const samples = await samplesIn(folder);
    expect(samples).toHaveLength(20);
    const byItem = groupsOf(samples);
    expect([...byItem.values()].map(({ length }) => length).sort()).toEqual([12, 8].sort());
    for (const drawn of byItem.values()) {
      expect(new Set(drawn.map(({ sample }) => sample)).size).toBe(drawn.length);
      expect(new Set(drawn.map(({ text }) => text)).size).toBeGreaterThan(drawn.length / 2);
    }
  });
});

describe('rewards of your own', () => {
  it('may be asynchronous, several, and have no opinion', async () => {
    const judge: Judge = {
      ...defaultJudge,
      rewards: [
        { name: 'slow', reward: async ({ tokens }) => Promise.resolve(tokens[0]! % 2), weight: 2 },
        { name: 'sometimes', reward: ({ tokens }) => (tokens[0]! % 3 === 0 ? null : 1) },
        { name: 'never', reward: () => null },
      ],
    };
    const { steps } = await outcome({}, judge);
    const { metrics } = steps[0]!;
    expect(metrics['rewards/sometimes/mean']).toBe(1);
    expect(metrics).not.toHaveProperty(['rewards/never/mean']);
    expect(metrics['reward']).toBeGreaterThan(metrics['rewards/slow/mean']!);
  });

  it('what one throws ends the run as it is; the weights are those before', async () => {
    await fixture.withPolicy(async (policy, model) => {
      const before = await weightsOf(model);
      const broken = new Error('service is down');
      const throwing = judged(() => {
        throw broken;
      });
      const job = train(policy, recipe({}, throwing));
      await expect(job.result).rejects.toBe(broken);
      expect(await weightsOf(model)).toEqual(before);
    });
  });
});

describe('killed', () => {
  const options: GrpoOptions = {
    ...{ steps: 5, checkpointEvery: 2, beta: 0.05, dropZeroVarianceGroups: true, lossType: 'dapo' },
    ...{ promptsPerStep: 2, updatesPerRollout: 2, updateBatches: 2, dynamicSamplingRounds: 2 },
  };
  const config = { recipe: 'grpo' };

  it('after any step it repeats at most checkpointEvery steps and ends with the same weights, bit for bit', async () => {
    const made = (): ReturnType<typeof grpo> => recipe(options, halfIdle, 7);
    const whole = await fixture.withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(join(await temporaryFolder(), 'run'), config);
      return await runOn(policy, model, made(), { run });
    });
    expect(whole.steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5]);
    expect(whole.steps.some(({ metrics }) => metrics['dynamic_sampling/groups_replaced']! > 0)).toBe(true);
    for (const last of [1, 3, 4]) {
      const folder = join(await temporaryFolder(), 'run');
      await fixture.withPolicy(async (policy) => {
        await using run = await RunFolder.open(folder, config);
        await killedAt((signal) => train(policy, made(), { run, signal }), atStep(last));
      });
      const resumed = await fixture.withPolicy(async (policy, model) => {
        await using run = await RunFolder.open(folder, config, { resume: true });
        return await runOn(policy, model, made(), { run });
      });
      const [first] = resumed.steps;
      expect(last - first!.step).toBeLessThan(2);
      expect(resumed.steps.map(({ loss }) => loss)).toEqual(whole.steps.slice(first!.step - 1).map(({ loss }) => loss));
      expect(resumed.weights).toEqual(whole.weights);
    }
  });
});
