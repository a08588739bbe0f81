/** What an evaluation returns, from the judgements alone; every recipe, command and report shows this one value. */
import type { Agreement } from './agreement.js';
import type { BoundedCalibration } from './calibration.js';
import { bounds, wilsonInterval, type Bounds, type Interval } from './interval.js';
import type { Judgement } from './judgement.js';
import { positionOf, positionStatistics } from './position.js';
import { resampleUnits } from './resample-units.js';
import { itemAccuracy, marksOf, type DivisionAccuracy, type SubsetAccuracy } from './subsets.js';
import { summarize, type JudgementSummary, type SummaryOptions } from './summary.js';

/** Numbers with an interval by percentile bootstrap over units: clusters where there are any, else items. */
export type BootstrappedName =
  | 'accuracyGiven'
  | 'accuracySwapped'
  | 'accuracyBothOrders'
  | 'positionBias'
  | 'firstShare'
  | 'orderConsistency'
  | 'majority';

/** Accuracy of a division with its bootstrap intervals; those of `low` and `high` are Wilson's. */
export type DivisionResult = Omit<DivisionAccuracy, 'subsets'> &
  Bounds<'micro' | 'macro'> & { subsets: Record<string, SubsetAccuracy & Bounds<'bootstrap'>> };

export interface EvaluationResult
  extends
    Bounds<BootstrappedName>,
    /** Wilson's, over items. */
    Bounds<'directAccuracy' | 'unseenDirectAccuracy'> {
  name: string;
  /** Items outside and inside the unseen sub-set. */
  count: number;
  unseenCount: number;
  /** Mean over items and orders outside the unseen sub-set, with its 95 % interval; null without such items. */
  accuracy: number | null;
  accuracyLow: number | null;
  accuracyHigh: number | null;
  /** 95 % percentile bootstrap over the units, and its resamples: 2,000, fewer of very many items. */
  bootstrapLow: number | null;
  bootstrapHigh: number | null;
  bootstrapResamples: number;
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
  ties: (Agreement & Bounds<'accuracyWithTies' | 'accuracyWithoutTies'>) | null;
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
  groups: Record<string, DivisionResult>;
  /** Items that count only when all of their cluster are right, with Wilson's interval; null without clusters. */
  clusters: ({ count: number; accuracy: number } & Interval) | null;
  /** By k, of the majority vote, and of the share of its votes; null with one sample a prompt. */
  passAtK: Record<string, number> | null;
  passAtKLow: Record<string, number> | null;
  passAtKHigh: Record<string, number> | null;
  majority: number | null;
  calibration: BoundedCalibration | null;
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
  const { accuracy, bootstrap, position, totals, intervals, clusters } = seen;
  const reasoned = judgements.filter(({ direct }) => !direct);
  const { consistency } = positionStatistics(reasoned);
  const consistent = await resampleUnits({ ...(consistency && { consistency }) }, options.bootstrap);
  const unseenDirect = itemAccuracy(unseen.filter(({ direct }) => direct));
  const { accuracyWithTies, accuracyWithoutTies, ece, eceEqualMass, brier } = intervals;
  return {
    name,
    count: accuracy?.count ?? 0,
    unseenCount: unseenAccuracy?.count ?? 0,
    accuracy: accuracy?.accuracy ?? null,
    accuracyLow: accuracy?.low ?? null,
    accuracyHigh: accuracy?.high ?? null,
    bootstrapLow: bootstrap?.low ?? null,
    bootstrapHigh: bootstrap?.high ?? null,
    bootstrapResamples: seen.resamples,
    unseenAccuracy: unseenAccuracy?.accuracy ?? null,
    unseenAccuracyLow: unseenAccuracy?.low ?? null,
    unseenAccuracyHigh: unseenAccuracy?.high ?? null,
    directAccuracy: seen.direct?.accuracy ?? null,
    ...bounds('directAccuracy', seen.direct),
    unseenDirectAccuracy: unseenDirect?.accuracy ?? null,
    ...bounds('unseenDirectAccuracy', unseenDirect),
    accuracyGiven: position.accuracyGiven,
    ...bounds('accuracyGiven', intervals['accuracyGiven']),
    accuracySwapped: position.accuracySwapped,
    ...bounds('accuracySwapped', intervals['accuracySwapped']),
    accuracyBothOrders: position.accuracyBoth,
    ...bounds('accuracyBothOrders', intervals['accuracyBoth']),
    positionBias: position.bias,
    ...bounds('positionBias', intervals['bias']),
    firstShare: position.firstShare,
    ...bounds('firstShare', intervals['firstShare']),
    ties: seen.ties && {
      ...seen.ties,
      ...bounds('accuracyWithTies', accuracyWithTies),
      ...bounds('accuracyWithoutTies', accuracyWithoutTies),
    },
    formatRate: all.formatRate ?? 0,
    unparsedRate: all.unparsedRate ?? 0,
    truncatedRate: all.truncatedRate ?? 0,
    orderConsistency: positionOf(reasoned).consistency,
    ...bounds('orderConsistency', consistent.intervals['consistency']),
    totalsRate: totals.totalsRate,
    contradictionRate: totals.contradictionRate,
    tiedTotalsRate: totals.tiedTotalsRate,
    groups: groupsOf(seen),
    clusters: clusters && { ...clusters, ...wilsonInterval(clusters.accuracy * clusters.count, clusters.count) },
    passAtK: seen.passAtK,
    passAtKLow: passBounds(seen, 'low'),
    passAtKHigh: passBounds(seen, 'high'),
    majority: seen.majority,
    ...bounds('majority', intervals['majority']),
    calibration: seen.calibration && {
      ...seen.calibration,
      ...bounds('ece', ece),
      ...bounds('eceEqualMass', eceEqualMass),
      ...bounds('brier', brier),
    },
    meanLength: all.meanLength ?? 0,
    extras: all.extras,
    seconds,
    tokensPerSecond: seconds > 0 ? tokens / seconds : 0,
    marks: Object.fromEntries(marksOf(reasoned)),
  };
}

function groupsOf({ divisions, intervals }: JudgementSummary): Record<string, DivisionResult> {
  const groups = Object.entries(divisions).map(([name, { micro, macro, subsets }]): [string, DivisionResult] => {
    const parts = Object.entries(subsets).map(
      ([subset, accuracy]) =>
        [subset, { ...accuracy, ...bounds('bootstrap', intervals[`${name} / ${subset}`]) }] as const,
    );
    return [
      name,
      {
        micro,
        ...bounds('micro', intervals[`${name} micro`]),
        macro,
        ...bounds('macro', intervals[`${name} macro`]),
        subsets: Object.fromEntries(parts),
      },
    ];
  });
  return Object.fromEntries(groups);
}

function passBounds({ passAtK, intervals }: JudgementSummary, end: keyof Interval): Record<string, number> | null {
  if (passAtK === null) return null;
  return Object.fromEntries(Object.keys(passAtK).map((k) => [k, intervals[`pass@${k}`]![end]]));
}
