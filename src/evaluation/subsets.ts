/**
 * Accuracy by sub-set: of a division of the items ("group", "task"), each part with its count and interval, and two means:
 * micro over items, macro over parts. Clusters of items that count only when all are right are here too.
 */
import { groupBy, meanOf, wilsonInterval } from './interval.js';
import type { Judgement } from './judgement.js';
import { unitOf, type Observation } from './resample-units.js';

export interface SubsetAccuracy {
  /** Items. */
  count: number;
  /** Mean over items of their mark, with its 95 % Wilson interval over items. */
  accuracy: number;
  low: number;
  high: number;
}

export interface DivisionAccuracy {
  /** Mean over items, and mean over sub-sets. */
  micro: number;
  macro: number;
  subsets: Record<string, SubsetAccuracy>;
}

/** The mark of each item: the mean of `correct` over its judgements, by item id. */
export function marksOf(judgements: readonly Judgement[]): Map<string, number> {
  const items = groupBy(judgements, ({ item }) => item);
  return new Map([...items].map(([id, found]) => [id, meanOf(found.map(({ correct }) => Number(correct)))!]));
}

/** Mean mark of the items with its interval; null without items. Two orders of an item are not two observations. */
export function itemAccuracy(judgements: readonly Judgement[]): SubsetAccuracy | null {
  // Added up in ascending order, so that the order of the items cannot show even in the last bit.
  const marks = [...marksOf(judgements).values()].sort((a, b) => a - b);
  const accuracy = meanOf(marks);
  if (accuracy === null) return null;
  return { count: marks.length, accuracy, ...wilsonInterval(accuracy * marks.length, marks.length) };
}

/** Accuracy by the sub-sets of one division; null when no judgement belongs to one. Names in alphabetical order. */
export function divisionAccuracy(judgements: readonly Judgement[], division: string): DivisionAccuracy | null {
  const inside = judgements.filter(({ subsets }) => subsets[division] !== undefined);
  const whole = itemAccuracy(inside);
  if (whole === null) return null;
  const parts = [...groupBy(inside, ({ subsets }) => subsets[division]!)].sort(([a], [b]) => (a < b ? -1 : 1));
  const subsets = Object.fromEntries(parts.map(([name, found]) => [name, itemAccuracy(found)!]));
  return { micro: whole.accuracy, macro: meanOf(Object.values(subsets).map(({ accuracy }) => accuracy))!, subsets };
}

/** The mark of each item, with the unit it is resampled by. */
export function itemObservations(judgements: readonly Judgement[]): Observation[] {
  const items = groupBy(judgements, ({ item }) => item);
  return [...items.values()].map((found) => ({
    unit: unitOf(found[0]!),
    value: meanOf(found.map(({ correct }) => Number(correct)))!,
  }));
}

/** Whether all of each cluster is right. */
export function clusterObservations(judgements: readonly Judgement[]): Observation[] {
  const clusters = groupBy(
    judgements.filter(({ cluster }) => cluster !== null),
    ({ cluster }) => cluster,
  );
  return [...clusters.values()].map((found) => ({
    unit: unitOf(found[0]!),
    value: Number(found.every(({ correct }) => correct)),
  }));
}

/** Every division that a judgement belongs to, in the order of first appearance. */
export function divisionsOf(judgements: readonly Judgement[]): string[] {
  return [...new Set(judgements.flatMap(({ subsets }) => Object.keys(subsets)))];
}

/** Share of clusters all of whose judgements are right; null when there is no cluster. */
export function clusterAccuracy(judgements: readonly Judgement[]): { count: number; accuracy: number } | null {
  const clusters = clusterObservations(judgements);
  const accuracy = meanOf(clusters.map(({ value }) => value));
  return accuracy === null ? null : { count: clusters.length, accuracy };
}
