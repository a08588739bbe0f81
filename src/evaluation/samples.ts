/**
 * Several samples of one prompt: pass@k by the unbiased estimator of Chen et al. (2021, arXiv 2107.03374), the majority
 * vote of self-consistency (Wang et al., arXiv 2203.11171), and the table that compares them with a selector at each N.
 */
import { expected } from '../errors.js';
import { nameKey, seededWord } from '../seeded.js';
import { meanOf } from './interval.js';

/**
 * Chance that at least one of `k` samples, drawn without replacement from `count` of which `correct` are right, is right:
 * 1 - C(count - correct, k) / C(count, k). Errors: 'invalid_argument' when 1 <= k <= count or 0 <= correct <= count fails.
 */
export function passAtK(count: number, correct: number, k: number): number {
  if (!Number.isInteger(k) || k < 1 || k > count)
    throw expected('invalid_argument', 'k', `an integer from 1 to the number of samples (${count})`, k);
  if (!Number.isInteger(correct) || correct < 0 || correct > count)
    throw expected('invalid_argument', 'correct', `an integer from 0 to ${count}`, correct);
  if (count - correct < k) return 1;
  let missing = 1;
  for (let i = count - correct + 1; i <= count; i++) missing *= 1 - k / i;
  return 1 - missing;
}

/** One sample of a prompt. */
export interface Vote {
  /** Null is no vote. */
  answer: string | null;
  correct: boolean;
}

export interface MajorityResult {
  /** Null when no sample could be parsed. */
  answer: string | null;
  correct: boolean;
  /** Votes for the answer, and votes cast. */
  votes: number;
  cast: number;
}

/**
 * The most frequent answer. Among equally frequent ones a choice keyed by (seed, id) decides, whatever the order of the
 * samples. Without any vote the result is wrong, never random.
 */
export function majorityVote(votes: readonly Vote[], id: string, seed = 0): MajorityResult {
  const counts = new Map<string, { votes: number; correct: boolean }>();
  let cast = 0;
  for (const { answer, correct } of votes) {
    if (answer === null) continue;
    cast++;
    const entry = counts.get(answer) ?? { votes: 0, correct };
    entry.votes++;
    counts.set(answer, entry);
  }
  if (cast === 0) return { answer: null, correct: false, votes: 0, cast };
  const most = Math.max(...[...counts.values()].map((entry) => entry.votes));
  const leaders = [...counts].filter(([, entry]) => entry.votes === most).sort(([a], [b]) => (a < b ? -1 : 1));
  const [answer, { correct }] = leaders[seededWord(seed, nameKey(id)) % leaders.length]!;
  return { answer, correct, votes: most, cast };
}

/** The samples of one item, in the order they were drawn. */
export interface SampledItem {
  id: string;
  samples: readonly Vote[];
  /** Whether the answer a selector gave from the first N samples is right, by N. */
  selected?: Readonly<Record<number, boolean>>;
}

export interface SelectionRow {
  n: number;
  /** Items with at least n samples; the others are left out of this row. */
  items: number;
  /** Mean accuracy of one of the first n samples. */
  passAt1: number | null;
  /** Accuracy of the majority of the first n. */
  majority: number | null;
  /** Accuracy of the selector over the first n; null where no item has a selection at this n. */
  select: number | null;
  /** Unbiased pass@n over all samples of the item: what a perfect selector would reach. */
  passAtN: number | null;
}

/** pass@1, majority, select and pass@N over the same samples, a row for each N. */
export function compareSelections(items: readonly SampledItem[], ns: readonly number[], seed = 0): SelectionRow[] {
  return ns.map((n) => {
    if (!Number.isInteger(n) || n < 1) throw expected('invalid_argument', 'ns', 'integers >= 1', n);
    const whole = items.filter(({ samples }) => samples.length >= n);
    const selections = whole.flatMap(({ selected }) => (selected?.[n] === undefined ? [] : [Number(selected[n])]));
    return {
      n,
      items: whole.length,
      passAt1: meanOf(whole.map(({ samples }) => shareRight(samples.slice(0, n)))),
      majority: meanOf(whole.map(({ id, samples }) => Number(majorityVote(samples.slice(0, n), id, seed).correct))),
      select: meanOf(selections),
      passAtN: meanOf(whole.map(({ samples }) => passAtK(samples.length, numRight(samples), n))),
    };
  });
}

const numRight = (samples: readonly Vote[]): number => samples.filter(({ correct }) => correct).length;
const shareRight = (samples: readonly Vote[]): number => numRight(samples) / samples.length;
