// What bit equality costs where it keeps a kernel from being chosen by the number of rows: every bf16 product of a process
// takes one path (AMX where there is one), though few rows could be faster on vector instructions. Both are timed in turns;
// the value is how many percent the exact choice takes longer than the faster of the two. fp32 has one path: nothing to choose.
import { goalOf } from '../goals.mjs';
import { interleave } from '../session.mjs';
import { compare } from '../statistics.mjs';
import { kernelSession } from './index.mjs';

// Rows decoded at once, by the products of a small and of a 0.5 B model.
const products = [
  [1536, 256],
  [4864, 896],
];
const rowCounts = [1, 4, 8, 16, 64];

async function measure({ results, program, rounds }, [n, k], m, count) {
  const sessions = ['auto', 'vector'].map((path) =>
    kernelSession(program, 'linear', 'bf16', [m, n, k, 0], { threads: count, path }),
  );
  const [exact, vector] = await interleave(sessions, rounds, { seconds: 4 });
  if (sessions[0].facts.path !== 'amx') return;
  const pair = compare(exact, vector, count);
  const value = (100 * Math.max(0, 1 - Math.min(1, pair.ratio))) / Math.min(1, pair.ratio);
  const row = {
    workload: 'exactness cost',
    shape: `${m} x ${k} by ${k} x ${n}, AMX against vector`,
    dtype: 'bf16',
    threads: count,
    clock: pair.clock,
    other: pair.other,
    runs: exact.length,
  };
  results.add({
    ...row,
    value,
    unit: '% slower',
    seconds: pair.seconds,
    otherSeconds: pair.peerSeconds,
    ...goalOf(row),
  });
}

export function exactnessCases(options) {
  const { dtypes, threads, selected, quick } = options;
  if (!selected('exactness') || !dtypes.includes('bf16')) return [];
  const [count] = threads;
  return (quick ? products.slice(0, 1) : products).flatMap((product) =>
    (quick ? [1] : rowCounts).map((m) => ({
      name: 'exactness',
      seconds: 4,
      run: () => measure(options, product, m, count),
    })),
  );
}
