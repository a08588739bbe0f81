/** Recipes that train an adapter: the base stays as it is, the reference is the adapter off, a killed run resumes bit for bit. */
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { loadEmojiBank } from '../../src/emoji-judge/bank.js';
import { QuickstartData } from '../../src/emoji-judge/quickstart-data.js';
import { writeJudgeFolder } from '../../src/emoji-judge/vocabulary.js';
import { createEngine, type Engine, type Model } from '../../src/engine/index.js';
import type { TrainEvent } from '../../src/recipes/events.js';
import { grpo } from '../../src/recipes/grpo.js';
import { train } from '../../src/recipes/job.js';
import { defaultJudge } from '../../src/recipes/judge.js';
import { pipeline } from '../../src/recipes/pipeline.js';
import { Policy } from '../../src/recipes/policy.js';
import { sft } from '../../src/recipes/sft.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { temporaryFolder } from './model-fixture.js';

const shape = {
  hiddenSize: 32,
  intermediateSize: 48,
  numLayers: 2,
  numHeads: 2,
  numKvHeads: 2,
  ropeTheta: 100,
  mropeSection: [2, 3, 3],
  visionHiddenSize: 32,
  visionIntermediateSize: 48,
  visionDepth: 1,
  visionNumHeads: 2,
  initializerRange: 0.05,
} as const;
const steps = { steps: 4, learningRate: 1e-2, checkpointEvery: 1 };

let engine: Engine;
let data: QuickstartData;
beforeAll(async () => {
  engine = await createEngine({ device: 'cpu', threads: 2 });
  data = new QuickstartData(await loadEmojiBank(), 3);
});
afterAll(() => engine.dispose());

async function withPolicy<T>(dtype: 'fp32' | 'bf16', use: (policy: Policy, model: Model) => Promise<T>): Promise<T> {
  const folder = join(await temporaryFolder(), 'model');
  await writeJudgeFolder(folder, data.words, shape);
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  const lora = { rank: 4, vision: false, exclude: ['down_proj'] };
  await using model = await engine.createModel(config, { dtype, seed: 5, companions: folder, lora });
  await using policy = await Policy.open(model, folder, { threads: 1 });
  return await use(policy, model);
}

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
      make: () => sft({ data: data.rationales(18, 6), options: { ...steps, batchSize: 6 } }),
    },
    {
      name: 'rl',
      make: () =>
        grpo({
          data: data.pool(9),
          judge: {
            ...defaultJudge,
            rewards: [{ name: 'odd', reward: ({ completion }) => completion.length % 2, weight: 1 }],
          },
          validation: { ...data.validation(4), options: { maxNewTokens: 24 } },
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
    const controller = new AbortController();
    const job = train(policy, stages(), { run, signal: controller.signal });
    const watched = (async () => {
      for await (const event of job)
        if (event.type === 'step-end' && event.stage === 'rl' && event.step === 2)
          controller.abort(new Error('killed'));
    })();
    await expect(watched).rejects.toThrow('killed');
    await expect(job.result).rejects.toThrow('killed');
  });
  const checkpoints = await readdir(join(folder, 'checkpoints'));
  expect(checkpoints.length).toBeGreaterThan(0);
  await withPolicy(dtype, async (policy, model) => {
    await using run = await RunFolder.open(folder, config, { resume: true });
    await train(policy, stages(), { run }).result;
    expect(await weightsOf(model, true)).toEqual(whole);
  });
});
