/** Recipes over the real engine, on a judge too small to learn: what they promise about events, gates, pools and resuming. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { datasetFromRows } from '../../src/data/dataset.js';
import { evaluate } from '../../src/recipes/evaluate.js';
import { grpo, type GrpoOptions } from '../../src/recipes/grpo.js';
import { train } from '../../src/recipes/job.js';
import { defaultJudge } from '../../src/recipes/judge.js';
import { pipeline } from '../../src/recipes/pipeline.js';
import { rejection } from '../../src/recipes/rejection.js';
import { sft, type SftOptions } from '../../src/recipes/sft.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { collect, JudgeFixture, weightsOf } from './judge-fixture.js';
import { temporaryFolder } from './model-fixture.js';

const sftOptions: SftOptions = {
  steps: 4,
  batchSize: 6,
  learningRate: 1e-3,
  checkpointEvery: 2,
  schedule: { kind: 'constant' },
};
const grpoOptions: GrpoOptions = {
  groupSize: 4,
  promptsPerStep: 3,
  steps: 3,
  learningRate: 1e-3,
  maxCompletionLength: 24,
  checkpointEvery: 1,
  schedule: { kind: 'constant', warmupSteps: 0 },
  gate: { enabled: false },
};

const fixture = JudgeFixture.ofThisFile();
const withPolicy: JudgeFixture['withPolicy'] = (use) => fixture.withPolicy(use);
const validation = (size: number): ReturnType<JudgeFixture['validation']> => fixture.validation(size);

describe('train', () => {
  it('tells stages and steps in order and lowers the loss', async () => {
    await withPolicy(async (policy) => {
      const job = train(policy, sft({ data: fixture.data.looks(24), options: { ...sftOptions, steps: 20 } }));
      const events = await collect(job);
      expect(events.map(({ type }) => type)).toEqual([
        'stage-start',
        ...new Array<string>(20).fill('step-end'),
        'stage-end',
        'run-end',
      ]);
      const losses = events.flatMap((event) => (event.type === 'step-end' ? [event.loss] : []));
      expect(losses.at(-1)!).toBeLessThan(losses[0]! * 0.9);
      expect(await job.result).toMatchObject({ stopped: false, value: { steps: 20 }, checkpoint: null });
    });
  });

  it('rejects with the reason of its signal, in the result and in the iteration', async () => {
    await withPolicy(async (policy) => {
      const controller = new AbortController();
      const reason = new Error('enough');
      const job = train(policy, sft({ data: fixture.data.looks(24), options: { ...sftOptions, steps: 1000 } }), {
        signal: controller.signal,
      });
      const iterated = (async () => {
        for await (const event of job) if (event.type === 'step-end') controller.abort(reason);
      })();
      await expect(iterated).rejects.toBe(reason);
      await expect(job.result).rejects.toBe(reason);
      const late = train(policy, sft({ data: fixture.data.looks(24), options: sftOptions }), {
        signal: controller.signal,
      });
      await expect(late.result).rejects.toBe(reason);
    });
  });

  it('refuses rows without a completion, naming the row', async () => {
    await withPolicy(async (policy) => {
      const job = train(policy, sft({ data: fixture.data.pool(8), options: sftOptions }));
      await expect(job.result).rejects.toMatchObject({
        code: 'bad_data',
        fields: { id: expect.stringContaining('pool') as string },
      });
    });
  });
});

const stages = () =>
  pipeline([
    { name: 'warm', make: () => sft({ data: fixture.data.rationales(18, 6), options: sftOptions }) },
    {
      name: 'rejection',
      make: () =>
        rejection({
          data: fixture.data.pool(6),
          options: { samples: 3, maxNewTokens: 24, chunkItems: 2, sft: { ...sftOptions, steps: 2 } },
        }),
    },
    { name: 'grpo', make: () => grpo({ data: fixture.data.pool(6), validation: validation(4), options: grpoOptions }) },
  ]);

describe('a pipeline in a pipeline', () => {
  it('runs its stages though stages outside bear the same names', async () => {
    const constant = (value: number) => ({ kind: 'constant', config: {}, run: async () => value });
    const inner = pipeline([
      { name: 'warm', make: () => constant(2) },
      { name: 'rest', make: (results) => constant((results['warm'] as number) + 1) },
    ]);
    const outer = pipeline([
      { name: 'warm', make: () => constant(1) },
      { name: 'rest', make: () => inner },
    ]);
    await withPolicy(async (policy) => {
      const job = train(policy, outer, { stage: 'all' });
      const events = await collect(job);
      const started = events.flatMap((event) => (event.type === 'stage-start' ? [event.stage] : []));
      expect(started).toEqual(['all', 'warm', 'rest', 'rest/warm', 'rest/rest']);
      expect((await job.result).value).toEqual({ warm: 1, rest: { warm: 2, rest: 3 } });
    });
  });
});

describe('resuming', () => {
  it('after a graceful stop anywhere ends with the weights of an undisturbed run, and samples nothing twice', async () => {
    const folder = await temporaryFolder();
    const whole = await withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(join(folder, 'whole'), {});
      const { stopped } = await train(policy, stages(), { run }).result;
      expect(stopped).toBe(false);
      return { weights: await weightsOf(model), samples: run.samples.size };
    });
    let processes = 0;
    for (let resume = false; ; resume = true) {
      const part = await withPolicy(async (policy, model) => {
        await using run = await RunFolder.open(join(folder, 'parts'), {}, { resume });
        const job = train(policy, stages(), { run });
        let steps = 0;
        for await (const event of job) {
          // Stops in every stage: after some steps, and between the chunks of rejection sampling.
          if (event.type === 'step-end' && ++steps === 3) void job.stop();
          if (event.type === 'sampling-progress' && event.purpose === 'pool' && event.done === 2 && processes < 2)
            void job.stop();
        }
        const { stopped } = await job.result;
        return { stopped, weights: await weightsOf(model), samples: run.samples.size };
      });
      processes++;
      if (part.stopped && processes < 12) continue;
      expect(part.stopped).toBe(false);
      expect(processes).toBeGreaterThan(2);
      expect(part.samples).toBe(whole.samples);
      expect(part.weights).toEqual(whole.weights);
      break;
    }
  });
});

describe('rejection', () => {
  it('keeps one correct completion an item and hands on what was not all right', async () => {
    await withPolicy(async (policy) => {
      // A judge that calls every other sample right, whatever it says: routing is what is tested.
      let calls = 0;
      const judge = { ...defaultJudge, verifier: () => ({ correct: calls++ % 2 === 0, answer: 'x' }) };
      const job = train(
        policy,
        rejection({
          data: fixture.data.pool(5),
          judge,
          options: { samples: 2, maxNewTokens: 8, sft: { ...sftOptions, steps: 1 } },
        }),
      );
      const { value } = await job.result;
      expect(value).toMatchObject({ items: 5, kept: 5, hard: [0, 1, 2, 3, 4], allWrong: 0, accuracy: 0.5, passAtK: 1 });
      expect(value!.training).toMatchObject({ steps: 1 });
    });
  });

  it('trains nothing when nothing is right', async () => {
    await withPolicy(async (policy, model) => {
      const before = await weightsOf(model);
      const judge = { ...defaultJudge, verifier: () => ({ correct: false, answer: null }) };
      const { value } = await train(
        policy,
        rejection({ data: fixture.data.pool(3), judge, options: { samples: 2, maxNewTokens: 4 } }),
      ).result;
      expect(value).toMatchObject({ kept: 0, allWrong: 3, training: null });
      expect(await weightsOf(model)).toEqual(before);
    });
  });
});

describe('grpo', () => {
  it('refuses to start from chance, and says what to do', async () => {
    await withPolicy(async (policy) => {
      const recipe = grpo({
        data: fixture.data.pool(6),
        validation: validation(6),
        options: { ...grpoOptions, gate: {} },
      });
      const job = train(policy, recipe);
      await expect(job.result).rejects.toMatchObject({
        code: 'gate_refused',
        message: expect.stringMatching(/above chance.*cold start/) as string,
      });
    });
  });

  it('stores the log-probs that training computes: the ratio is 1 and KL starts at 0, bit for bit', async () => {
    await withPolicy(async (policy) => {
      const judge = {
        ...defaultJudge,
        rewards: [{ name: 'length', reward: ({ tokens }: { tokens: Int32Array }) => tokens.length }],
      };
      const recipe = grpo({
        data: fixture.data.pool(6),
        judge,
        validation: validation(2),
        options: { ...grpoOptions, steps: 2 },
      });
      const events = await collect(train(policy, recipe));
      const steps = events.flatMap((event) => (event.type === 'step-end' ? [event.metrics] : []));
      expect(steps).toHaveLength(2);
      expect(steps[0]).toMatchObject({ kl: 0, 'clip_ratio/region_mean': 0 });
      for (const metrics of steps) expect(metrics['sampling/sampling_logp_difference/max']).toBe(0);
      expect(steps[1]!['kl']).toBeGreaterThan(0);
      for (const name of [
        'reward',
        'reward_std',
        'frac_reward_zero_std',
        'entropy',
        'completions/mean_length',
        'rewards/length/mean',
        'grad_norm',
      ]) {
        expect(steps[0]).toHaveProperty([name]);
      }
    });
  });

  it('stops at a reward that is not a number, naming function and item', async () => {
    await withPolicy(async (policy, model) => {
      const before = await weightsOf(model);
      const judge = { ...defaultJudge, rewards: [{ name: 'broken', reward: () => NaN }] };
      const job = train(
        policy,
        grpo({ data: fixture.data.pool(6), judge, validation: validation(2), options: grpoOptions }),
      );
      await expect(job.result).rejects.toMatchObject({ code: 'non_finite', fields: { reward: 'broken' } });
      expect(await weightsOf(model)).toEqual(before);
    });
  });

  it('a group of one is refused before anything runs', () => {
    expect(() => grpo({ data: fixture.data.pool(6), validation: validation(2), options: { groupSize: 1 } })).toThrow(
      /no relative advantage/,
    );
  });

  it('trains without validation where the gate is off', async () => {
    await withPolicy(async (policy) => {
      const options = { ...grpoOptions, gate: { enabled: false }, evaluateEvery: undefined, steps: 1 };
      const job = train(policy, grpo({ data: fixture.data.pool(6), options }));
      const types = (await collect(job)).map(({ type }) => type);
      expect(types).not.toContain('evaluation-end');
      expect(types).toContain('step-end');
      expect((await job.result).value).toMatchObject({ steps: 1, before: null });
    });
  });

  it('groups with equal rewards give no step at beta 0, and are counted', async () => {
    await withPolicy(async (policy, model) => {
      const before = await weightsOf(model);
      const judge = { ...defaultJudge, rewards: [{ name: 'same', reward: () => 1 }] };
      const recipe = grpo({
        data: fixture.data.pool(6),
        judge,
        validation: validation(2),
        options: { ...grpoOptions, beta: 0, steps: 1 },
      });
      const events = await collect(train(policy, recipe));
      const step = events.find((event) => event.type === 'step-end');
      expect(step).toMatchObject({ reward: 1, metrics: { frac_reward_zero_std: 1 } });
      expect(await weightsOf(model)).toEqual(before);
    });
  });
});

describe('evaluate', () => {
  it('asks both orders and directly, apart for the unseen artist, and lets the event loop turn', async () => {
    await withPolicy(async (policy) => {
      const evaluator = fixture.data.test(6, 4);
      const job = train(policy, evaluate({ ...evaluator, options: { maxNewTokens: 8, chunkItems: 4 } }));
      const { value } = await job.result;
      expect(value).toMatchObject({ count: 6, unseenCount: 4, truncatedRate: expect.any(Number) as number });
      expect(Object.keys(value!.marks)).toHaveLength(10);
      expect(value!.directAccuracy).not.toBeNull();
      expect(value!.accuracyLow!).toBeLessThanOrEqual(value!.accuracy!);
    });
  });

  it('an empty set cannot be made', () => {
    expect(() => datasetFromRows('none', [])).toThrow(expect.objectContaining({ code: 'bad_data' }));
  });
});
