// The engine's own workloads: seconds and rates of a training step, a GRPO step and grouped decode, and peak memory.
import { join } from 'node:path';
import process from 'node:process';
import { projectRoot } from '../machine.mjs';
import { repeat, Session, withSessions } from '../session.mjs';
import { clockOf, median } from '../statistics.mjs';
import { exportModel } from './export.mjs';
import { matrixParameters, models, trainFlop, withFolder } from './shapes.mjs';

export const engineSession = (workload, folder, dtype, threads, sizes) =>
  new Session(
    process.execPath,
    [join(projectRoot, 'bench/engine/session.mjs'), workload, folder, dtype, String(threads), JSON.stringify(sizes)],
    { threads },
  );

/** The useful work of one run and what its rate is called. */
export function workOf(workload, sizes) {
  if (workload === 'train_step') {
    const tokens = sizes.sequences * sizes.tokens;
    return {
      flop: trainFlop(sizes.model, tokens, (sizes.sequences * sizes.tokens ** 2) / 2),
      tokens,
      unit: 'tokens/s',
    };
  }
  const tokens = sizes.prompts * sizes.G * sizes.C;
  return { tokens, unit: 'completion tokens/s' };
}

/** The sizes of a workload as a row names them. */
export const rowSizes = (workload, sizes) => ({
  P: sizes.P ?? null,
  C: sizes.C ?? sizes.tokens ?? null,
  G: sizes.G ?? 1,
  V: models[sizes.model].vocab_size,
  shape: `${sizes.prompts ?? sizes.sequences} ${workload === 'train_step' ? 'sequences' : 'prompts'}, ${(matrixParameters(sizes.model) / 1e6).toFixed(1)}M`,
});

export async function benchEngine({ results, dtypes, threads, rounds, selected, peaks, sizes: all }) {
  for (const [workload, sizes] of Object.entries(all)) {
    if (!selected(workload)) continue;
    await withFolder(async (folder) => {
      await exportModel(sizes.model, folder);
      for (const dtype of dtypes) {
        for (const count of threads) {
          const session = engineSession(workload, folder, dtype, count, sizes);
          const samples = await withSessions([session], () => repeat(session, rounds));
          const clock = clockOf(samples, count);
          const seconds = median(samples.map((sample) => sample[clock.clock] ?? NaN));
          const { flop, tokens, unit } = workOf(workload, sizes);
          const limit = peaks.flops(dtype, count);
          const row = { workload, ...rowSizes(workload, sizes), dtype, threads: count, ...clock, runs: samples.length };
          const share = flop === undefined || !limit ? null : flop / seconds / limit;
          results.add({ ...row, value: tokens / seconds, unit, shareOfLimit: share, seconds, limit: limit || null });
          const memory = Math.max(...samples.map((sample) => sample.memoryBytes)) / 2 ** 20;
          const facts = { clock: 'wall', other: clock.other };
          results.add({ ...row, ...facts, workload: `${workload} peak memory`, value: memory, unit: 'MiB' });
        }
      }
    });
  }
}
