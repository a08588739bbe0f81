/** Recipes that train an adapter: the base stays as it is, the reference is the adapter off, a killed run resumes bit for bit. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { Model } from '../../src/engine/index.js';
import type { TrainEvent } from '../../src/recipes/events.js';
import { grpo } from '../../src/recipes/grpo.js';
import { train } from '../../src/recipes/job.js';
import { defaultJudge } from '../../src/recipes/judge.js';
import { pipeline } from '../../src/recipes/pipeline.js';
import type { Policy } from '../../src/recipes/policy.js';
import { sft } from '../../src/recipes/sft.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { JudgeFixture, killedAt } from './judge-fixture.js';
import { temporaryFolder } from './model-fixture.js';

const steps = { steps: 4, learningRate: 1e-2, checkpointEvery: 1 };

const fixture = JudgeFixture.ofThisFile();
const withPolicy = <T>(dtype: 'fp32' | 'bf16', use: (policy: Policy, model: Model) => Promise<T>): Promise<T> =>
  fixture.withPolicy(use, { dtype, numLayers: 2, lora: { rank: 4, vision: false, exclude: ['down_proj'] } });

const weightsOf = async (model: Model, adapter: boolean): Promise<Map<string, Float32Array>> => {
  const names = model.tensors().filter((tensor) => tensor.adapter === adapter);
  return new Map(
    await Promise.all(names.map(async ({ name }) => [name, await model.readTensor(name)] as [string, Float32Array])),
  );
};

const stages = () =>
  pipeline([
    {
      name: 'warm',
      make: () => sft({ data: fixture.data.rationales(18, 6), options: { ...steps, batchSize: 6 } }),
    },
    {
      name: 'rl',
      make: () =>
        grpo({
          data: fixture.data.pool(9),
          judge: {
            ...defaultJudge,
            rewards: [{ name: 'odd', reward: ({ completion }) => completion.length % 2, weight: 1 }],
          },
          validation: fixture.validation(4),
          options: {
            ...steps,
            groupSize: 4,
            promptsPerStep: 3,
            maxCompletionLength: 24,
            beta: 0.1,
            schedule: { kind: 'constant', warmupSteps: 0 },
            gate: { enabled: false },
          },
        }),
    },
  ]);

it.each(['fp32', 'bf16'] as const)('%s: SFT and GRPO train the adapter alone and resume bit for bit', async (dtype) => {
  const config = { recipe: 'lora' };
  const whole = await withPolicy(dtype, async (policy, model) => {
    const base = await weightsOf(model, false);
    const before = await weightsOf(model, true);
    await using run = await RunFolder.open(join(await temporaryFolder(), 'run'), config);
    const events: TrainEvent[] = [];
    const job = train(policy, stages(), { run });
    for await (const event of job) events.push(event);
    await job.result;
    expect(await weightsOf(model, false)).toEqual(base);
    const after = await weightsOf(model, true);
    for (const [name, values] of after) expect(values, name).not.toEqual(before.get(name));
    // The reference is the base: the adapter that the first stage trained already differs from it.
    const kl = events
      .flatMap((event) => (event.type === 'step-end' ? [event.metrics['kl']] : []))
      .filter(Number.isFinite);
    expect(kl.length).toBe(steps.steps);
    expect(kl.every((value) => value! > 0)).toBe(true);
    return after;
  });
  // Killed in the second stage: a new process would find what this new model finds.
  const folder = join(await temporaryFolder(), 'run');
  await withPolicy(dtype, async (policy) => {
    await using run = await RunFolder.open(folder, config);
    const atRl = (event: TrainEvent): boolean => event.type === 'step-end' && event.stage === 'rl' && event.step === 2;
    await killedAt((signal) => train(policy, stages(), { run, signal }), atRl);
  });
  const checkpoints = await readdir(join(folder, 'checkpoints'));
  expect(checkpoints.length).toBeGreaterThan(0);
  await withPolicy(dtype, async (policy, model) => {
    await using run = await RunFolder.open(folder, config, { resume: true });
    await train(policy, stages(), { run }).result;
    expect(await weightsOf(model, true)).toEqual(whole);
  });
});
