import { describe, expect, it } from 'vitest';
import { bootstrapInterval } from '../../src/evaluation/bootstrap.js';
import { headlinesWithIntervals } from '../../src/evaluation/benchmarks/headlines.js';
import { benchmarkByName } from '../../src/evaluation/benchmarks/load.js';
import { judgementSchema, type Judgement, type JudgementInput } from '../../src/evaluation/judgement.js';
import { meanStatistic, resampleUnits } from '../../src/evaluation/resample-units.js';
import { evaluationResult, type EvaluationResult } from '../../src/evaluation/result.js';
import { evaluateScores, evaluateScoresWithIntervals, type ScoredPair } from '../../src/evaluation/scores.js';
import { evaluationTables, plainTables } from '../../src/evaluation/table.js';
import { seededUnit } from '../../src/seeded.js';

const judged = (input: Partial<JudgementInput> & { item: string; correct: boolean }): Judgement =>
  judgementSchema.parse({ gold: 'x', answer: input.correct ? 'x' : 'y', ...input });

const coin = (chance: number, ...words: number[]): boolean => seededUnit(11, ...words) < chance;

/** Items in both orders, four samples a prompt, in two groups; the second quarter in clusters of five. */
const judgements = (count: number): Judgement[] =>
  Array.from({ length: count }, (_, i) => i).flatMap((i) =>
    (['given', 'swapped'] as const).flatMap((order, o) =>
      [0, 1, 2, 3].map((sample) => {
        const correct = coin(i % 4 === 0 ? 0.9 : 0.6, i, o, sample);
        const goldChoice = (i % 2 === 0) === (order === 'given') ? 'first' : 'second';
        const other = goldChoice === 'first' ? 'second' : 'first';
        return judged({
          item: `i${i}`,
          order,
          sample,
          correct,
          goldChoice,
          choice: correct ? goldChoice : other,
          subsets: { group: i % 4 === 0 ? 'easy' : 'hard' },
        });
      }),
    ),
  );

const resultOf = (of: readonly Judgement[]): Promise<EvaluationResult> =>
  evaluationResult('set', of, { seconds: 0, tokens: 0 });

function holds(value: number | null, low: number | null, high: number | null): void {
  expect(low).not.toBeNull();
  expect(low!).toBeLessThan(value!);
  expect(high!).toBeGreaterThan(value!);
}

describe('intervals of an evaluation', () => {
  it('stand beside every headline number, and hold it', async () => {
    const result = await resultOf(judgements(200));
    for (const name of [
      'accuracyGiven',
      'accuracySwapped',
      'accuracyBothOrders',
      'positionBias',
      'firstShare',
      'orderConsistency',
      'majority',
    ] as const) {
      holds(result[name], result[`${name}Low`], result[`${name}High`]);
    }
    for (const k of ['1', '2', '4']) holds(result.passAtK![k]!, result.passAtKLow![k]!, result.passAtKHigh![k]!);
    const { micro, microLow, microHigh, macro, macroLow, macroHigh, subsets } = result.groups['group']!;
    holds(micro, microLow, microHigh);
    holds(macro, macroLow, macroHigh);
    for (const { accuracy, bootstrapLow, bootstrapHigh } of Object.values(subsets)) {
      holds(accuracy, bootstrapLow, bootstrapHigh);
    }
    const { ties, calibration } = result;
    holds(ties!.accuracyWithoutTies, ties!.accuracyWithoutTiesLow, ties!.accuracyWithoutTiesHigh);
    // A resampled calibration error lies above the measured one on average, so only its width is sure.
    expect(calibration!.eceLow!).toBeLessThan(calibration!.eceHigh!);
    expect(calibration!.eceHigh!).toBeGreaterThan(calibration!.ece);
    holds(calibration!.brier, calibration!.brierLow, calibration!.brierHigh);
    expect(result.bootstrapResamples).toBe(2000);
    expect(await resultOf(judgements(200))).toEqual(result);
    const table = plainTables(evaluationTables(result));
    for (const name of ['in both orders', 'order consistency', 'pass@4', 'majority', 'ECE, equal width', 'macro']) {
      expect(table.split('\n').find((line) => line.trim().startsWith(name))).toMatch(/\[-?\d\.\d+, -?\d\.\d+\]/);
    }
  });

  it('have the spread that theory gives', async () => {
    // One judgement an item, 400 fair coins: the standard error is 0.025.
    const coins = Array.from({ length: 400 }, (_, i) => judged({ item: `i${i}`, correct: i % 2 === 0 }));
    const { accuracyGivenLow: low, accuracyGivenHigh: high } = await resultOf(coins);
    expect(high! - low!).toBeGreaterThan(2 * 1.96 * 0.025 * 0.9);
    expect(high! - low!).toBeLessThan(2 * 1.96 * 0.025 * 1.1);
  });

  it('resample clusters whole: five copies of an item tell no more than the item', async () => {
    const items = Array.from({ length: 60 }, (_, i) => coin(0.5, i));
    const copies = items.flatMap((correct, i) =>
      [0, 1, 2, 3, 4].map((copy) => judged({ item: `${i} ${copy}`, cluster: `c${i}`, correct })),
    );
    const [alone, clustered, blind] = await Promise.all([
      resultOf(items.map((correct, i) => judged({ item: `${i}`, correct }))),
      resultOf(copies),
      resultOf(copies.map((copy) => ({ ...copy, cluster: null }))),
    ]);
    const width = ({ bootstrapLow, bootstrapHigh }: EvaluationResult): number => bootstrapHigh! - bootstrapLow!;
    expect(width(clustered)).toBeCloseTo(width(alone), 1);
    expect(width(blind)).toBeLessThan(0.6 * width(clustered));
    const { accuracy, low, high, count } = clustered.clusters!;
    expect(count).toBe(60);
    holds(accuracy, low, high);
  });

  it('are null where there is no number', async () => {
    const result = await resultOf([judged({ item: 'a', correct: true })]);
    expect(result).toMatchObject({ accuracySwappedLow: null, orderConsistencyHigh: null, majorityLow: null });
    expect(result).toMatchObject({ positionBiasLow: null, passAtKLow: null, directAccuracyLow: null, clusters: null });
    expect(await resultOf([])).toMatchObject({ bootstrapLow: null, accuracyGivenLow: null, groups: {} });
  });

  it('of direct answers are Wilson intervals', async () => {
    const direct = Array.from({ length: 20 }, (_, i) => judged({ item: `i${i}`, direct: true, correct: i < 15 }));
    const { directAccuracy, directAccuracyLow, directAccuracyHigh } = await resultOf(direct);
    holds(directAccuracy, directAccuracyLow, directAccuracyHigh);
    expect(directAccuracyLow).toBeCloseTo(0.5313, 3);
  });
});

describe('resampled units', () => {
  it('give the interval of a mean that bootstrapInterval gives', async () => {
    const marks = Array.from({ length: 50 }, (_, i) => Number(coin(0.7, i)));
    const name = (i: number): string => String(i).padStart(3, '0');
    const { intervals } = await resampleUnits(
      { mean: meanStatistic(marks.map((value, i) => ({ unit: name(i), value }))) },
      { seed: 4 },
    );
    const alone = (await bootstrapInterval(marks, { seed: 4 }))!;
    expect(intervals['mean']!.low).toBeCloseTo(alone.low, 12);
    expect(intervals['mean']!.high).toBeCloseTo(alone.high, 12);
  });

  it('let the event loop breathe, and take fewer resamples of very many units', async () => {
    const many = Array.from({ length: 300_000 }, (_, i) => ({ unit: String(i), value: i % 2 }));
    let [turns, longest, last] = [0, 0, performance.now()];
    const statistic = meanStatistic(many);
    const running = resampleUnits({ mean: statistic }, { resamples: 20 });
    last = performance.now();
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last);
      last = performance.now();
      turns++;
    }, 1);
    expect((await running).intervals['mean']!.high).toBeGreaterThan(0.5);
    clearInterval(timer);
    expect(turns).toBeGreaterThan(5);
    expect(longest).toBeLessThan(1000);
    const { resamples } = await resampleUnits({ mean: meanStatistic(many.slice(0, 150_000)) });
    expect(resamples).toBeLessThan(2000);
    expect(resamples).toBeGreaterThanOrEqual(200);
  });

  it('refuse options out of range', async () => {
    await expect(resampleUnits({}, { resamples: 0 })).rejects.toMatchObject({ code: 'invalid_argument' });
    await expect(resampleUnits({}, { level: 2 })).rejects.toMatchObject({ code: 'invalid_argument' });
  });
});

describe("intervals of a benchmark's numbers", () => {
  it('hold the numbers, and are null without them', async () => {
    const groups = ['general', 'hallucination', 'reasoning'];
    const of = judgements(120).map((one, i) => ({ ...one, subsets: { group: groups[Math.floor(i / 8) % 3]! } }));
    const headlines = await headlinesWithIntervals(benchmarkByName('vl-reward-bench'), of);
    expect(headlines.map(({ name }) => name)).toEqual([...groups, 'overall', 'macro']);
    for (const { value, low, high } of headlines) holds(value, low!, high!);
    const { bootstrapLow } = await resultOf(of);
    expect(headlines[3]!.low).toBeCloseTo(bootstrapLow!, 12);
    const some = await headlinesWithIntervals(benchmarkByName('vl-reward-bench'), of.slice(0, 8));
    expect(some.at(-1)).toEqual({ name: 'macro', value: null, low: null, high: null });
  });

  it('resample the rankings of TIGER-Lab whole', async () => {
    const comparisons = Array.from({ length: 90 }, (_, i) =>
      judged({
        item: `r${i}`,
        cluster: `c${Math.floor(i / 3)}`,
        correct: coin(0.8, i),
        goldChoice: 'first',
        subsets: { size: '3pair' },
      }),
    );
    const headlines = await headlinesWithIntervals(benchmarkByName('edit-reward-bench-tiger'), comparisons);
    const ranked = headlines.find(({ name }) => name.startsWith('3-pair'))!;
    holds(ranked.value, ranked.low!, ranked.high!);
    // 30 rankings at about 0.5: a standard error of about 0.09, not the 0.05 of 90 comparisons.
    expect(ranked.high! - ranked.low!).toBeGreaterThan(0.25);
  });
});

describe('intervals of a scorer', () => {
  it('hold its accuracy with ties, margin and calibration', async () => {
    const pairs = Array.from({ length: 150 }, (_, i): ScoredPair => ({
      item: `p${i}`,
      subsets: {},
      preference: coin(0.7, i, 1) ? 'first' : 'second',
      first: { mu: seededUnit(2, i) * 3, sigma: 0 },
      second: { mu: seededUnit(3, i), sigma: 0 },
    }));
    const result = await evaluateScoresWithIntervals(pairs);
    expect(result).toMatchObject({ ...evaluateScores(pairs), calibration: evaluateScores(pairs).calibration });
    holds(result.accuracyWithTies, result.accuracyWithTiesLow, result.accuracyWithTiesHigh);
    holds(result.margin, result.marginLow, result.marginHigh);
    holds(result.calibration!.brier, result.calibration!.brierLow, result.calibration!.brierHigh);
    expect(await evaluateScoresWithIntervals([])).toMatchObject({ marginLow: null, calibration: null });
  });
});
