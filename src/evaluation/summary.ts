/** Every metric of a list of judgements in one value: what the evaluation recipe, the command and a report show. */
import { agreementOf, agreementStatistics, type Agreement } from './agreement.js';
import type { BootstrapOptions } from './bootstrap.js';
import { calibrationOf, calibrationStatistics, type Calibration } from './calibration.js';
import { voteConfidence } from './confidence.js';
import { groupBy, meanOf, shareOf, type Interval } from './interval.js';
import type { Judgement } from './judgement.js';
import { positionOf, positionStatistics, type PositionResult } from './position.js';
import { meanStatistic, resampleUnits, unitOf, type Statistic } from './resample-units.js';
import { majorityVote, passAtK, type MajorityResult } from './samples.js';
import {
  clusterAccuracy,
  divisionAccuracy,
  divisionsOf,
  itemAccuracy,
  itemObservations,
  type DivisionAccuracy,
  type SubsetAccuracy,
} from './subsets.js';
import { totalsOf, type TotalsResult } from './totals.js';

export interface SummaryOptions {
  bootstrap?: BootstrapOptions;
  /** Bins of the calibration. Default: 10. */
  bins?: number;
  /** Key of the choice between answers with equally many votes. Default: 0. */
  seed?: number;
}

export interface JudgementSummary {
  /** Mean mark of the items with chain of thought, its 95 % Wilson bounds and its percentile bootstrap over units. */
  accuracy: SubsetAccuracy | null;
  bootstrap: Interval | null;
  /**
   * Percentile bootstrap over the same units by name of the number: those of `position` and `ties`, 'majority', 'pass@K',
   * 'ece', 'eceEqualMass', 'brier', and of a division 'NAME micro', 'NAME macro', 'NAME / SUBSET'.
   */
  intervals: Record<string, Interval | null>;
  /** Resamples that the intervals come from. */
  resamples: number;
  /** The same of the direct answers. */
  direct: SubsetAccuracy | null;
  position: PositionResult;
  /** Null when no item compares two candidates. */
  ties: Agreement | null;
  formatRate: number | null;
  unparsedRate: number | null;
  truncatedRate: number | null;
  meanLength: number | null;
  totals: TotalsResult;
  /** By name of the division. */
  divisions: Record<string, DivisionAccuracy>;
  clusters: { count: number; accuracy: number } | null;
  /** Samples of each prompt; the fewest, when prompts differ. */
  samples: number;
  /** By k = 1, 2, 4, ... up to `samples`, and `samples` itself; null with one sample. */
  passAtK: Record<string, number> | null;
  /** Accuracy of the majority of the samples of a prompt, and the calibration of its share of the votes. */
  majority: number | null;
  calibration: Calibration | null;
  extras: Record<string, number>;
}

/** All metrics over the judgements with chain of thought; `direct` alone looks at the others. */
export async function summarize(
  judgements: readonly Judgement[],
  { bootstrap = {}, bins = 10, seed = 0 }: SummaryOptions = {},
): Promise<JudgementSummary> {
  const reasoned = judgements.filter(({ direct }) => !direct);
  const compared = reasoned.flatMap((judgement) => {
    const { goldChoice: gold, choice: predicted } = judgement;
    return gold === null ? [] : [{ gold, predicted, unit: unitOf(judgement) }];
  });
  const divisions = divisionsOf(reasoned).map((name) => [name, divisionAccuracy(reasoned, name)!] as const);
  const { statistics, ...samples } = samplesOf(reasoned, bins, seed);
  const { intervals, resamples } = await resampleUnits(
    {
      accuracy: meanStatistic(itemObservations(reasoned)),
      ...positionStatistics(reasoned),
      ...(compared.length === 0 ? {} : agreementStatistics(compared)),
      ...statistics,
      ...Object.assign({}, ...divisions.map(([name]) => divisionStatistics(reasoned, name))),
    } as Record<string, Statistic>,
    bootstrap,
  );
  return {
    accuracy: itemAccuracy(reasoned),
    bootstrap: intervals['accuracy'] ?? null,
    intervals,
    resamples,
    direct: itemAccuracy(judgements.filter(({ direct }) => direct)),
    position: positionOf(reasoned),
    ties: compared.length === 0 ? null : agreementOf(compared),
    formatRate: shareOf(reasoned, ({ format }) => format),
    unparsedRate: shareOf(reasoned, ({ answer }) => answer === null),
    truncatedRate: shareOf(reasoned, ({ truncated }) => truncated),
    meanLength: meanOf(reasoned.map(({ length }) => length)),
    totals: totalsOf(reasoned),
    divisions: Object.fromEntries(divisions),
    clusters: clusterAccuracy(reasoned),
    ...samples,
    extras: meanExtras(reasoned),
  };
}

/** Micro, macro and every sub-set of a division. */
function divisionStatistics(judgements: readonly Judgement[], division: string): Record<string, Statistic> {
  const inside = judgements.filter(({ subsets }) => subsets[division] !== undefined);
  const parts = [...groupBy(inside, ({ subsets }) => subsets[division]!)].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    [`${division} micro`]: meanStatistic(itemObservations(inside)),
    [`${division} macro`]: meanStatistic(...parts.map(([, found]) => itemObservations(found))),
    ...Object.fromEntries(
      parts.map(([name, found]) => [`${division} / ${name}`, meanStatistic(itemObservations(found))]),
    ),
  };
}

type SampleSummary = Pick<JudgementSummary, 'samples' | 'passAtK' | 'majority' | 'calibration'> & {
  statistics: Record<string, Statistic>;
};

function samplesOf(judgements: readonly Judgement[], bins: number, seed: number): SampleSummary {
  const prompts = [...groupBy(judgements, ({ item, order }) => `${order} ${item}`)];
  const samples = prompts.length === 0 ? 0 : Math.min(...prompts.map(([, found]) => found.length));
  if (samples < 2) return { samples, passAtK: null, majority: null, calibration: null, statistics: {} };
  const votes = prompts.map(([id, found]) => ({
    unit: unitOf(found[0]!),
    ...majorityVote(
      [...found].sort((a, b) => a.sample - b.sample),
      id,
      seed,
    ),
  }));
  const ks = [...new Set([...powersOfTwo(samples), samples])];
  const pass = (k: number): { unit: string; value: number }[] =>
    prompts.map(([, found]) => ({
      unit: unitOf(found[0]!),
      value: passAtK(found.length, found.filter(({ correct }) => correct).length, k),
    }));
  const confident = votes.flatMap(confidentVote);
  const calibration = calibrationOf(confident, { bins });
  return {
    samples,
    passAtK: Object.fromEntries(ks.map((k) => [String(k), meanOf(pass(k).map(({ value }) => value))!])),
    majority: meanOf(votes.map(({ correct }) => Number(correct))),
    calibration,
    statistics: {
      ...Object.fromEntries(ks.map((k) => [`pass@${k}`, meanStatistic(pass(k))])),
      majority: meanStatistic(votes.map(({ unit, correct }) => ({ unit, value: Number(correct) }))),
      ...(calibration === null ? {} : calibrationStatistics(confident, calibration)),
    },
  };
}

/** A prompt none of whose samples gave an answer has no confidence to calibrate. */
function confidentVote<V extends MajorityResult>(vote: V): (V & { confidence: number })[] {
  const confidence = voteConfidence(vote);
  return confidence === null ? [] : [{ ...vote, confidence }];
}

const powersOfTwo = (limit: number): number[] =>
  Array.from({ length: Math.floor(Math.log2(limit)) + 1 }, (_, exponent) => 2 ** exponent);

/** Means of the extras by name, over the judgements where one applies. */
export function meanExtras(judgements: readonly Pick<Judgement, 'extras'>[]): Record<string, number> {
  const values = groupBy(
    judgements.flatMap(({ extras }) => Object.entries(extras)),
    ([name]) => name,
  );
  const means = [...values].flatMap(([name, entries]) => {
    const mean = meanOf(entries.flatMap(([, value]) => (value === null ? [] : [value])));
    return mean === null ? [] : [[name, mean] as const];
  });
  return Object.fromEntries(means);
}
