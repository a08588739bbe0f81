/**
 * Statistics of judgements: Wilson's score interval for a rate (E. B. Wilson, 1927) and the paired bootstrap for the
 * difference of two systems on the same items. Randomness is counter-based: the same seed gives the same interval.
 */
import { expected } from '../errors.js';
import { Pace } from './pace.js';
import { seededUnit } from './seeded.js';

/** Two-sided 95 %. */
const z95 = 1.959963984540054;

export interface Interval {
  low: number;
  high: number;
}

/** 95 % Wilson interval of `successes` out of `count`; [0, 1] when there is no observation. */
export function wilsonInterval(successes: number, count: number, z = z95): Interval {
  if (count === 0) return { low: 0, high: 1 };
  const rate = successes / count;
  const z2 = z * z;
  const centre = rate + z2 / (2 * count);
  const half = z * Math.sqrt((rate * (1 - rate) + z2 / (4 * count)) / count);
  const scale = 1 + z2 / count;
  // Rounding must not push a bound past the rate itself when every or no item succeeded.
  return {
    low: Math.min(rate, Math.max(0, (centre - half) / scale)),
    high: Math.max(rate, Math.min(1, (centre + half) / scale)),
  };
}

export interface BootstrapResult {
  /** mean(b) - mean(a) on the items as they are. */
  difference: number;
  /** 95 % percentile interval of the difference. */
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
  options: { resamples?: number; seed?: number } = {},
): Promise<BootstrapResult> {
  const { resamples = 2000, seed = 0 } = options;
  if (a.length !== b.length || a.length === 0) {
    throw expected('invalid_argument', 'b', `as many marks as \`a\` (${a.length}, at least 1)`, b.length);
  }
  const differences = Float64Array.from(a, (mark, i) => b[i]! - mark);
  const means = new Float64Array(resamples);
  const pace = new Pace();
  for (let r = 0; r < resamples; r++) {
    let sum = 0;
    for (let i = 0; i < differences.length; i++) {
      sum += differences[Math.floor(seededUnit(seed, r, i) * differences.length)]!;
    }
    means[r] = sum / differences.length;
    await pace.breathe();
  }
  means.sort();
  const at = (share: number): number => means[Math.min(resamples - 1, Math.floor(share * resamples))]!;
  return {
    difference: differences.reduce((sum, value) => sum + value, 0) / differences.length,
    low: at(0.025),
    high: at(0.975),
    shareNotAbove: means.reduce((count, value) => count + Number(value <= 0), 0) / resamples,
    resamples,
  };
}
