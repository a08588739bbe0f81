/**
 * Test-time choices over the same N samples: pass@1, majority vote, the best of N. Pure: the samples are marked already, and
 * marks of an item are kept apart for paired tests.
 */
import type { MarkedSample } from '../runs/sample-pool.js';

export type Voter = Pick<MarkedSample, 'answer' | 'correct'>;

/** Answers that are one vote: blanks and case do not count. */
export const sameVote = (answer: string): string => answer.trim().replace(/\s+/g, ' ').toLowerCase();

/**
 * The sample that stands for the most frequent answer: its first giver; of equally frequent ones the answer given first.
 * A sample without an answer has no vote; undefined when no sample has one.
 */
export function majorityOf<V extends Voter>(
  samples: readonly V[],
  canonical: (answer: string) => string = sameVote,
): V | undefined {
  const votes = new Map<string, { first: V; count: number }>();
  for (const sample of samples) {
    if (sample.answer === null) continue;
    const key = canonical(sample.answer);
    const vote = votes.get(key) ?? { first: sample, count: 0 };
    vote.count++;
    votes.set(key, vote);
  }
  let winner: { first: V; count: number } | undefined;
  for (const vote of votes.values()) if (winner === undefined || vote.count > winner.count) winner = vote;
  return winner?.first;
}

/** Marks of one item at N: the mean over its samples, the majority's, and whether any sample is right. */
export function voteMarks(
  samples: readonly Voter[],
  canonical?: (answer: string) => string,
): { passAt1: number; majority: number; passAtN: number } {
  const right = samples.filter(({ correct }) => correct).length;
  return {
    passAt1: right / samples.length,
    majority: Number(majorityOf(samples, canonical)?.correct ?? false),
    passAtN: Number(right > 0),
  };
}
