/** How completions are marked: the rewards of training, the verdict that counts as correct, and what format means. */
import type { Row } from '../data/rows.js';
import { accuracyReward, goldAnswer } from '../rewards/accuracy.js';
import { formatReward, hasStrictFormat } from '../rewards/format.js';
import { evaluateRewards, type NamedReward, type RewardTable } from '../rewards/reward.js';
import { strictVerifier, type Verdict, type Verifier } from '../rewards/verifier.js';
import type { DrawnCompletion } from './policy.js';

export interface Judge {
  /** Summed with their weights; their values are in the pool and the metrics under their names. */
  rewards: readonly NamedReward[];
  verifier: Verifier;
  hasFormat: (completion: string) => boolean;
}

/** Format + accuracy, both strict, weight 1 each. */
export const defaultJudge: Judge = {
  rewards: [
    { name: 'format', reward: formatReward() },
    { name: 'accuracy', reward: accuracyReward() },
  ],
  verifier: strictVerifier,
  hasFormat: hasStrictFormat,
};

/** The verdict on one completion of a row. */
export function verdictOf(judge: Judge, row: Row, text: string): Verdict {
  return judge.verifier(text, goldAnswer(row), row.meta);
}

/** Reward table of the completions of `rows`, in their order. An aborted signal ends the wait for slow functions. */
export async function rewardTable(
  judge: Pick<Judge, 'rewards'>,
  rows: readonly Row[],
  completions: readonly DrawnCompletion[],
  signal?: AbortSignal,
): Promise<RewardTable> {
  const table = evaluateRewards(
    judge.rewards,
    completions.map(({ item, text, tokens, finishReason }) => ({
      row: rows[item]!,
      completion: text,
      tokens,
      finishReason,
    })),
  );
  return signal === undefined ? table : unlessAborted(table, signal);
}

/** What `promise` gives, or a rejection with the signal's reason when that comes first. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    if (onAbort !== undefined) signal.removeEventListener('abort', onAbort);
  }
}
