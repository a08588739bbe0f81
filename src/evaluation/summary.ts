/** Every metric of a list of judgements in one value: what the evaluation recipe, the command and a report show. */
import { agreementOf, type Agreement } from './agreement.js';
import { bootstrapInterval, type BootstrapOptions } from './bootstrap.js';
import { calibrationOf, type Calibration } from './calibration.js';
import { voteConfidence } from './confidence.js';
import { groupBy, meanOf, shareOf, type Interval } from './interval.js';
import type { Judgement } from './judgement.js';
import { positionOf, type PositionResult } from './position.js';
import { majorityVote, passAtK, type MajorityResult } from './samples.js';
import {
  clusterAccuracy,
  divisionAccuracy,
  divisionsOf,
  itemAccuracy,
  marksOf,
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
  /** Mean mark of the items with chain of thought, its 95 % Wilson bounds and its percentile bootstrap over items. */
  accuracy: SubsetAccuracy | null;
  bootstrap: Interval | null;
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
  const compared = reasoned.flatMap(({ goldChoice: gold, choice: predicted }) =>
    gold === null ? [] : [{ gold, predicted }],
  );
  const divisions = divisionsOf(reasoned).map((name) => [name, divisionAccuracy(reasoned, name)!] as const);
  return {
    accuracy: itemAccuracy(reasoned),
    bootstrap: await bootstrapInterval(marksByItem(reasoned), bootstrap),
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
    ...samplesOf(reasoned, bins, seed),
    extras: meanExtras(reasoned),
  };
}

/** Marks in the order of the item ids, so that a resample does not depend on the order of the judgements. */
function marksByItem(judgements: readonly Judgement[]): number[] {
  return [...marksOf(judgements)].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, mark]) => mark);
}

type SampleSummary = Pick<JudgementSummary, 'samples' | 'passAtK' | 'majority' | 'calibration'>;

function samplesOf(judgements: readonly Judgement[], bins: number, seed: number): SampleSummary {
  const prompts = [...groupBy(judgements, ({ item, order }) => `${order} ${item}`)];
  const samples = prompts.length === 0 ? 0 : Math.min(...prompts.map(([, found]) => found.length));
  if (samples < 2) return { samples, passAtK: null, majority: null, calibration: null };
  const votes = prompts.map(([id, found]) =>
    majorityVote(
      [...found].sort((a, b) => a.sample - b.sample),
      id,
      seed,
    ),
  );
  const ks = [...new Set([...powersOfTwo(samples), samples])];
  const pass = (k: number): number =>
    meanOf(prompts.map(([, found]) => passAtK(found.length, found.filter(({ correct }) => correct).length, k)))!;
  return {
    samples,
    passAtK: Object.fromEntries(ks.map((k) => [String(k), pass(k)])),
    majority: meanOf(votes.map(({ correct }) => Number(correct))),
    calibration: calibrationOf(votes.flatMap(confidentVote), { bins }),
  };
}

/** A prompt none of whose samples gave an answer has no confidence to calibrate. */
function confidentVote(vote: MajorityResult): { confidence: number; correct: boolean }[] {
  const confidence = voteConfidence(vote);
  return confidence === null ? [] : [{ confidence, correct: vote.correct }];
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
