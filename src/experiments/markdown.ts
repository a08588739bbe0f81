/** Tables and statistics of reports over seeds. */

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Standard deviation with n - 1; 0 for one value. */
export const deviation = (values: readonly number[]): number =>
  values.length < 2
    ? 0
    : Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1));

export const fixed = (value: number | null | undefined, digits = 3): string =>
  value === null || value === undefined ? '-' : value.toFixed(digits);

export const signed = (value: number, digits = 3): string => `${value >= 0 ? '+' : ''}${value.toFixed(digits)}`;

/** "0.812 ± 0.020" over seeds; "-" when no seed has it. */
export function spread(values: readonly (number | null | undefined)[], digits = 3): string {
  const present = values.filter((value): value is number => typeof value === 'number');
  if (present.length === 0) return '-';
  return present.length === 1
    ? fixed(present[0], digits)
    : `${fixed(mean(present), digits)} ± ${fixed(deviation(present), digits)}`;
}

export function table(header: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  return [header, header.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
}

/** Two-sided 95 % quantiles of Student's t, degrees of freedom 1 to 9. */
const student = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

/** 95 % interval of the mean of differences over seeds (Student); null for one seed. */
export function studentInterval(differences: readonly number[]): { low: number; high: number } | null {
  const quantile = student[differences.length - 2];
  if (quantile === undefined) return null;
  const half = (quantile * deviation(differences)) / Math.sqrt(differences.length);
  return { low: mean(differences) - half, high: mean(differences) + half };
}

/** One system against another: over seeds, and by the paired bootstrap of each seed. */
export function differenceRow(
  name: string,
  perSeed: readonly { difference: number; low: number; high: number }[],
): string[] {
  const differences = perSeed.map(({ difference }) => difference);
  const interval = studentInterval(differences);
  return [
    name,
    signed(mean(differences)),
    interval === null ? '-' : `${signed(interval.low)} to ${signed(interval.high)}`,
    `${differences.filter((value) => value > 0).length} of ${differences.length}`,
    perSeed.map(({ low, high }) => `${signed(low)} to ${signed(high)}`).join('; '),
  ];
}

export const differenceHeader = [
  'difference',
  'mean',
  '95 % over seeds (Student)',
  'seeds above 0',
  'paired bootstrap of each seed (95 %)',
] as const;
