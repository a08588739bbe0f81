/**
 * R3V's training items of one question, from its marked samples (Cheng et al. 2024, section 3): self-CoT, refine and two
 * mixes of select. Most recent means the newest iteration and, within one, the highest sample index, as in the paper's code,
 * where the pool is the list of sample files in the order they were drawn.
 */
import type { MarkedSample } from '../runs/sample-pool.js';
import { nameKey, seededWord } from './seeded.js';

export const r3vItemKinds = ['selfCot', 'refine', 'selectA', 'selectB'] as const;

/** selectA has one wrong candidate and else correct ones, selectB one correct candidate and else wrong ones. */
export type R3vItemKind = (typeof r3vItemKinds)[number];

/** What the choice among samples looks at. */
export type Ranked = Pick<MarkedSample, 'sample' | 'recency' | 'correct'>;

export type R3vItem<S extends Ranked> =
  /** question -> the correct sample. */
  | { kind: 'selfCot'; correct: S }
  /** question + the wrong sample -> the correct sample. */
  | { kind: 'refine'; correct: S; wrong: S }
  /** question + candidates as they stand -> an answer; `correct` are those among them, most recent first. */
  | { kind: 'selectA'; candidates: S[]; correct: S[] }
  | { kind: 'selectB'; candidates: S[]; correct: S[] };

export interface R3vItemOptions {
  /** Candidates of a select item, N: 2 to 6. */
  candidates: number;
  refine: boolean;
  select: boolean;
  /** Key of the order of candidates, with the question's id. */
  seed: number;
}

/**
 * Items of the question `id`, in the order of the kinds; conditions are independent, so a question may give all four.
 *
 * | kind    | condition                        | of N = 3                       |
 * | selfCot | >= 1 correct                     |                                |
 * | refine  | >= 1 correct, >= 1 wrong         |                                |
 * | selectA | >= N - 1 correct, >= 1 wrong     | latest 2 correct, latest wrong |
 * | selectB | >= 1 correct, >= N - 1 wrong     | latest correct, latest 2 wrong |
 *
 * With N = 2 the two mixes are one, selectA.
 */
export function itemsOf<S extends Ranked>(id: string, samples: readonly S[], options: R3vItemOptions): R3vItem<S>[] {
  const newestFirst = [...samples].sort((a, b) => b.recency - a.recency || b.sample - a.sample);
  const correct = newestFirst.filter((sample) => sample.correct);
  const wrong = newestFirst.filter((sample) => !sample.correct);
  const others = options.candidates - 1;
  const items: R3vItem<S>[] = [];
  if (correct.length === 0) return items;
  items.push({ kind: 'selfCot', correct: correct[0]! });
  if (wrong.length === 0) return items;
  if (options.refine) items.push({ kind: 'refine', correct: correct[0]!, wrong: wrong[0]! });
  const select = (kind: 'selectA' | 'selectB', numCorrect: number, numWrong: number): void => {
    if (correct.length < numCorrect || wrong.length < numWrong) return;
    const chosen = correct.slice(0, numCorrect);
    const words = [nameKey(id), r3vItemKinds.indexOf(kind), samples.length];
    items.push({
      kind,
      candidates: shuffled([...chosen, ...wrong.slice(0, numWrong)], options.seed, words),
      correct: chosen,
    });
  };
  if (options.select) select('selectA', others, 1);
  if (options.select && others > 1) select('selectB', 1, others);
  return items;
}

/** Fisher and Yates' shuffle, keyed by (seed, ...words). */
function shuffled<T>(list: T[], seed: number, words: readonly number[]): T[] {
  for (let i = list.length - 1; i > 0; i--) {
    const j = seededWord(seed, ...words, i) % (i + 1);
    [list[i], list[j]] = [list[j]!, list[i]!];
  }
  return list;
}

/**
 * Of the answers of a select item's correct samples, most recent first, the one to train on: the number nearest to the gold
 * answer where all are numbers, as in the paper's code, else the most recent.
 */
export function chosenAnswer(answers: readonly string[], gold: string): string {
  const distances = answers.map((answer) => Math.abs(numberOrNaN(answer) - numberOrNaN(gold)));
  if (distances.some(Number.isNaN)) return answers[0]!;
  return answers[distances.indexOf(Math.min(...distances))]!;
}

const numberOrNaN = (text: string): number => (text.trim() === '' ? NaN : Number(text));
