/**
 * Percentile bootstrap (B. Efron, 1979) of many statistics at once. What is drawn with replacement are units, the clusters
 * of the items where there are any, else the items, so that dependent judgements stay together (cluster bootstrap: Field and
 * Welsh, 2007). Every statistic is a function of sums over units, hence one draw serves all of them.
 */
import { Pace } from '../pace.js';
import { seededUnits } from '../seeded.js';
import { checkedBootstrap, percentileInterval, type BootstrapOptions } from './bootstrap.js';
import { groupBy, type Interval } from './interval.js';
import type { Judgement } from './judgement.js';

/** One value that a mean is over, and the unit it belongs to. */
export interface Observation {
  unit: string;
  value: number;
}

export interface Statistic {
  /** What each unit adds to each sum; a unit that is missing adds nothing. */
  sums: readonly ReadonlyMap<string, number>[];
  /** The statistic of the sums over a draw; not finite where the draw has none, which leaves that draw out. */
  of: (sums: ArrayLike<number>) => number;
}

/**
 * Additions a default run may take, a few seconds of them: above it there are fewer than 2,000 resamples, but never below
 * `fewestResamples`. A draw costs about as much as four.
 */
const additionLimit = 2e8;
const additionsOfDraw = 4;
const fewestResamples = 200;
/** Units drawn between two looks at the clock. */
const unitsOfSlice = 4096;

/** The unit of a judgement. */
export const unitOf = ({ item, cluster }: Pick<Judgement, 'item' | 'cluster'>): string =>
  cluster === null ? `item ${item}` : `cluster ${cluster}`;

/** The value that `of` gives each judgement. */
export const observed = (judgements: readonly Judgement[], of: (judgement: Judgement) => boolean): Observation[] =>
  judgements.map((judgement) => ({ unit: unitOf(judgement), value: Number(of(judgement)) }));

/** The mean of the observations; of several parts the mean of their means. */
export function meanStatistic(...parts: (readonly Observation[])[]): Statistic {
  const sums = parts.flatMap((observations) => {
    const units = [...groupBy(observations, ({ unit }) => unit)];
    return [
      new Map(units.map(([unit, found]) => [unit, found.reduce((sum, { value }) => sum + value, 0)])),
      new Map(units.map(([unit, found]) => [unit, found.length])),
    ];
  });
  return {
    sums,
    of: (totals) => {
      // A part that a draw misses does not make the others worth less.
      let [sum, present] = [0, 0];
      for (let i = 0; i < totals.length; i += 2) {
        if (totals[i + 1] === 0) continue;
        sum += totals[i]! / totals[i + 1]!;
        present++;
      }
      return sum / present;
    },
  };
}

/** The first statistic minus the second. */
export function differenceStatistic(a: Statistic, b: Statistic): Statistic {
  const split = a.sums.length;
  return {
    sums: [...a.sums, ...b.sums],
    of: (totals) =>
      a.of(Array.prototype.slice.call(totals, 0, split)) - b.of(Array.prototype.slice.call(totals, split)),
  };
}

export interface Resampling {
  /** By name; null where no draw had the statistic. */
  intervals: Record<string, Interval | null>;
  resamples: number;
}

/**
 * Percentile intervals by name, 95 % by default. Units are drawn in the order of their names, whatever the order of the
 * judgements. Errors: 'invalid_argument' for options out of range.
 */
export async function resampleUnits(
  statistics: Readonly<Record<string, Statistic>>,
  options: BootstrapOptions = {},
): Promise<Resampling> {
  const named = Object.entries(statistics);
  const table = tableOf(named.flatMap(([, { sums }]) => sums));
  const numUnits = table.starts.length - 1;
  const most = Math.max(
    fewestResamples,
    Math.floor(additionLimit / Math.max(1, table.columns.length + additionsOfDraw * numUnits)),
  );
  const { resamples, seed, level } = checkedBootstrap({
    ...options,
    resamples: options.resamples ?? Math.min(2000, most),
  });
  const values = named.map(() => new Float64Array(resamples));
  const totals = new Float64Array(table.numColumns);
  const pace = new Pace();
  for (let r = 0; r < resamples; r++) {
    totals.fill(0);
    const unit = seededUnits(seed, r);
    for (let start = 0; start < numUnits; start += unitsOfSlice) {
      addDraws(table, totals, unit, start, Math.min(numUnits, start + unitsOfSlice));
      await pace.breathe();
    }
    let column = 0;
    for (const [i, [, { sums, of }]] of named.entries()) {
      values[i]![r] = of(totals.subarray(column, column + sums.length));
      column += sums.length;
    }
  }
  const intervals = named.map(([name], i) => {
    const found = values[i]!.filter(Number.isFinite).sort();
    return [name, found.length === 0 ? null : percentileInterval(found, level)] as const;
  });
  return { intervals: Object.fromEntries(intervals), resamples };
}

/** What each unit adds, in compressed rows: unit u has the entries from starts[u] to starts[u + 1]. */
interface UnitTable {
  numColumns: number;
  starts: Int32Array;
  columns: Int32Array;
  amounts: Float64Array;
}

function tableOf(sums: readonly ReadonlyMap<string, number>[]): UnitTable {
  const rows = new Map<string, [column: number, amount: number][]>();
  for (const [column, amounts] of sums.entries()) {
    for (const [unit, amount] of amounts) {
      const row = rows.get(unit);
      if (row === undefined) rows.set(unit, [[column, amount]]);
      else row.push([column, amount]);
    }
  }
  const ordered = [...rows].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, row]) => row);
  const starts = new Int32Array(ordered.length + 1);
  for (const [i, row] of ordered.entries()) starts[i + 1] = starts[i]! + row.length;
  const entries = ordered.flat();
  return {
    numColumns: sums.length,
    starts,
    columns: Int32Array.from(entries, ([column]) => column),
    amounts: Float64Array.from(entries, ([, amount]) => amount),
  };
}

function addDraws(
  { starts, columns, amounts }: UnitTable,
  totals: Float64Array,
  unitOfDraw: (i: number) => number,
  from: number,
  to: number,
): void {
  const numUnits = starts.length - 1;
  for (let i = from; i < to; i++) {
    const unit = Math.floor(unitOfDraw(i) * numUnits);
    for (let k = starts[unit]!; k < starts[unit + 1]!; k++) totals[columns[k]!]! += amounts[k]!;
  }
}
