// The engine's own workloads: seconds and rates of a training step, a GRPO step, an update with pictures, grouped decode and
// scored pairs, and peak memory.
import { join } from 'node:path';
import process from 'node:process';
import { goalOf, rowsOf } from '../goals.mjs';
import { projectRoot } from '../machine.mjs';
import { repeat, Session, withSessions } from '../session.mjs';
import { clockOf, median, shareOf } from '../statistics.mjs';
import { exportModel } from './export.mjs';
import { rowSizes, trainFlop, withFolder } from './shapes.mjs';

export const engineSession = (sizes, folder, dtype, threads, env = {}) =>
  new Session(
    process.execPath,
    [join(projectRoot, 'bench/engine/session.mjs'), sizes.name, folder, dtype, String(threads), JSON.stringify(sizes)],
    { threads, env },
  );

/** The useful work of one run and what its rate is called. */
export function workOf(sizes) {
  if (sizes.name === 'train_step') {
    const amount = sizes.sequences * sizes.tokens;
    const pairs = (sizes.sequences * sizes.tokens ** 2) / 2;
    return { flop: trainFlop(sizes.model, amount, pairs), amount, unit: 'tokens/s' };
  }
  if (sizes.name === 'score') return { amount: sizes.pairs, unit: 'pairs/s' };
  return { amount: sizes.prompts * sizes.G * sizes.C, unit: 'completion tokens/s' };
}

/** Every case, as work to be done: {name, seconds, run}. */
export function engineCases(options) {
  const { dtypes, threads, selected, sizes: all } = options;
  return all
    .filter(({ name }) => selected(name))
    .flatMap((sizes) =>
      dtypes.flatMap((dtype) =>
        threads.map((count) => ({ name: sizes.name, seconds: 10, run: () => measure(options, sizes, dtype, count) })),
      ),
    );
}

const measure = ({ results, rounds, peaks }, sizes, dtype, count) =>
  withFolder(async (folder) => {
    await exportModel(sizes.model, folder);
    const session = engineSession(sizes, folder, dtype, count);
    const samples = await withSessions([session], () => repeat(session, rounds, { seconds: 10 }));
    const clock = clockOf(samples, count);
    const seconds = median(samples.map((sample) => sample[clock.clock] ?? NaN));
    const { flop, amount, unit } = workOf(sizes);
    const workload = sizes.name;
    const row = { workload, ...rowSizes(sizes), dtype, threads: count, ...clock, runs: samples.length };
    const share = shareOf(flop / seconds, flop && peaks.flops(dtype, count));
    const goal = share.shareOfLimit === null ? {} : goalOf(row, { rows: rowsOf(sizes) });
    results.add({ ...row, value: amount / seconds, unit, ...share, seconds, ...goal });
    const memory = Math.max(...samples.map((sample) => sample.memoryBytes)) / 2 ** 20;
    const facts = { clock: 'wall', other: clock.other };
    results.add({ ...row, ...facts, workload: `${workload} peak memory`, value: memory, unit: 'MiB' });
  });
