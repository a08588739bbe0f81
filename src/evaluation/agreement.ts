/**
 * Agreement of predicted preferences with gold ones when either may be a tie. The counts and "accuracy with ties" follow
 * Deutsch, Foster and Freitag, "Ties Matter" (EMNLP 2023, arXiv 2305.14324); "without ties" follows the reward-model
 * papers (VideoAlign, EditReward), which leave gold ties out and let a predicted tie count as wrong.
 */
import type { Choice, Judgement } from './judgement.js';
import { meanStatistic, unitOf, type Observation, type Statistic } from './resample-units.js';

/** How often each case happened. */
export interface AgreementCounts {
  /** No tie on either side: the same candidate, the other candidate. */
  concordant: number;
  discordant: number;
  /** Gold is a tie, the prediction is not; the other way round; both are. */
  goldTie: number;
  predictedTie: number;
  bothTie: number;
  /** Nothing was predicted: wrong in every accuracy. `unparsedTie` are those whose gold is a tie. */
  unparsed: number;
  unparsedTie: number;
}

export interface Agreement extends AgreementCounts {
  count: number;
  /** (concordant + both tie) / all. Null without pairs. */
  accuracyWithTies: number | null;
  /** concordant / (all whose gold is no tie). Null without such pairs. */
  accuracyWithoutTies: number | null;
  /** Share of gold ties, and of predicted ties among all pairs. */
  goldTieRate: number | null;
  predictedTieRate: number | null;
}

export interface PreferencePair {
  gold: Choice;
  predicted: Choice | null;
}

export function countAgreement(pairs: readonly PreferencePair[]): AgreementCounts {
  const counts: AgreementCounts = {
    concordant: 0,
    discordant: 0,
    goldTie: 0,
    predictedTie: 0,
    bothTie: 0,
    unparsed: 0,
    unparsedTie: 0,
  };
  for (const { gold, predicted } of pairs) counts[caseOf(gold, predicted)]++;
  return counts;
}

function caseOf(gold: Choice, predicted: Choice | null): keyof AgreementCounts {
  if (predicted === null) return gold === 'tie' ? 'unparsedTie' : 'unparsed';
  if (gold === 'tie') return predicted === 'tie' ? 'bothTie' : 'goldTie';
  if (predicted === 'tie') return 'predictedTie';
  return gold === predicted ? 'concordant' : 'discordant';
}

/** The counts with the accuracies that follow from them. */
export function agreementOf(pairs: readonly PreferencePair[]): Agreement {
  const counts = countAgreement(pairs);
  const { concordant, discordant, goldTie, predictedTie, bothTie, unparsed, unparsedTie } = counts;
  const strict = concordant + discordant + predictedTie + unparsed;
  const ties = goldTie + bothTie + unparsedTie;
  const count = strict + ties;
  const share = (part: number, whole: number): number | null => (whole === 0 ? null : part / whole);
  return {
    ...counts,
    count,
    accuracyWithTies: share(concordant + bothTie, count),
    accuracyWithoutTies: share(concordant, strict),
    goldTieRate: share(ties, count),
    predictedTieRate: share(predictedTie + bothTie, count),
  };
}

/** Both accuracies as statistics to resample. */
export function agreementStatistics(
  pairs: readonly (PreferencePair & { unit: string })[],
): Record<'accuracyWithTies' | 'accuracyWithoutTies', Statistic> {
  const right = (of: readonly (PreferencePair & { unit: string })[]): Statistic =>
    meanStatistic(of.map(({ gold, predicted, unit }) => ({ unit, value: Number(gold === predicted) })));
  return { accuracyWithTies: right(pairs), accuracyWithoutTies: right(pairs.filter(({ gold }) => gold !== 'tie')) };
}

/** Whether each judgement of two candidates names the gold one; gold ties may be left out. */
export function agreementObservations(judgements: readonly Judgement[], ties: 'with' | 'without'): Observation[] {
  return judgements
    .filter(({ goldChoice }) => goldChoice !== null && (ties === 'with' || goldChoice !== 'tie'))
    .map((judgement) => ({ unit: unitOf(judgement), value: Number(judgement.choice === judgement.goldChoice) }));
}
