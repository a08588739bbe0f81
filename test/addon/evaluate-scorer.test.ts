/** Evaluation of scorers over the real engine: the numbers of heads whose scores are known, in any order of the pairs. */
import { afterAll, describe, expect, it } from 'vitest';
import { pairsFromRows, type PairDataset, type PairRow } from '../../src/data/pairs.js';
import type { Row } from '../../src/data/rows.js';
import { createEngine, type Model } from '../../src/engine/index.js';
import { sigmoid } from '../../src/evaluation/confidence.js';
import { evaluateScoresWithIntervals, scorePairs } from '../../src/evaluation/scores.js';
import { evaluateScorer, evaluateScorerRecipe, type ScorerResult } from '../../src/recipes/evaluate-scorer.js';
import type { TrainEvent } from '../../src/recipes/events.js';
import { train, type Recipe } from '../../src/recipes/job.js';
import { Policy } from '../../src/recipes/policy.js';
import { fuseHeads, scoreRows, type RowScore } from '../../src/recipes/score-rows.js';
import { collect } from './judge-fixture.js';
import { textFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());
const { signal } = new AbortController();
const hiddenSize = 64;

/** A scorer whose head is one linear layer, so that its weights can be written by hand. */
async function withScorer<T>(
  use: (policy: Policy, model: Model) => Promise<T>,
  head: { names?: string[]; fusion?: 'mean' | 'min' | 'sum' } = {},
): Promise<T> {
  await using model = await engine.loadModel(textFolder, { rewardHead: { ...head, hiddenSizes: [] } });
  await using policy = await Policy.open(model, textFolder, { threads: 1 });
  return await use(policy, model);
}

/** Head `index` gives mu = weights . state + bias and a constant log sigma. */
async function writeHead(
  model: Model,
  index: number,
  { weights = new Float32Array(hiddenSize), bias = 0, logSigma = 0 },
): Promise<void> {
  const matrix = new Float32Array(2 * hiddenSize);
  matrix.set(weights);
  await model.writeTensor(`reward_head.${index}.0.weight`, 'value', matrix);
  await model.writeTensor(`reward_head.${index}.0.bias`, 'value', Float32Array.of(bias, logSigma));
}

const row = (id: string, prompt: string): Row => ({ id, prompt, images: [] });

/** Pairs of different candidates; `preferenceOf` is asked when they are made. */
const pairsOf = (
  size: number,
  preferenceOf: (i: number) => PairRow['preference'] = (i) => (i % 2 === 0 ? 'first' : 'second'),
  order: readonly number[] = Array.from({ length: size }, (_, i) => i),
): PairDataset =>
  pairsFromRows(
    'pairs',
    order.map((i) => ({
      id: `p${i}`,
      first: row(`p${i}/a`, `a cat ${i}`),
      second: row(`p${i}/b`, `which one of ${i} ${'more '.repeat(i % 5)}`),
      preference: preferenceOf(i),
    })),
  );

async function evaluated(policy: Policy, data: PairDataset): Promise<{ value: ScorerResult; events: TrainEvent[] }> {
  const job = train(policy, evaluateScorerRecipe(data));
  const events = await collect(job);
  return { value: (await job.result).value!, events };
}

/** Scores of the candidates of `pairsOf(size)`, in order. */
async function scoresOf(policy: Policy, size: number): Promise<{ first: RowScore; second: RowScore }[]> {
  const data = pairsOf(size);
  const pairs = await Promise.all(Array.from({ length: size }, (_, i) => data.pair(i)));
  const scores = await scoreRows(
    policy,
    pairs.flatMap(({ first, second }) => [first, second]),
    { signal },
  );
  return pairs.map((_, i) => ({ first: scores[2 * i]!, second: scores[2 * i + 1]! }));
}

describe('a head of known scores', () => {
  it('that says the same of everything predicts ties: accuracy 0 of preferences, all of the ties', async () => {
    await withScorer(async (policy, model) => {
      await writeHead(model, 0, { bias: 1.5, logSigma: Math.log(0.5) });
      const { value, events } = await evaluated(
        policy,
        pairsOf(4, (i) => (i === 0 ? 'tie' : i === 1 ? 'first' : 'second')),
      );
      for (const { first, second } of Object.values(value.scores)) {
        expect(first).toEqual(second);
        expect(first.mu).toEqual([1.5]);
        expect(first.sigma[0]).toBeCloseTo(0.5, 6);
        expect(first.fused).toEqual({ mu: 1.5, sigma: first.sigma[0] });
      }
      expect(value).toMatchObject({
        name: 'pairs',
        count: 4,
        accuracyWithoutTies: 0,
        accuracyWithTies: 0.25,
        predictedTieRate: 1,
        goldTieRate: 0.25,
        bothTie: 1,
        predictedTie: 3,
        margin: 0,
        meanGap: 0,
        tieCalibration: { threshold: 0, accuracyWithTies: 0.25 },
        calibration: { count: 3, meanConfidence: 0.5, accuracy: 0, brier: 0.25 },
      });
      // Equal scores are no success on the way either.
      const shown = events.flatMap((event) => (event.type === 'sampling-progress' ? [event.accuracy] : []));
      expect(shown).toEqual([0]);
    });
  });

  it('that reads one number of the state gives the accuracy, margin and calibration that follow from it', async () => {
    await withScorer(async (policy, model) => {
      const weights = new Float32Array(hiddenSize);
      weights[7] = 2;
      await writeHead(model, 0, { weights, bias: 0.25, logSigma: Math.log(2) });
      const states: number[] = [];
      const recipe: Recipe<ScorerResult> = {
        kind: 'evaluate-scorer',
        config: {},
        run: (context) => evaluateScorer(context, data, 3, (some) => states.push(...some)),
      };
      const known = await scoresOf(policy, 10);
      const firstWins = known.map(({ first, second }) => first.mu[0]! > second.mu[0]!);
      // Right in the first seven, wrong in two, and one tie.
      const data = pairsOf(10, (i) => (i === 9 ? 'tie' : firstWins[i] === i < 7 ? 'first' : 'second'));
      const job = train(policy, recipe);
      const events = await collect(job);
      const value = (await job.result).value!;
      expect(states).toHaveLength(20 * hiddenSize);
      for (const [i, { first, second }] of Object.values(value.scores).entries()) {
        expect(first.mu[0]).toBeCloseTo(2 * states[2 * i * hiddenSize + 7]! + 0.25, 5);
        expect(second.mu[0]).toBeCloseTo(2 * states[(2 * i + 1) * hiddenSize + 7]! + 0.25, 5);
      }
      const gaps = known.map(({ first, second }) => Math.abs(first.fused.mu - second.fused.mu));
      const margins = gaps.slice(0, 9).map((gap, i) => (i < 7 ? gap : -gap));
      expect(value).toMatchObject({
        count: 10,
        accuracyWithoutTies: 7 / 9,
        accuracyWithTies: 0.7,
        concordant: 7,
        discordant: 2,
        goldTie: 1,
      });
      const mean = (numbers: number[]): number => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;
      expect(value.margin).toBeCloseTo(mean(margins), 9);
      expect(value.meanGap).toBeCloseTo(mean(gaps), 9);
      expect(value.low).toBeLessThan(7 / 9);
      expect(value.high).toBeGreaterThan(7 / 9);
      expect(value.calibration).toMatchObject({ count: 9, accuracy: 7 / 9 });
      // Two sigmas of 2 make the difference less sure than its means say.
      expect(value.calibration!.meanConfidence).toBeGreaterThan(0.5);
      expect(value.calibration!.meanConfidence).toBeLessThan(mean(gaps.slice(0, 9).map(sigmoid)));
      expect(value.tieCalibration!.accuracyWithTies).toBeGreaterThanOrEqual(0.7);
      expect(events.filter(({ type }) => type === 'scoring-end')).toMatchObject([{ step: 3, name: 'pairs' }]);
    });
  });

  it.each(['mean', 'sum', 'min'] as const)('fuses several heads by their %s', async (fusion) => {
    await withScorer(
      async (policy, model) => {
        await writeHead(model, 0, { bias: 3, logSigma: Math.log(3) });
        await writeHead(model, 1, { bias: -1, logSigma: Math.log(4) });
        const { value } = await evaluated(policy, pairsOf(1));
        const { first } = value.scores['p0']!;
        expect(first.fused).toEqual(fuseHeads(first.mu, first.sigma, fusion));
        const { mu, sigma } = { mean: { mu: 1, sigma: 2.5 }, sum: { mu: 2, sigma: 5 }, min: { mu: -1, sigma: 4 } }[
          fusion
        ];
        expect(first.fused.mu).toBeCloseTo(mu, 6);
        expect(first.fused.sigma).toBeCloseTo(sigma, 5);
      },
      { names: ['following', 'quality'], fusion },
    );
  });
});

describe('scores', () => {
  it('are the same bit for bit in another order of the pairs and other batches, and the numbers follow from them', async () => {
    await withScorer(async (policy) => {
      const size = 70;
      const { value, events } = await evaluated(policy, pairsOf(size));
      // More pairs than are scored at once.
      const done = events.flatMap((event) => (event.type === 'sampling-progress' ? [event] : []));
      expect(done.map((event) => [event.done, event.total])).toEqual([
        [64, 70],
        [70, 70],
      ]);
      const order = Array.from({ length: size }, (_, i) => (i * 27 + 5) % size);
      const shuffled = await evaluated(policy, pairsOf(size, undefined, order));
      expect(shuffled.value.scores).toEqual(value.scores);
      const alone = await scoreRows(policy, [row('p3/a', 'a cat 3')], { signal });
      expect(alone).toEqual([value.scores['p3']!.first]);

      const data = pairsOf(size);
      const pairs = await Promise.all(Array.from({ length: size }, (_, i) => data.pair(i)));
      const scored = pairs.map(({ id }) => value.scores[id]!);
      const { name, seconds, scores: _scores, ...numbers } = value;
      expect([name, seconds > 0]).toEqual(['pairs', true]);
      expect(numbers).toEqual(
        await evaluateScoresWithIntervals(
          scorePairs(
            pairs,
            scored.map(({ first, second }) => ({ first: first.fused, second: second.fused })),
          ),
        ),
      );
      expect(done.at(-1)!.accuracy).toBeCloseTo(value.accuracyWithoutTies!, 12);
      expect(shuffled.value.calibration).toEqual(value.calibration);
    });
  });

  it('do not depend on a completion behind the prompt, however long', async () => {
    await withScorer(async (policy) => {
      const bare = row('r', 'a cat');
      const [score] = await scoreRows(policy, [bare]);
      for (const completion of ['this one', 'this one '.repeat(3000)])
        expect(await scoreRows(policy, [{ ...bare, completion }], { signal })).toEqual([score]);
    });
  });
});

describe('what is refused', () => {
  it('a model without a reward head', async () => {
    await using model = await engine.loadModel(textFolder);
    await using policy = await Policy.open(model, textFolder, { threads: 1 });
    await expect(train(policy, evaluateScorerRecipe(pairsOf(1))).result).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(/a reward head but this one has none/) as string,
    });
  });

  it('a head of weights that are no numbers, with a code', async () => {
    await withScorer(async (policy, model) => {
      await writeHead(model, 0, { bias: NaN });
      await expect(train(policy, evaluateScorerRecipe(pairsOf(1))).result).rejects.toMatchObject({
        code: 'non_finite',
      });
    });
  });

  it('an abort ends it between batches, with the reason', async () => {
    await withScorer(async (policy) => {
      const controller = new AbortController();
      const job = train(policy, evaluateScorerRecipe(pairsOf(70)), { signal: controller.signal });
      const watched = (async () => {
        for await (const event of job) if (event.type === 'sampling-progress') controller.abort(new Error('enough'));
      })();
      await expect(watched).rejects.toThrow('enough');
    });
  });
});
