/**
 * Routes marked samples: an item with a correct sample gives one of them (seeded choice) to the supervised set; an item with
 * a wrong sample goes to the reinforcement pool, all-wrong items too, which are counted.
 */
import { nameKey, seededWord } from '../seeded.js';

export interface RoutedItem {
  /** Index in the data set. */
  index: number;
  id: string;
  /** Verdict of each sample, by sample index. */
  correct: readonly boolean[];
  /** Whether a correct sample may be trained on; default: every one may. */
  sound?: readonly boolean[];
}

export interface Routing {
  /** The chosen correct sample of each item that has one. */
  kept: { index: number; sample: number }[];
  /** Items with fewer correct samples than samples. */
  hard: number[];
  allWrong: number;
  allRight: number;
  /** Share of correct samples, and of items with at least one. */
  accuracy: number;
  passAtK: number;
}

export function routeSamples(items: readonly RoutedItem[], seed: number): Routing {
  const routing: Routing = { kept: [], hard: [], allWrong: 0, allRight: 0, accuracy: 0, passAtK: 0 };
  let right = 0;
  let total = 0;
  for (const { index, id, correct, sound } of items) {
    const samples = correct.flatMap((isCorrect, sample) => (isCorrect ? [sample] : []));
    right += samples.length;
    total += correct.length;
    const kept = sound === undefined ? samples : samples.filter((sample) => sound[sample]);
    if (kept.length > 0) routing.kept.push({ index, sample: kept[seededWord(seed, nameKey(id)) % kept.length]! });
    if (samples.length === 0) routing.allWrong++;
    if (samples.length < correct.length) routing.hard.push(index);
    else routing.allRight++;
  }
  routing.accuracy = total === 0 ? 0 : right / total;
  routing.passAtK = items.length === 0 ? 0 : (items.length - routing.allWrong) / items.length;
  return routing;
}
