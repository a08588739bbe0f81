// What bit equality costs where it keeps a path from being chosen by the number of rows: every bf16 product of an engine takes
// one path (AMX where there is one), though few rows could be faster on vector instructions. Both are timed in turns. Of a whole
// step the fastest mode is taken to be the faster path in each of its halves; of a product, the faster of the two. fp32 has one
// path: nothing to choose.
import { engineSession } from '../engine/engine.bench.mjs';
import { exportModel } from '../engine/export.mjs';
import { rowSizes, withFolder } from '../engine/shapes.mjs';
import { goalOf } from '../goals.mjs';
import { interleave } from '../session.mjs';
import { clockOf, compare, median } from '../statistics.mjs';
import { kernelSession } from './index.mjs';

// Rows decoded at once, by the products of a small and of a 0.5 B model.
const products = [
  [1536, 256],
  [4864, 896],
];
const rowCounts = [1, 4, 8, 16, 64];

async function measureProduct({ results, program, rounds }, [n, k], m, count) {
  const sessions = ['auto', 'vector'].map((path) =>
    kernelSession(program, 'linear', 'bf16', [m, n, k, 0], { threads: count, path }),
  );
  const [exact, vector] = await interleave(sessions, rounds, { seconds: 4 });
  const pair = compare(exact, vector, count);
  const value = (100 * Math.max(0, 1 - Math.min(1, pair.ratio))) / Math.min(1, pair.ratio);
  const row = {
    workload: 'exactness cost of a product',
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

const halves = {
  grpo_step: (sample, clock) => [sample.rollout[clock], sample.train[clock]],
  decode: (sample, clock) => [sample[clock]],
};

async function measureStep({ results, rounds, seconds }, sizes, count) {
  await withFolder(async (folder) => {
    await exportModel(sizes.model, folder);
    const sessions = [{}, { GAVEL_ISA: 'avx512-bf16' }].map((env) => engineSession(sizes, folder, 'bf16', count, env));
    const samples = await interleave(sessions, rounds, { seconds: Math.min(20, seconds) });
    if (samples[1] === undefined) return;
    const clock = clockOf(samples.flat(), count);
    const [exact, vector] = samples.map((some) => {
      const parts = some.map((sample) => halves[sizes.name](sample, clock.clock));
      return parts[0].map((_, i) => median(parts.map((part) => part[i] ?? NaN)));
    });
    const sum = (parts) => parts.reduce((total, part) => total + part, 0);
    const fastest = sum(exact.map((part, i) => Math.min(part, vector[i])));
    const row = { workload: 'exactness cost', ...rowSizes(sizes), dtype: 'bf16', threads: count, ...clock };
    const shape = `${sizes.name}, ${row.shape}`;
    const about = { step: sizes.name };
    const value = 100 * (sum(exact) / fastest - 1);
    const facts = { seconds: sum(exact), fastestSeconds: fastest, runs: samples[0].length };
    results.add({ ...row, shape, value, unit: '% slower', ...facts, ...goalOf(row, about) });
  });
}

export function exactnessCases(options) {
  const { dtypes, threads, selected, quick, sizes: all, kernelPath } = options;
  if (!selected('exactness') || !dtypes.includes('bf16')) return [];
  if (kernelPath !== 'amx') {
    console.log('exactness cost: one path for all products on this machine, nothing to compare');
    return [];
  }
  const [count] = threads;
  const steps = all.filter(({ name, prompts }) => name === 'grpo_step' || (name === 'decode' && prompts === 1));
  return [
    ...steps.map((sizes) => ({ name: 'exactness', seconds: 20, run: () => measureStep(options, sizes, count) })),
    ...(quick ? products.slice(0, 1) : products).flatMap((product) =>
      (quick ? [1] : rowCounts).map((m) => ({
        name: 'exactness',
        seconds: 4,
        run: () => measureProduct(options, product, m, count),
      })),
    ),
  ];
}
