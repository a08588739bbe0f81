/**
 * When a skill arrives as a jump, the step to stop at cannot be known beforehand. This decides, after each evaluation, whether
 * to go on, to take a checkpoint, or to go back and evaluate more often: wanted is the newest checkpoint whose
 * accuracy has left chance (by its confidence bound) but is not saturated.
 */
import { z } from 'zod';
import { wilsonInterval } from '../evaluation/interval.js';

export const searchSchema = z
  .strictObject({
    chance: z.number().min(0).lt(1).default(0.5).describe('Accuracy of guessing.'),
    enough: z.number().gt(0).max(1).default(0.7).describe('Stop at the first evaluation at or above this accuracy.'),
    saturated: z
      .number()
      .gt(0)
      .max(1)
      .default(0.85)
      .describe('Above this, nothing is left for the next stages to win.'),
    minFormatRate: z
      .number()
      .min(0)
      .max(1)
      .default(0.98)
      .describe('A point whose completions keep the format less often is passed over.'),
    finestEvery: z.number().int().positive().default(5).describe('Steps between evaluations are never fewer.'),
  })
  .describe('Search of the point where accuracy has left chance but is not saturated.');

export type SearchOptions = z.infer<typeof searchSchema>;

export interface SearchPoint {
  step: number;
  accuracy: number;
  /** Items behind the accuracy. */
  count: number;
  formatRate: number;
}

export type SearchDecision =
  | { action: 'continue' }
  /** Take the checkpoint of `step`. */
  | { action: 'accept'; step: number; reason: 'found' | 'saturated' }
  /** Load the checkpoint of `step` and evaluate every `every` steps from there. */
  | { action: 'rewind'; step: number; every: number };

/** True when the accuracy's confidence bound lies above chance. */
export function hasLeftChance(point: SearchPoint, chance: number): boolean {
  return wilsonInterval(Math.round(point.accuracy * point.count), point.count).low > chance;
}

/** `points` in order of their steps, the newest last; `every` is the present distance of evaluations. */
export function decideSearch(points: readonly SearchPoint[], every: number, options: SearchOptions): SearchDecision {
  const newest = points.at(-1);
  if (newest === undefined) return { action: 'continue' };
  const found = (point: SearchPoint): boolean =>
    point.accuracy <= options.saturated &&
    point.formatRate >= options.minFormatRate &&
    hasLeftChance(point, options.chance);
  if (newest.accuracy <= options.saturated) {
    return newest.accuracy >= options.enough && found(newest)
      ? { action: 'accept', step: newest.step, reason: 'found' }
      : { action: 'continue' };
  }
  const before = points.slice(0, -1).findLast(found);
  if (before !== undefined) return { action: 'accept', step: before.step, reason: 'found' };
  // It jumped over the whole band between two evaluations: look closer from the last one before the jump.
  const start = points.at(-2)?.step ?? 0;
  const finer = Math.max(options.finestEvery, Math.floor(every / 4));
  if (finer < every) return { action: 'rewind', step: start, every: finer };
  return { action: 'accept', step: newest.step, reason: 'saturated' };
}

/**
 * What to take when the steps or the time are spent: the best point that keeps the format and is not saturated, else the best
 * that keeps the format, else the best of all.
 */
export function settleSearch(points: readonly SearchPoint[], options: SearchOptions): SearchPoint | undefined {
  const best = (list: readonly SearchPoint[]): SearchPoint | undefined =>
    list.reduce<SearchPoint | undefined>((a, b) => (a === undefined || b.accuracy >= a.accuracy ? b : a), undefined);
  const formatted = points.filter((point) => point.formatRate >= options.minFormatRate);
  return best(formatted.filter((point) => point.accuracy <= options.saturated)) ?? best(formatted) ?? best(points);
}
