/**
 * Total scores that a rationale states for its two candidates, and whether the verdict follows from them. The default
 * reader takes UnifiedReward-Think's form: a line "Total score:" and then, for each candidate, "Image 1: 9+8+8=25".
 */
import { meanOf, shareOf } from './interval.js';
import type { Choice, Judgement } from './judgement.js';

/** The totals of the first and the second candidate as the prompt shows them; null when they cannot be read. */
export type TotalsReader = (completion: string) => readonly [number, number] | null;

const heading = /total scores?\b/gi;
const line = /\b(?:image|video|answer|response|candidate)\s*([12])\s*[:=(]\s*([^\n;,]*)/gi;

/**
 * Reads what stands after the last "Total score": for each candidate the number after the last "=", or the only number;
 * "41/50" is 41. Null when a candidate has no total, or two that differ.
 */
export const readTotals: TotalsReader = (completion) => {
  const start = [...completion.matchAll(heading)].at(-1)?.index;
  if (start === undefined) return null;
  const end = completion.indexOf('</think>', start);
  const section = completion.slice(start, end < 0 ? undefined : end);
  const found: [number | null, number | null] = [null, null];
  for (const [, place, text] of section.matchAll(line)) {
    const total = numberOf(text!);
    const index = place === '1' ? 0 : 1;
    if (total === null || (found[index] !== null && found[index] !== total)) return null;
    found[index] = total;
  }
  const [first, second] = found;
  return first === null || second === null ? null : [first, second];
};

function numberOf(text: string): number | null {
  const stated = text.slice(text.lastIndexOf('=') + 1);
  const match = /^\s*(-?\d+(?:\.\d+)?)(?:\s*\/\s*\d+(?:\.\d+)?)?(?![\d+*])/.exec(stated);
  return match === null ? null : Number(match[1]);
}

/** Whether a verdict contradicts totals: 'tied' when equal totals leave a strict verdict without ground. */
export function verdictAgainstTotals(
  totals: readonly [number, number],
  choice: Choice,
): 'follows' | 'contradicts' | 'tied' {
  const [first, second] = totals;
  if (first === second) return choice === 'tie' ? 'follows' : 'tied';
  return choice === (first > second ? 'first' : 'second') ? 'follows' : 'contradicts';
}

export interface TotalsResult {
  /** Share of judgements whose totals can be read; null when none can, since then nobody asked for totals. */
  totalsRate: number | null;
  /** Of judgements with totals and a verdict: the verdict is not for the higher total. Equal totals contradict no verdict. */
  contradictionRate: number | null;
  /** Of the same judgements: equal totals under a strict verdict. */
  tiedTotalsRate: number | null;
}

export function totalsOf(judgements: readonly Judgement[]): TotalsResult {
  const outcomes = judgements.flatMap(({ totals, choice }) =>
    totals === null || choice === null ? [] : [verdictAgainstTotals(totals, choice)],
  );
  const readable = meanOf(judgements.map(({ totals }) => Number(totals !== null)));
  return {
    totalsRate: readable === 0 ? null : readable,
    contradictionRate: shareOf(outcomes, (outcome) => outcome === 'contradicts'),
    tiedTotalsRate: shareOf(outcomes, (outcome) => outcome === 'tied'),
  };
}
