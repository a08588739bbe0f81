/**
 * The order of an epoch for data that are cheap to read in blocks (row groups): blocks in seeded order, and rows shuffled
 * within windows of as many blocks as are kept in memory at once. One window is a full shuffle.
 */
import { permutation } from './shuffle-permutation.js';

/** Runs of rows, in the order of the data set, and about how many bytes each takes while it is kept. */
export interface Locality {
  rows: readonly number[];
  bytes: readonly number[];
}

/** What the blocks of a window may take together. */
export const windowBytes = 128 << 20;

/** The row at each position of an epoch: a permutation of all rows. Memory: a few numbers a block. */
export function localOrder(
  { rows, bytes }: Locality,
  seed: number,
  epoch: number,
  limitBytes = windowBytes,
): (position: number) => number {
  const starts = cumulative(rows);
  const total = starts.at(-1)!;
  const order = blockOrder(rows.length, seed, epoch);
  const windows = windowsOf(order, bytes, limitBytes);
  const windowStarts = cumulative(windows.map((blocks) => blocks.reduce((sum, block) => sum + rows[block]!, 0)));
  let current = -1;
  let within: (position: number) => number = (position) => position;
  let blockStarts: number[] = [];
  return (position) => {
    const window = indexIn(windowStarts, position);
    const blocks = windows[window]!;
    if (window !== current) {
      blockStarts = cumulative(blocks.map((block) => rows[block]!));
      // The epoch and the window together are the key of the window's own order.
      within = permutation(blockStarts.at(-1)!, seed, (epoch * 0x10001 + window + 1) % 2 ** 31);
      current = window;
    }
    const at = within(position - windowStarts[window]!);
    const block = indexIn(blockStarts, at);
    const row = starts[blocks[block]!]! + at - blockStarts[block]!;
    if (row >= total) throw new RangeError(`row ${row} of ${total}`);
    return row;
  };
}

/** Rows of a source: those at `indices`, in that order. */
export interface SourcePart {
  locality: Locality | undefined;
  indices: readonly number[];
}

/** Rows that are cheap to read anywhere are cut into blocks of this many, where others beside them have blocks. */
export const freeBlockRows = 256;

/**
 * The locality of parts of sources, one behind the other: neighbours from one block stay a run, which takes what the whole
 * block takes. Undefined where no source has blocks.
 */
export function localityOfParts(parts: readonly SourcePart[]): Locality | undefined {
  if (parts.every(({ locality }) => locality === undefined)) return undefined;
  const runs: { rows: number[]; bytes: number[] } = { rows: [], bytes: [] };
  for (const { locality, indices } of parts) {
    const starts = locality && cumulative(locality.rows);
    let current = -1;
    for (const [position, index] of indices.entries()) {
      const block = starts === undefined ? Math.floor(position / freeBlockRows) : indexIn(starts, index);
      if (block === current) {
        runs.rows[runs.rows.length - 1]!++;
        continue;
      }
      current = block;
      runs.rows.push(1);
      runs.bytes.push(locality?.bytes[block] ?? 0);
    }
  }
  return runs;
}

function blockOrder(count: number, seed: number, epoch: number): number[] {
  const at = permutation(count, seed, epoch);
  return Array.from({ length: count }, (_, position) => at(position));
}

function windowsOf(order: readonly number[], bytes: readonly number[], limitBytes: number): number[][] {
  const windows: number[][] = [];
  let sum = Infinity;
  for (const block of order) {
    sum += bytes[block]!;
    if (sum > limitBytes) {
      windows.push([]);
      sum = bytes[block]!;
    }
    windows.at(-1)!.push(block);
  }
  return windows;
}

function cumulative(counts: readonly number[]): number[] {
  const sums = [0];
  for (const count of counts) sums.push(sums.at(-1)! + count);
  return sums;
}

/** The run that holds a position: the last start that is not above it, among runs that are not empty. */
export function indexIn(starts: readonly number[], position: number): number {
  let low = 0;
  let high = starts.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= position) low = middle;
    else high = middle - 1;
  }
  return low;
}
