// Medians, shares, and which clock a figure may be read from.
import { quietShare } from './machine.mjs';

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/**
 * Wall clock when others left the machine alone in the median sample; else CPU seconds, which being descheduled does not
 * lengthen, and only for one thread: several threads that wait for each other on a busy machine have no honest figure.
 */
export function clockOf(samples, threads) {
  const other = median(samples.map((sample) => sample.other));
  if (other <= quietShare) return { clock: 'wall', other };
  return { clock: threads === 1 ? 'cpu' : 'none', other };
}

/** Median seconds of ours and the peer's, and the ratio of every interleaved pair (above 1: we are ahead). */
export function compare(ours, theirs, threads) {
  const { clock, other } = clockOf([...ours, ...theirs], threads);
  if (clock === 'none') return { clock, other };
  const pairs = ours.map((sample, i) => theirs[i][clock] / sample[clock]);
  return {
    clock,
    other,
    seconds: median(ours.map((sample) => sample[clock])),
    peerSeconds: median(theirs.map((sample) => sample[clock])),
    cpuSeconds: median(ours.map((sample) => sample.cpu)),
    peerCpuSeconds: median(theirs.map((sample) => sample.cpu)),
    ratio: median(pairs),
    ratioLow: Math.min(...pairs),
    ratioHigh: Math.max(...pairs),
  };
}

/** A rate as a share of a ceiling, both in operations a second, and the ceiling it was taken of. */
export const shareOf = (rate, limit) => (limit ? { shareOfLimit: rate / limit, limit } : { shareOfLimit: null });
