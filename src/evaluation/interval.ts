/** Wilson's score interval for a rate (E. B. Wilson, 1927), and the small arithmetic that every metric shares. */

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

/** `NAMELow` and `NAMEHigh` of 95 % intervals; null where there is no such number. */
export type Bounds<K extends string> = Record<`${K}${'Low' | 'High'}`, number | null>;

/** An interval under the names of its number. */
export function bounds<K extends string>(name: K, interval: Interval | null | undefined): Bounds<K> {
  return { [`${name}Low`]: interval?.low ?? null, [`${name}High`]: interval?.high ?? null } as Bounds<K>;
}

/** The mean, or null without values: a rate of nothing is no number. */
export function meanOf(values: readonly number[]): number | null {
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Share of values that pass, or null without values. */
export function shareOf<T>(values: readonly T[], passes: (value: T) => boolean): number | null {
  return values.length === 0 ? null : values.filter(passes).length / values.length;
}

/** Values by their key, keys in the order of their first appearance. */
export function groupBy<T, K>(values: readonly T[], keyOf: (value: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>();
  for (const value of values) {
    const group = groups.get(keyOf(value));
    if (group === undefined) groups.set(keyOf(value), [value]);
    else group.push(value);
  }
  return groups;
}
