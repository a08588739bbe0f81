/**
 * Pointwise judging: a completion gives one candidate a score inside its answer tags. What a score is worth against the gold
 * score, and which of two candidates two scores prefer.
 */
import { expected } from '../errors.js';
import type { Row } from '../data/rows.js';
import { parseCompletion } from './format.js';
import type { RewardFunction } from './reward.js';
import type { Verifier } from './verifier.js';

/** The number in the first answer tag, which holds nothing else; null otherwise. A trailing "/10" is read as that scale. */
export function parseScore(completion: string): number | null {
  const { answer } = parseCompletion(completion);
  const match = answer === null ? null : /^(-?\d+(?:\.\d+)?)(?:\s*\/\s*10)?$/.exec(answer);
  return match === null ? null : Number(match[1]);
}

/** Correct when the score is within `tolerance` of the gold one. Errors: 'bad_data' for a gold answer that is no number. */
export function scoreVerifier(tolerance: number): Verifier {
  checkPositive('tolerance', tolerance, 0);
  return (completion, gold) => {
    const score = parseScore(completion);
    return {
      correct: score !== null && Math.abs(score - goldScore(gold)) <= tolerance,
      answer: score === null ? null : String(score),
    };
  };
}

/** 1 - |score - gold| / range, at least 0; 0 for a completion without a score. Default range: 9, from 1 to 10. */
export function scoreReward(range = 9): RewardFunction {
  checkPositive('range', range, Number.MIN_VALUE);
  return ({ completion, row }) => {
    const score = parseScore(completion);
    return score === null ? 0 : Math.max(0, 1 - Math.abs(score - goldScore(row.solution ?? '', row)) / range);
  };
}

/** Which of two candidates the scores prefer; null when one has none, 'tie' when they are within `tieMargin`. */
export function preferByScore(
  first: number | null,
  second: number | null,
  tieMargin = 0,
): 'first' | 'second' | 'tie' | null {
  if (first === null || second === null) return null;
  if (Math.abs(first - second) <= tieMargin) return 'tie';
  return first > second ? 'first' : 'second';
}

function goldScore(gold: string, row?: Row): number {
  const value = gold.trim() === '' ? NaN : Number(gold);
  if (Number.isFinite(value)) return value;
  throw expected(
    'bad_data',
    row === undefined ? 'solution' : `solution of row "${row.id}"`,
    'a number',
    JSON.stringify(gold),
    'Pointwise judging needs a gold score.',
  );
}

function checkPositive(name: string, value: number, least: number): void {
  if (!(value >= least) || !Number.isFinite(value))
    throw expected('invalid_argument', name, least > 0 ? 'a number > 0' : 'a number >= 0', value);
}
