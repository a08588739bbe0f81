/** The joint recipe over the real engine: both losses and their ends, labels, validation, being killed, what it refuses. */
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { pairBatches, pairsFromRows, type PairDataset, type PairRow } from '../../src/data/pairs.js';
import { createEngine, type Model, type Objective } from '../../src/engine/index.js';
import { encodePairs } from '../../src/recipes/encoded-pairs.js';
import type { StepEnd, TrainEvent } from '../../src/recipes/events.js';
import { train } from '../../src/recipes/job.js';
import { jointOptionsSchema, type JointOptions } from '../../src/recipes/joint-options.js';
import { joint, packPairs, type JointResult } from '../../src/recipes/joint.js';
import { microBatchTokens, optimizerOptions } from '../../src/recipes/optimizer-options.js';
import { Policy } from '../../src/recipes/policy.js';
import { scoreRows, type RowScore } from '../../src/recipes/score-rows.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { atStep, collect, JudgeFixture, killedAt, stepsOf, weightsOf } from './judge-fixture.js';
import { temporaryFolder, textFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());
const fixture = JudgeFixture.ofThisFile();
const { signal } = new AbortController();

interface ScorerModel {
  names?: string[];
  dtype?: 'fp32' | 'bf16';
  lora?: { rank: number };
}

/** A policy with the same weights and the same small head each time. */
async function withPolicy<T>(
  use: (policy: Policy, model: Model) => Promise<T>,
  { names = ['overall'], ...more }: ScorerModel = {},
): Promise<T> {
  await using model = await engine.loadModel(textFolder, { ...more, rewardHead: { names, hiddenSizes: [16] } });
  await using policy = await Policy.open(model, textFolder, { threads: 1 });
  return await use(policy, model);
}

const fillers = ['a cat', 'a dog', 'this one', 'which one'];

/** Candidates of one text with another mark; the mark says which is better, and the rationale repeats it. */
function candidates(i: number): Pick<PairRow, 'first' | 'second'> {
  const candidate = (side: 1 | 2, good: boolean): PairRow['first'] => ({
    id: `pair-${i}/${side}`,
    prompt: `${fillers[i % fillers.length]} ${good ? 'yes' : 'no'} ${i}`,
    images: [],
    completion: good ? 'the good one' : 'the bad one',
  });
  const isFirst = i % 2 === 0;
  return { first: candidate(1, isFirst), second: candidate(2, !isFirst) };
}

const pairOf = (i: number, more: Partial<PairRow> = {}): PairRow => ({
  id: `pair-${i}`,
  ...candidates(i),
  preference: i % 2 === 0 ? 'first' : 'second',
  ...more,
});

const pairs = (size: number, moreOf: (i: number) => Partial<PairRow> = () => ({})): PairDataset =>
  pairsFromRows(
    'pairs',
    Array.from({ length: size }, (_, i) => pairOf(i, moreOf(i))),
  );

const base = {
  ranking: { loss: 'uncertainty' },
  steps: 10,
  batchSize: 4,
  learningRate: 5e-3,
  schedule: { kind: 'constant', warmupSteps: 0 },
} satisfies JointOptions;

interface Outcome {
  value: JointResult;
  events: TrainEvent[];
  steps: StepEnd[];
  weights: number[];
  scores: RowScore[];
}

/** Scores of both candidates of each pair. */
async function scoresOf(policy: Policy, data: PairDataset): Promise<RowScore[]> {
  const all = await Promise.all(Array.from({ length: data.size }, (_, i) => data.pair(i)));
  return scoreRows(
    policy,
    all.flatMap(({ first, second }) => [first, second]),
    { signal },
  );
}

const outcome = (
  data: PairDataset,
  options: JointOptions = {},
  model: ScorerModel = {},
  validation?: PairDataset,
): Promise<Outcome> =>
  withPolicy(async (policy, made) => {
    const recipe = joint({ data, options: { ...base, ...options }, ...(validation && { validation }) });
    const job = train(policy, recipe);
    const events = await collect(job);
    const { value } = await job.result;
    const scores = await scoresOf(policy, data);
    return { value: value!, events, steps: stepsOf(events), weights: await weightsOf(made), scores };
  }, model);

describe('training', () => {
  it.each([0, 0.3, 0.7, 1])('with alpha %d lowers what it weighs, and computes nothing else', async (alpha) => {
    const { value, steps, scores } = await outcome(pairs(4), { alpha });
    const [first, last] = [steps[0]!, steps.at(-1)!];
    expect(last.loss).toBeLessThan(0.8 * first.loss);
    expect(value).toEqual({ steps: 10, loss: last.loss, validation: null });
    const ranking = first.metrics['ranking_loss'];
    const nll = first.metrics['nll'];
    expect([ranking === undefined, nll === undefined]).toEqual([alpha === 1, alpha === 0]);
    expect(first.loss).toBeCloseTo((1 - alpha) * (ranking ?? 0) + alpha * (nll ?? 0), 6);
    if (alpha < 1) {
      expect(last.metrics).toMatchObject({ accuracy: 1 });
      expect(last.metrics['ranking_loss']).toBeLessThan(ranking!);
      for (let i = 0; i < 4; i++) {
        const margin = scores[2 * i]!.fused.mu - scores[2 * i + 1]!.fused.mu;
        expect(Math.sign(margin), `pair ${i}`).toBe(i % 2 === 0 ? 1 : -1);
      }
    }
    if (alpha > 0) expect(last.metrics['nll']).toBeLessThan(nll!);
  });

  it.each<[string, number, (data: PairRow[], fusion: 'mean') => Objective]>([
    [
      'alpha 0 is pure ranking',
      0,
      (batch, fusion) => ({
        kind: 'ranking',
        loss: 'uncertainty',
        fusion,
        pairs: {
          chosen: batch.map(({ preference }, i) => 2 * i + (preference === 'first' ? 0 : 1)),
          rejected: batch.map(({ preference }, i) => 2 * i + (preference === 'first' ? 1 : 0)),
        },
      }),
    ],
    ['alpha 1 is pure supervised training', 1, () => ({ kind: 'nll' })],
  ])('%s: two steps of the same packed rows, bit for bit', async (_, alpha, objective) => {
    const data = pairs(6);
    const options = jointOptionsSchema.parse({ ...base, alpha, steps: 2, batchSize: 3 });
    const recipe = await outcome(data, { alpha, steps: 2, batchSize: 3 });
    const pure = await withPolicy(async (policy, model) => {
      const losses: number[] = [];
      for await (const { pairs: batch } of pairBatches(data, { batchSize: 3, seed: 0, epochs: 1 })) {
        const groups = packPairs(await encodePairs(policy, batch, signal), model.rewardHead!.tokenId);
        const count = groups.reduce((sum, group) => sum + group.promptTokens.length, 0);
        const { loss } = await model.forwardBackward(groups, [objective(batch, 'mean')], {
          maxTokensPerMicroBatch: microBatchTokens(options.microBatch, 2 * count),
          activationCheckpointing: options.microBatch.activationCheckpointing,
        });
        losses.push(loss);
        await model.optimizerStep(optimizerOptions(options.optimizer, options.learningRate));
      }
      return { losses, weights: await weightsOf(model) };
    });
    expect(recipe.steps.map(({ loss }) => loss)).toEqual(pure.losses);
    expect(recipe.weights).toEqual(pure.weights);
  });

  it('trains each head by the preference in its own dimension', async () => {
    const other = (i: number): 'first' | 'second' => (i % 2 === 0 ? 'second' : 'first');
    // "style" is against the overall preference, and the last pair says nothing of it.
    const data = pairs(4, (i) => ({ dimensions: i === 3 ? { detail: 'second' } : { style: other(i) } }));
    const names = ['overall', 'style'];
    const options: JointOptions = { alpha: 0.2, labels: 'dimensions', steps: 16 };
    const { steps, scores } = await outcome(data, options, { names });
    expect(steps.at(-1)!.metrics).toMatchObject({ 'head/0/accuracy': 1, 'head/1/accuracy': 1 });
    for (let i = 0; i < 3; i++) {
      const [first, second] = [scores[2 * i]!, scores[2 * i + 1]!];
      const sign = i % 2 === 0 ? 1 : -1;
      expect(Math.sign(first.mu[0]! - second.mu[0]!), `overall of pair ${i}`).toBe(sign);
      expect(Math.sign(first.mu[1]! - second.mu[1]!), `style of pair ${i}`).toBe(-sign);
    }
  });

  it('moves the heads to given scores, and leaves a dimension without one alone', async () => {
    const names = ['detail', 'style'];
    const data = pairs(4, (i) => ({
      scores: { first: { detail: i % 2 === 0 ? 2 : -1 }, second: { detail: i % 2 === 0 ? -1 : 2 } },
    }));
    const options: JointOptions = { alpha: 0, ranking: { loss: 'regression' }, steps: 40, learningRate: 1e-2 };
    const { steps, scores } = await outcome(data, options, { names });
    expect(steps.at(-1)!.loss).toBeLessThan(0.1 * steps[0]!.loss);
    for (const [i, { mu }] of scores.entries()) {
      const gold = (i >> 1) % 2 === i % 2 ? 2 : -1;
      expect(Math.abs(mu[0]! - gold), `candidate ${i}`).toBeLessThan(0.5);
    }
    const head = (model: Model): Promise<Float32Array> => model.readTensor('reward_head.1.0.weight');
    const [before, after] = await withPolicy(
      async (policy, model) => {
        const untrained = await head(model);
        await train(policy, joint({ data, options: { ...base, ...options, steps: 3 } })).result;
        return [untrained, await head(model)];
      },
      { names },
    );
    // Weight decay alone moves it, if anything.
    const decay = (1 - 1e-2 * jointOptionsSchema.parse({}).optimizer.weightDecay) ** 3;
    for (const [i, value] of after.entries()) expect(value).toBeCloseTo(before[i]! * decay, 6);
  });

  it('learns ties beside preferences', async () => {
    const data = pairs(4, (i) => (i < 2 ? {} : { preference: 'tie' }));
    const options: JointOptions = { alpha: 0, ranking: { loss: 'bradley_terry_ties' }, steps: 24 };
    const { steps } = await outcome(data, options);
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
    expect(steps.at(-1)!.metrics).toMatchObject({ accuracy: 1, accuracy_with_ties: 1 });
  });

  it.each<[string, ScorerModel]>([
    ['bf16', { dtype: 'bf16' }],
    ['an adapter', { lora: { rank: 4 } }],
  ])('takes %s', async (_, model) => {
    const { steps } = await outcome(pairs(4), {}, model);
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
  });

  it('reads no label with alpha 1: ties train as well', async () => {
    const data = pairs(2, () => ({ preference: 'tie' }));
    const { steps } = await outcome(data, {
      alpha: 1,
      labels: 'dimensions',
      ranking: { loss: 'bradley_terry' },
      steps: 2,
    });
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
  });

  it('takes candidates with pictures', async () => {
    const rows = fixture.data.pool(2);
    const shown = await Promise.all([0, 1].map((i) => rows.row(i)));
    const data = pairsFromRows('pictures', [
      {
        id: 'p',
        first: { ...shown[0]!, completion: '<answer>Image 1 is better</answer>' },
        second: { ...shown[1]!, completion: '<answer>Image 2 is better</answer>' },
        preference: 'second',
      },
    ]);
    await fixture.withPolicy(
      async (policy) => {
        const job = train(policy, joint({ data, options: { ...base, batchSize: 1, steps: 8 } }));
        const steps = stepsOf(await collect(job));
        expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
        expect(steps.at(-1)!.metrics).toMatchObject({ accuracy: 1 });
      },
      { rewardHead: { hiddenSizes: [16] } },
    );
  });

  it('validates every so many steps and at the end', async () => {
    const { value, events } = await outcome(pairs(4), { steps: 5, evaluateEvery: 2 }, {}, pairs(6));
    const ends = events.flatMap((event) => (event.type === 'scoring-end' ? [event] : []));
    expect(ends.map(({ step, name }) => [step, name])).toEqual([
      [2, 'pairs'],
      [4, 'pairs'],
      [5, 'pairs'],
    ]);
    const { seconds: _seconds, ...told } = ends.at(-1)!.result;
    expect(value.validation).toMatchObject(told);
    expect(value.validation).toMatchObject({ count: 6 });
    expect(value.validation).not.toHaveProperty('scores');
    // Without `evaluateEvery` at the end alone.
    const last = await outcome(pairs(4), { steps: 2 }, {}, pairs(6));
    expect(last.events.flatMap((event) => (event.type === 'scoring-end' ? [event.step] : []))).toEqual([2]);
  });

  it('plans epochs over the pairs, and a batch is never larger than the data', async () => {
    const { steps: _steps, ...options } = { ...base, epochs: 2, batchSize: 64 };
    await withPolicy(async (policy) => {
      const { value } = await train(policy, joint({ data: pairs(3), options })).result;
      expect(value).toMatchObject({ steps: 1 });
    });
  });
});

describe('killed', () => {
  it.each<[string, ScorerModel]>([
    ['a whole model', { names: ['overall', 'style'] }],
    ['an adapter', { lora: { rank: 4 } }],
  ])('%s ends with the same weights and scores, bit for bit', async (_, model) => {
    const config = { recipe: 'joint' };
    const data = pairs(5);
    const options: JointOptions = { ...base, steps: 6, batchSize: 2, schedule: { kind: 'cosine', warmupSteps: 2 } };
    const made = (): ReturnType<typeof joint> => joint({ data, options: { ...options, checkpointEvery: 2 } });
    const whole = await outcome(data, options, model);
    const folder = join(await temporaryFolder(), 'run');
    await withPolicy(async (policy) => {
      await using run = await RunFolder.open(folder, config);
      await killedAt((signal) => train(policy, made(), { run, signal }), atStep(5));
    }, model);
    await withPolicy(async (policy, resumed) => {
      await using run = await RunFolder.open(folder, config, { resume: true });
      const job = train(policy, made(), { run });
      const steps = stepsOf(await collect(job));
      expect((await job.result).value).toEqual(whole.value);
      expect(steps.map(({ step }) => step)).toEqual([5, 6]);
      expect(steps.map(({ loss }) => loss)).toEqual(whole.steps.slice(4).map(({ loss }) => loss));
      expect(await weightsOf(resumed)).toEqual(whole.weights);
      expect(await scoresOf(policy, data)).toEqual(whole.scores);
    }, model);
  });
});

describe('what is refused', () => {
  it('a model without a reward head', async () => {
    await using model = await engine.loadModel(textFolder);
    await using policy = await Policy.open(model, textFolder, { threads: 1 });
    await expect(train(policy, joint({ data: pairs(2), options: base })).result).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(/a model with a reward head but this one has none/) as string,
    });
  });

  const tie = (i: number): Partial<PairRow> => (i === 2 ? { preference: 'tie' } : {});
  it.each<[string, (i: number) => Partial<PairRow>, JointOptions, RegExp]>([
    ['a pair without scores', () => ({}), { ranking: { loss: 'regression' } }, /`scores` of both candidates/],
    [
      'a pair without a dimension',
      (i) => (i === 2 ? {} : { dimensions: { style: 'first' } }),
      { labels: 'dimensions' },
      /a preference in one of style/,
    ],
    ['a tie', tie, { ranking: { loss: 'bradley_terry' } }, /`preference` of pair "pair-2" but received a tie/],
    ['a tie', tie, { ranking: { loss: 'uncertainty' } }, /`preference` of pair "pair-2" but received a tie/],
    [
      'a tie of a dimension',
      (i) => ({ dimensions: { style: i === 2 ? 'tie' : 'first' } }),
      { labels: 'dimensions', ranking: { loss: 'bradley_terry' } },
      /`style` of pair "pair-2" but received a tie/,
    ],
  ])('%s, naming it (%#)', async (_, moreOf, options, message) => {
    const failing = outcome(pairs(3, moreOf), { ...options, batchSize: 3 }, { names: ['style'] });
    const id = options.ranking?.loss === 'regression' ? expect.stringMatching(/^pair-/) : 'pair-2';
    await expect(failing).rejects.toMatchObject({
      code: 'bad_data',
      fields: { id },
      message: expect.stringMatching(message) as string,
    });
  });

  it.each<[string, object]>([
    ['options.alpha', { alpha: 1.1 }],
    ['options.alpha', { alpha: -0.1 }],
    ['options.labels', { labels: 'each' }],
    ['options.ranking.loss', { ranking: { loss: 'hinge' } }],
    ['options.batchSize', { batchSize: 0 }],
    ['options.evaluateEvery', { evaluateEvery: 0 }],
  ])('%s in %j, before anything runs', (name, options) => {
    expect(() => joint({ data: pairs(2), options: options })).toThrow(
      expect.objectContaining({ code: 'invalid_argument', fields: expect.objectContaining({ name }) as object }),
    );
  });
});
