/** The judge that recipe tests train: too small to learn, the same seeded weights each time, with the quickstart's data. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect } from 'vitest';
import { loadEmojiBank } from '../../src/emoji-judge/bank.js';
import { QuickstartData } from '../../src/emoji-judge/quickstart-data.js';
import { writeJudgeFolder } from '../../src/emoji-judge/vocabulary.js';
import { createEngine, type Engine, type Model } from '../../src/engine/index.js';
import type { EvaluationSet } from '../../src/recipes/evaluate.js';
import type { StepEnd, TrainEvent } from '../../src/recipes/events.js';
import type { TrainJob } from '../../src/recipes/job.js';
import { Policy } from '../../src/recipes/policy.js';
import { temporaryFolder } from './model-fixture.js';

const shape = {
  hiddenSize: 32,
  intermediateSize: 48,
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

export interface JudgeModel {
  numLayers?: number;
  dtype?: 'fp32' | 'bf16';
  lora?: { rank: number; vision?: boolean; exclude?: string[] };
  rewardHead?: { hiddenSizes: number[] };
}

/** An engine and the data of one test file. */
export class JudgeFixture {
  #engine!: Engine;
  #data!: QuickstartData;

  /** Made before the first test of the file and freed after the last one. */
  static ofThisFile(): JudgeFixture {
    const fixture = new JudgeFixture();
    beforeAll(async () => {
      fixture.#engine = await createEngine({ device: 'cpu', threads: 2 });
      fixture.#data = new QuickstartData(await loadEmojiBank(), 3);
    });
    afterAll(() => fixture.#engine.dispose());
    return fixture;
  }

  get data(): QuickstartData {
    return this.#data;
  }

  /** Validation of `size` items, short. */
  validation(size: number): { set: EvaluationSet; options: { maxNewTokens: number } } {
    return { ...this.#data.validation(size), options: { maxNewTokens: 24 } };
  }

  /** A policy with the same seeded weights each time. */
  async withPolicy<T>(use: (policy: Policy, model: Model) => Promise<T>, options: JudgeModel = {}): Promise<T> {
    const { numLayers = 1, ...made } = options;
    const folder = join(await temporaryFolder(), 'model');
    await writeJudgeFolder(folder, this.#data.words, { ...shape, numLayers });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
    await using model = await this.#engine.createModel(config, { ...made, seed: 5, companions: folder });
    await using policy = await Policy.open(model, folder, { threads: 1 });
    return await use(policy, model);
  }
}

/** Every weight of a model, to be compared. */
export async function weightsOf(model: Model): Promise<number[]> {
  const names = model.tensors().map(({ name }) => name);
  const all = await Promise.all(names.map((name) => model.readTensor(name)));
  return all.flatMap((tensor) => [...tensor]);
}

export async function collect(events: AsyncIterable<TrainEvent>): Promise<TrainEvent[]> {
  const list: TrainEvent[] = [];
  for await (const event of events) list.push(event);
  return list;
}

export const stepsOf = (events: readonly TrainEvent[]): StepEnd[] =>
  events.filter((event): event is StepEnd => event.type === 'step-end');

/** Starts a job and aborts it as the event `at` picks arrives; the job must end with that. */
export async function killedAt<R>(
  start: (signal: AbortSignal) => TrainJob<R>,
  at: (event: TrainEvent) => boolean,
): Promise<void> {
  const controller = new AbortController();
  const job = start(controller.signal);
  const watched = (async () => {
    for await (const event of job) if (at(event)) controller.abort(new Error('killed'));
  })();
  await expect(watched).rejects.toThrow('killed');
  await expect(job.result).rejects.toThrow('killed');
}

export const atStep =
  (step: number) =>
  (event: TrainEvent): boolean =>
    event.type === 'step-end' && event.step === step;
