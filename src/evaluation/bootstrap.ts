/**
 * Percentile bootstrap over items (B. Efron, 1979): of a mean, and paired for the difference of two systems on the same
 * items. Randomness is counter-based: the same seed gives the same interval on every machine.
 */
import { expected } from '../errors.js';
import { Pace } from '../pace.js';
import { seededUnit } from '../seeded.js';
import type { Interval } from './interval.js';

export interface BootstrapOptions {
  /** Default: 2000. */
  resamples?: number;
  /** Key of the resampling. Default: 0. */
  seed?: number;
  /** Coverage of the interval. Default: 0.95. */
  level?: number;
}

interface Resampled {
  /** Statistic of each resample, ascending. */
  values: Float64Array;
  interval: Interval;
}

/** Options with their defaults. Errors: 'invalid_argument'. */
export function checkedBootstrap({
  resamples = 2000,
  seed = 0,
  level = 0.95,
}: BootstrapOptions): Required<BootstrapOptions> {
  if (!Number.isInteger(resamples) || resamples < 1)
    throw expected('invalid_argument', 'resamples', 'an integer >= 1', resamples);
  if (!(level > 0 && level < 1)) throw expected('invalid_argument', 'level', 'a number between 0 and 1', level);
  return { resamples, seed, level };
}

async function resample(values: Float64Array, options: BootstrapOptions): Promise<Resampled> {
  const { resamples, seed, level } = checkedBootstrap(options);
  const means = new Float64Array(resamples);
  const pace = new Pace();
  for (let r = 0; r < resamples; r++) {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[Math.floor(seededUnit(seed, r, i) * values.length)]!;
    means[r] = sum / values.length;
    await pace.breathe();
  }
  means.sort();
  return { values: means, interval: percentileInterval(means, level) };
}

/** The middle `level` of values in ascending order, of which there is at least one. */
export function percentileInterval(ascending: Float64Array, level: number): Interval {
  const { length } = ascending;
  const at = (share: number): number => ascending[Math.min(length - 1, Math.floor(share * length))]!;
  const tail = (1 - level) / 2;
  return { low: at(tail), high: at(1 - tail) };
}

/**
 * Percentile interval of the mean of `values`, one value an item; null without items. Errors: 'invalid_argument' for
 * options out of range.
 */
export async function bootstrapInterval(
  values: readonly number[],
  options: BootstrapOptions = {},
): Promise<Interval | null> {
  if (values.length === 0) return null;
  return (await resample(Float64Array.from(values), options)).interval;
}

export interface BootstrapResult {
  /** mean(b) - mean(a) on the items as they are. */
  difference: number;
  /** Percentile interval of the difference, 95 % by default. */
  low: number;
  high: number;
  /** Share of resamples in which b is not above a. */
  shareNotAbove: number;
  resamples: number;
}

/**
 * Paired bootstrap of mean(b) - mean(a): items are resampled with replacement, both systems on the same draw.
 * `a[i]` and `b[i]` are the marks (0 or 1, or any score) of item i. Errors: 'invalid_argument'.
 */
export async function pairedBootstrap(
  a: readonly number[],
  b: readonly number[],
  options: BootstrapOptions = {},
): Promise<BootstrapResult> {
  if (a.length !== b.length || a.length === 0) {
    throw expected('invalid_argument', 'b', `as many marks as \`a\` (${a.length}, at least 1)`, b.length);
  }
  const differences = Float64Array.from(a, (mark, i) => b[i]! - mark);
  const { values, interval } = await resample(differences, options);
  return {
    difference: differences.reduce((sum, value) => sum + value, 0) / differences.length,
    ...interval,
    shareNotAbove: values.reduce((count, value) => count + Number(value <= 0), 0) / values.length,
    resamples: values.length,
  };
}
