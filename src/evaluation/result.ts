/** What an evaluation returns, from the judgements alone; every recipe, command and report shows this one value. */
import type { Agreement } from './agreement.js';
import type { Calibration } from './calibration.js';
import type { Judgement } from './judgement.js';
import { positionOf } from './position.js';
import { itemAccuracy, marksOf, type DivisionAccuracy } from './subsets.js';
import { summarize, type SummaryOptions } from './summary.js';

export interface EvaluationResult {
  name: string;
  /** Items outside and inside the unseen sub-set. */
  count: number;
  unseenCount: number;
  /** Mean over items and orders outside the unseen sub-set, with its 95 % interval; null without such items. */
  accuracy: number | null;
  accuracyLow: number | null;
  accuracyHigh: number | null;
  /** 95 % percentile bootstrap over the same items. */
  bootstrapLow: number | null;
  bootstrapHigh: number | null;
  unseenAccuracy: number | null;
  unseenAccuracyLow: number | null;
  unseenAccuracyHigh: number | null;
  /** Accuracy when asked without chain of thought; null when no item asks so. */
  directAccuracy: number | null;
  unseenDirectAccuracy: number | null;
  /** Accuracy in the order of the data, in the other order, and of items right in both; outside the unseen sub-set. */
  accuracyGiven: number | null;
  accuracySwapped: number | null;
  accuracyBothOrders: number | null;
  /** Accuracy where the gold candidate stands first minus where it stands second; > 0 favours the first. */
  positionBias: number | null;
  /** Share of verdicts for the candidate that stands first. */
  firstShare: number | null;
  /** Agreement with gold preferences, ties counted; null when no item compares two candidates. Outside the unseen sub-set. */
  ties: Agreement | null;
  /** Over all items, the unseen ones too. */
  formatRate: number;
  unparsedRate: number;
  truncatedRate: number;
  /** Share of items whose two orders name the same candidate; null when no item has both. */
  orderConsistency: number | null;
  /** Share of rationales whose totals can be read, of verdicts against them, and of verdicts over equal totals. */
  totalsRate: number | null;
  contradictionRate: number | null;
  tiedTotalsRate: number | null;
  /** Accuracy by sub-set, by name of the division, outside the unseen sub-set. */
  groups: Record<string, DivisionAccuracy>;
  /** Items that count only when all of their cluster are right; null without clusters. */
  clusters: { count: number; accuracy: number } | null;
  /** By k, of the majority vote, and of the share of its votes; null with one sample a prompt. */
  passAtK: Record<string, number> | null;
  majority: number | null;
  calibration: Calibration | null;
  meanLength: number;
  /** Means of what `inspect` returned, by name. */
  extras: Record<string, number>;
  seconds: number;
  tokensPerSecond: number;
  /** Mark of each item, mean over orders, by id: for paired tests. */
  marks: Record<string, number>;
}

/** Every number of an evaluation. `seconds` and `tokens` are those of the sampling. */
export async function evaluationResult(
  name: string,
  judgements: readonly Judgement[],
  { seconds, tokens, ...options }: { seconds: number; tokens: number } & SummaryOptions,
): Promise<EvaluationResult> {
  const all = await summarize(judgements, { bootstrap: { resamples: 1 } });
  const seen = await summarize(
    judgements.filter(({ unseen }) => !unseen),
    options,
  );
  const unseen = judgements.filter((judgement) => judgement.unseen);
  const unseenAccuracy = itemAccuracy(unseen.filter(({ direct }) => !direct));
  const { accuracy, bootstrap, position, totals } = seen;
  return {
    name,
    count: accuracy?.count ?? 0,
    unseenCount: unseenAccuracy?.count ?? 0,
    accuracy: accuracy?.accuracy ?? null,
    accuracyLow: accuracy?.low ?? null,
    accuracyHigh: accuracy?.high ?? null,
    bootstrapLow: bootstrap?.low ?? null,
    bootstrapHigh: bootstrap?.high ?? null,
    unseenAccuracy: unseenAccuracy?.accuracy ?? null,
    unseenAccuracyLow: unseenAccuracy?.low ?? null,
    unseenAccuracyHigh: unseenAccuracy?.high ?? null,
    directAccuracy: seen.direct?.accuracy ?? null,
    unseenDirectAccuracy: itemAccuracy(unseen.filter(({ direct }) => direct))?.accuracy ?? null,
    accuracyGiven: position.accuracyGiven,
    accuracySwapped: position.accuracySwapped,
    accuracyBothOrders: position.accuracyBoth,
    positionBias: position.bias,
    firstShare: position.firstShare,
    ties: seen.ties,
    formatRate: all.formatRate ?? 0,
    unparsedRate: all.unparsedRate ?? 0,
    truncatedRate: all.truncatedRate ?? 0,
    orderConsistency: positionOf(judgements.filter(({ direct }) => !direct)).consistency,
    totalsRate: totals.totalsRate,
    contradictionRate: totals.contradictionRate,
    tiedTotalsRate: totals.tiedTotalsRate,
    groups: seen.divisions,
    clusters: seen.clusters,
    passAtK: seen.passAtK,
    majority: seen.majority,
    calibration: seen.calibration,
    meanLength: all.meanLength ?? 0,
    extras: all.extras,
    seconds,
    tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
    marks: Object.fromEntries(marksOf(judgements.filter(({ direct }) => !direct))),
  };
}
