/**
 * Calibration: does an answer given with confidence p turn out right a share p of the time? Expected calibration error in
 * bins of equal width (Guo et al., 2017, arXiv 1706.04599) and of equal mass (Nguyen and O'Connor, 2015), Brier score (1950).
 */
import { expected } from '../errors.js';
import type { Bounds } from './interval.js';
import { meanStatistic, type Statistic } from './resample-units.js';

export interface ConfidentAnswer {
  /** Probability the judge gives its answer, in [0, 1]. */
  confidence: number;
  correct: boolean;
}

/** Answers of similar confidence. */
export interface ReliabilityBin {
  /** Bounds of the confidence; of a bin of equal mass, those of its answers. */
  low: number;
  high: number;
  count: number;
  /** Means over the bin; null in an empty one. */
  confidence: number | null;
  accuracy: number | null;
}

export interface Calibration {
  count: number;
  /** sum over bins of count / n * |accuracy - confidence|. */
  ece: number;
  eceEqualMass: number;
  /** Mean of (confidence - correct)^2. */
  brier: number;
  meanConfidence: number;
  accuracy: number;
  bins: ReliabilityBin[];
  binsEqualMass: ReliabilityBin[];
}

/** With 95 % intervals by percentile bootstrap. */
export type BoundedCalibration = Calibration & Bounds<'ece' | 'eceEqualMass' | 'brier'>;

/**
 * Calibration of answers; null without any. Bins of equal width divide [low, 1] (`low` 0 by default), each with its upper
 * bound. Bins of equal mass never part equal confidences, so the result does not depend on the order of the answers.
 * Errors: 'invalid_argument' for a confidence outside [0, 1] and for a number of bins below 1.
 */
export function calibrationOf(
  answers: readonly ConfidentAnswer[],
  { bins = 10, low = 0 }: { bins?: number; low?: number } = {},
): Calibration | null {
  if (!Number.isInteger(bins) || bins < 1) throw expected('invalid_argument', 'bins', 'an integer >= 1', bins);
  const odd = answers.find(({ confidence }) => !(confidence >= 0 && confidence <= 1));
  if (odd !== undefined) throw expected('invalid_argument', 'confidence', 'a number from 0 to 1', odd.confidence);
  if (answers.length === 0) return null;
  // Sorted sums do not depend on the order of the answers, not even by rounding.
  const sorted = [...answers].sort((a, b) => a.confidence - b.confidence || Number(a.correct) - Number(b.correct));
  const width = equalWidth(sorted, bins, low);
  const mass = equalMass(sorted, bins);
  const whole = binOf(sorted, 0, 1);
  return {
    count: answers.length,
    ece: errorOf(width, answers.length),
    eceEqualMass: errorOf(mass, answers.length),
    brier:
      sorted.reduce((sum, { confidence, correct }) => sum + (confidence - Number(correct)) ** 2, 0) / sorted.length,
    meanConfidence: whole.confidence!,
    accuracy: whole.accuracy!,
    bins: width,
    binsEqualMass: mass,
  };
}

/** What a bin adds to an error: its answers, and how far they were right beyond their confidence. */
const sumsOfBin = (answers: readonly (ConfidentAnswer & { unit: string })[]): Map<string, number> => {
  const sums = new Map<string, number>();
  for (const { unit, correct, confidence } of answers) {
    sums.set(unit, (sums.get(unit) ?? 0) + Number(correct) - confidence);
  }
  return sums;
};

/**
 * The errors as statistics to resample, in the very bins of `calibration`. A calibration error cannot be below 0, so that of
 * a resample is larger on average than that of the answers: of few answers the interval lies high.
 */
export function calibrationStatistics(
  answers: readonly (ConfidentAnswer & { unit: string })[],
  { bins, binsEqualMass }: Calibration,
): Record<'ece' | 'eceEqualMass' | 'brier', Statistic> {
  const counts = new Map<string, number>();
  for (const { unit } of answers) counts.set(unit, (counts.get(unit) ?? 0) + 1);
  const errorIn = (held: readonly ReliabilityBin[], place: (confidence: number) => number): Statistic => ({
    sums: [counts, ...held.map((_, i) => sumsOfBin(answers.filter(({ confidence }) => place(confidence) === i)))],
    of: (totals) => {
      let error = 0;
      for (let i = 1; i < totals.length; i++) error += Math.abs(totals[i]!);
      return error / totals[0]!;
    },
  });
  const lowest = bins[0]!.low;
  return {
    ece: errorIn(bins, (confidence) => binOfWidth(confidence, bins.length, lowest)),
    eceEqualMass: errorIn(binsEqualMass, (confidence) => binsEqualMass.findIndex(({ high }) => confidence <= high)),
    brier: meanStatistic(
      answers.map(({ unit, confidence, correct }) => ({ unit, value: (confidence - Number(correct)) ** 2 })),
    ),
  };
}

function equalWidth(answers: readonly ConfidentAnswer[], bins: number, low: number): ReliabilityBin[] {
  const held: ConfidentAnswer[][] = Array.from({ length: bins }, () => []);
  for (const answer of answers) held[binOfWidth(answer.confidence, bins, low)]!.push(answer);
  const bound = (i: number): number => low + ((1 - low) * i) / bins;
  return held.map((inside, i) => binOf(inside, bound(i), bound(i + 1)));
}

function binOfWidth(confidence: number, bins: number, low: number): number {
  // A confidence such as 0.3 that rounding leaves above its bound of 3 / 10 belongs below it.
  const place = Math.ceil(((confidence - low) / (1 - low)) * bins - 1e-9) - 1;
  return Math.min(bins - 1, Math.max(0, place));
}

function equalMass(answers: readonly ConfidentAnswer[], bins: number): ReliabilityBin[] {
  const result: ReliabilityBin[] = [];
  let start = 0;
  for (let i = 1; i <= bins && start < answers.length; i++) {
    let end = Math.max(start + 1, Math.round((i * answers.length) / bins));
    while (end < answers.length && answers[end]!.confidence === answers[end - 1]!.confidence) end++;
    const inside = answers.slice(start, end);
    result.push(binOf(inside, inside[0]!.confidence, inside.at(-1)!.confidence));
    start = end;
  }
  return result;
}

function binOf(inside: readonly ConfidentAnswer[], low: number, high: number): ReliabilityBin {
  const count = inside.length;
  if (count === 0) return { low, high, count, confidence: null, accuracy: null };
  return {
    low,
    high,
    count,
    confidence: inside.reduce((sum, { confidence }) => sum + confidence, 0) / count,
    accuracy: inside.filter(({ correct }) => correct).length / count,
  };
}

function errorOf(bins: readonly ReliabilityBin[], count: number): number {
  return bins.reduce(
    (sum, bin) => (bin.count === 0 ? sum : sum + (bin.count / count) * Math.abs(bin.accuracy! - bin.confidence!)),
    0,
  );
}
