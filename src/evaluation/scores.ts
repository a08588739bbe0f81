/**
 * Evaluation of a scorer: pairs with a preference, and two scores a pair. A pair is predicted a tie when the means differ by
 * at most a threshold; the threshold that fits the gold ties best is Deutsch et al.'s tie calibration (arXiv 2305.14324).
 */
import { z } from 'zod';
import { GavelError, expected } from '../errors.js';
import { agreementOf, agreementStatistics, type Agreement } from './agreement.js';
import type { BootstrapOptions } from './bootstrap.js';
import { calibrationOf, calibrationStatistics, type BoundedCalibration, type Calibration } from './calibration.js';
import { preferenceProbability, type PreferenceModel } from './confidence.js';
import { bounds, meanOf, wilsonInterval, type Bounds } from './interval.js';
import { choiceSchema, type Choice } from './judgement.js';
import { meanStatistic, resampleUnits } from './resample-units.js';

export const scoreSchema = z
  .strictObject({
    mu: z.number().describe('The score, or the mean of a Gaussian one.'),
    sigma: z.number().min(0).default(0).describe('Its standard deviation; 0 for a plain score.'),
  })
  .describe('The score of one candidate.');

export const scoredPairSchema = z
  .strictObject({
    item: z.string().min(1).describe('Id of the pair.'),
    subsets: z.record(z.string(), z.string()).default({}).describe('Sub-sets of the pair, by name of the division.'),
    preference: choiceSchema.describe('The gold preference.'),
    first: scoreSchema,
    second: scoreSchema,
  })
  .describe('A pair with the scores of its candidates.');

export type ScoredPair = z.infer<typeof scoredPairSchema>;
type PairScore = z.input<typeof scoreSchema>;

/** Reads one record. Errors: 'bad_data' naming `where` and the first field that does not fit. */
export function parseScoredPair(value: unknown, where: string): ScoredPair {
  const parsed = scoredPairSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const field = path.length > 0 ? z.core.toDotPath(path) : 'the record';
  throw new GavelError(
    'bad_data',
    `Expected a scored pair at ${where} but received something else: ${field}: ${message}. docs/evaluation.md describes the fields.`,
    { fields: { where, field } },
  );
}

export interface ScoreOptions {
  /** Means that differ by no more are a predicted tie, in units of the scores. Default: 0. */
  tieThreshold?: number;
  /** What the scores say of a preference. Default: 'expected-sigmoid' with any sigma above 0, else 'sigmoid'. */
  model?: PreferenceModel;
  /** Bins of the calibration, over confidences from 1/2 to 1. Default: 10. */
  bins?: number;
}

export interface ScoreEvaluation extends Agreement {
  /** 95 % Wilson bounds of `accuracyWithoutTies` over pairs; null without strict pairs. */
  low: number | null;
  high: number | null;
  /** Mean of score(gold) - score(other) over pairs whose gold is no tie, and of its size over all pairs. */
  margin: number | null;
  meanGap: number | null;
  /** The threshold of the best accuracy with ties on these very pairs, hence optimistic; null without pairs. */
  tieCalibration: { threshold: number; accuracyWithTies: number } | null;
  /** Over pairs whose gold is no tie; a pair of equal scores counts as a wrong answer of confidence 1/2. */
  calibration: Calibration | null;
}

/** Scores joined with the pairs they belong to. Errors: 'invalid_argument' for unequal lengths or a score that is not finite. */
export function scorePairs(
  pairs: readonly { id: string; preference: Choice; subsets?: Record<string, string> }[],
  scores: readonly { first: PairScore; second: PairScore }[],
): ScoredPair[] {
  if (pairs.length !== scores.length)
    throw expected('invalid_argument', 'scores', `as many scores as pairs (${pairs.length})`, scores.length);
  return pairs.map(({ id, preference, subsets = {} }, i) => ({
    item: id,
    subsets,
    preference,
    first: checkedScore(id, scores[i]!.first),
    second: checkedScore(id, scores[i]!.second),
  }));
}

function checkedScore(id: string, { mu, sigma = 0 }: PairScore): { mu: number; sigma: number } {
  if (!Number.isFinite(mu)) throw expected('invalid_argument', `scores of "${id}"`, 'a finite mu', mu);
  if (!Number.isFinite(sigma) || sigma < 0)
    throw expected('invalid_argument', `scores of "${id}"`, 'a finite sigma >= 0', sigma);
  return { mu, sigma };
}

/** Every number above, of pairs with their scores. Errors: 'invalid_argument' for a negative threshold. */
export function evaluateScores(pairs: readonly ScoredPair[], options: ScoreOptions = {}): ScoreEvaluation {
  const { tieThreshold = 0, bins = 10 } = options;
  if (!(tieThreshold >= 0)) throw expected('invalid_argument', 'tieThreshold', 'a number >= 0', tieThreshold);
  const strict = pairs.filter(({ preference }) => preference !== 'tie');
  const agreement = agreementOf(
    pairs.map(({ preference: gold, first, second }) => ({
      gold,
      predicted: predictedChoice(first.mu - second.mu, tieThreshold),
    })),
  );
  const interval = strict.length === 0 ? null : wilsonInterval(agreement.concordant, strict.length);
  const answers = confidentAnswers(pairs, options);
  return {
    ...agreement,
    low: interval?.low ?? null,
    high: interval?.high ?? null,
    margin: meanOf(strict.map(marginOf)),
    meanGap: meanOf(pairs.map(({ first, second }) => Math.abs(first.mu - second.mu))),
    tieCalibration: calibrateTies(pairs),
    calibration: calibrationOf(answers, { bins, low: 0.5 }),
  };
}

/** Of a strict pair: what the gold candidate's score is above the other's. */
const marginOf = ({ preference, first, second }: ScoredPair): number =>
  (preference === 'first' ? 1 : -1) * (first.mu - second.mu);

/** What the scores say of each strict pair. */
function confidentAnswers(
  pairs: readonly ScoredPair[],
  options: ScoreOptions,
): { unit: string; confidence: number; correct: boolean }[] {
  const uncertain = pairs.some(({ first, second }) => first.sigma > 0 || second.sigma > 0);
  const model = options.model ?? (uncertain ? 'expected-sigmoid' : 'sigmoid');
  const strict = pairs.filter(({ preference }) => preference !== 'tie');
  return strict.map(({ item, preference, first, second }) => {
    const probability = preferenceProbability(first, second, model);
    const chosen = predictedChoice(first.mu - second.mu, 0);
    return { unit: item, confidence: Math.max(probability, 1 - probability), correct: chosen === preference };
  });
}

/** 95 % percentile bootstrap over pairs; null where there is no such number. */
export interface ScoreIntervals extends Bounds<'accuracyWithTies' | 'margin'> {
  calibration: BoundedCalibration | null;
}

/** `evaluateScores` with the intervals of its numbers. Errors: 'invalid_argument'. */
export async function evaluateScoresWithIntervals(
  pairs: readonly ScoredPair[],
  options: ScoreOptions & { bootstrap?: BootstrapOptions } = {},
): Promise<ScoreEvaluation & ScoreIntervals> {
  const { tieThreshold = 0, bootstrap = {} } = options;
  const evaluation = evaluateScores(pairs, options);
  const { calibration } = evaluation;
  const compared = pairs.map(({ item, preference, first, second }) => ({
    unit: item,
    gold: preference,
    predicted: predictedChoice(first.mu - second.mu, tieThreshold),
  }));
  const strict = pairs.filter(({ preference }) => preference !== 'tie');
  const { intervals } = await resampleUnits(
    {
      accuracyWithTies: agreementStatistics(compared).accuracyWithTies,
      margin: meanStatistic(strict.map((pair) => ({ unit: pair.item, value: marginOf(pair) }))),
      ...(calibration === null ? {} : calibrationStatistics(confidentAnswers(pairs, options), calibration)),
    },
    bootstrap,
  );
  return {
    ...evaluation,
    ...bounds('accuracyWithTies', intervals['accuracyWithTies']),
    ...bounds('margin', intervals['margin']),
    calibration: calibration && {
      ...calibration,
      ...bounds('ece', intervals['ece']),
      ...bounds('eceEqualMass', intervals['eceEqualMass']),
      ...bounds('brier', intervals['brier']),
    },
  };
}

function predictedChoice(difference: number, threshold: number): Choice {
  return Math.abs(difference) <= threshold ? 'tie' : difference > 0 ? 'first' : 'second';
}

/**
 * The smallest threshold with the most right predictions: pairs in ascending order of their gap turn into predicted ties one
 * gap at a time.
 */
export function calibrateTies(pairs: readonly ScoredPair[]): { threshold: number; accuracyWithTies: number } | null {
  if (pairs.length === 0) return null;
  const gaps = pairs
    .map(({ preference, first, second }) => {
      const difference = first.mu - second.mu;
      return {
        gap: Math.abs(difference),
        tie: preference === 'tie',
        right: predictedChoice(difference, 0) === preference,
      };
    })
    .sort((a, b) => a.gap - b.gap);
  // A pair of gap 0 is a predicted tie at every threshold.
  let right = gaps.filter(({ right: isRight }) => isRight).length;
  let best = { threshold: 0, right };
  for (let i = 0; i < gaps.length;) {
    const { gap } = gaps[i]!;
    for (; i < gaps.length && gaps[i]!.gap === gap; i++) {
      if (gap > 0) right += Number(gaps[i]!.tie) - Number(gaps[i]!.right);
    }
    if (right > best.right) best = { threshold: gap, right };
  }
  return { threshold: best.threshold, accuracyWithTies: best.right / pairs.length };
}
