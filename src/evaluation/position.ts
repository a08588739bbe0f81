/**
 * What the place of a candidate does to the verdict: accuracy in each order and in both, consistency and bias. Definitions
 * follow Zheng et al., "Judging LLM-as-a-Judge" (NeurIPS 2023, arXiv 2306.05685) and Shi et al. (arXiv 2406.07791).
 */
import { groupBy, meanOf, shareOf } from './interval.js';
import { choiceInData, type Judgement } from './judgement.js';
import { differenceStatistic, meanStatistic, observed, unitOf, type Statistic } from './resample-units.js';

export interface PositionResult {
  /** Accuracy of the judgements in the order of the data, and in the other one. */
  accuracyGiven: number | null;
  accuracySwapped: number | null;
  /** Share of pairs of judgements (same item, same sample, both orders) that are right in both orders. */
  accuracyBoth: number | null;
  /** Share of those pairs that name the same candidate in both orders. An unreadable verdict names none. */
  consistency: number | null;
  /** Accuracy where the gold candidate stands first minus accuracy where it stands second; > 0 favours the first. */
  bias: number | null;
  /** Share of verdicts for the first place among those that name one candidate; 0.5 is unbiased when orders are balanced. */
  firstShare: number | null;
}

export function positionOf(judgements: readonly Judgement[]): PositionResult {
  const accuracy = (chosen: (judgement: Judgement) => boolean): number | null =>
    meanOf(judgements.filter(chosen).map(({ correct }) => Number(correct)));
  const pairs = orderPairs(judgements);
  const first = accuracy(({ goldChoice }) => goldChoice === 'first');
  const second = accuracy(({ goldChoice }) => goldChoice === 'second');
  const decided = judgements.filter(({ choice }) => choice === 'first' || choice === 'second');
  return {
    accuracyGiven: accuracy(({ order }) => order === 'given'),
    accuracySwapped: accuracy(({ order }) => order === 'swapped'),
    accuracyBoth: shareOf(pairs, ([given, swapped]) => given.correct && swapped.correct),
    consistency: shareOf(pairs, ([given, swapped]) => namesTheSame(given, swapped)),
    bias: first === null || second === null ? null : first - second,
    firstShare: shareOf(decided, ({ choice }) => choice === 'first'),
  };
}

/** The same numbers as statistics to resample, by name of the field; only those that there are. */
export function positionStatistics(judgements: readonly Judgement[]): Partial<Record<keyof PositionResult, Statistic>> {
  const right = (chosen: (judgement: Judgement) => boolean): Statistic =>
    meanStatistic(observed(judgements.filter(chosen), ({ correct }) => correct));
  const overPairs = (passes: (given: Judgement, swapped: Judgement) => boolean): Statistic =>
    meanStatistic(
      orderPairs(judgements).map(([given, swapped]) => ({
        unit: unitOf(given),
        value: Number(passes(given, swapped)),
      })),
    );
  const decided = judgements.filter(({ choice }) => choice === 'first' || choice === 'second');
  const all: Record<keyof PositionResult, Statistic> = {
    accuracyGiven: right(({ order }) => order === 'given'),
    accuracySwapped: right(({ order }) => order === 'swapped'),
    accuracyBoth: overPairs((given, swapped) => given.correct && swapped.correct),
    consistency: overPairs(namesTheSame),
    bias: differenceStatistic(
      right(({ goldChoice }) => goldChoice === 'first'),
      right(({ goldChoice }) => goldChoice === 'second'),
    ),
    firstShare: meanStatistic(observed(decided, ({ choice }) => choice === 'first')),
  };
  return Object.fromEntries(Object.entries(all).filter(([, { sums }]) => sums.every(({ size }) => size > 0)));
}

/** Judgements of one item and sample index in both orders. */
function orderPairs(judgements: readonly Judgement[]): [Judgement, Judgement][] {
  const prompts = groupBy(judgements, ({ item, direct, sample }) => `${Number(direct)} ${sample} ${item}`);
  return [...prompts.values()].flatMap((found): [Judgement, Judgement][] => {
    const given = found.find(({ order }) => order === 'given');
    const swapped = found.find(({ order }) => order === 'swapped');
    return given === undefined || swapped === undefined ? [] : [[given, swapped]];
  });
}

function namesTheSame(given: Judgement, swapped: Judgement): boolean {
  if (given.answer === null || swapped.answer === null) return false;
  const [a, b] = [choiceInData(given), choiceInData(swapped)];
  if (a !== null && b !== null) return a === b;
  // Where no candidate is compared by place, the gold answer tells which one was named.
  return given.goldChoice === null && swapped.goldChoice === null && given.correct === swapped.correct;
}
