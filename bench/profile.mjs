// Where the cycles of a GRPO step go: samples of perf, by kind of work and as a flame graph. One thread; the process is warm.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { engineSession } from './engine/engine.bench.mjs';
import { exportModel } from './engine/export.mjs';
import { quickWorkloads, rowSizes, withFolder, workloads } from './engine/shapes.mjs';
import { flameGraph } from './flame-graph.mjs';
import { projectRoot } from './machine.mjs';
import { writeReport } from './report.mjs';
import { Results } from './rows.mjs';
import { foldStacks } from './stacks.mjs';

const steps = 2;

const tally = (items) => {
  const counts = new Map();
  for (const item of items) counts.set(item, (counts.get(item) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
};

async function record(session, file, sizes) {
  await session.ready();
  await session.measure();
  const perf = spawn(
    'perf',
    ['record', '-e', 'cpu-clock', '-F', '199', '--call-graph', 'dwarf,16384', '-o', file, '-p', String(session.pid)],
    {
      stdio: 'ignore',
    },
  );
  const ended = new Promise((resolve) => perf.once('close', resolve));
  await wait(500);
  for (let step = 0; step < steps; step++) await session.measure(JSON.stringify(sizes));
  perf.kill('SIGINT');
  await ended;
}

/** Records, writes docs/images/bench-profile-*.svg and the shares, and the page. */
export async function profile({ dtypes, quick }) {
  if (spawnSync('perf', ['--version']).status !== 0) {
    console.log('profile skipped: no perf. Install it (Debian: apt-get install linux-perf) and run again.');
    return;
  }
  const sizes = (quick ? quickWorkloads : workloads).find(({ name }) => name === 'grpo_step');
  const results = new Results('profile', { publish: !quick });
  for (const dtype of dtypes) {
    await withFolder(async (folder) => {
      await exportModel(sizes.model, folder);
      const session = engineSession(sizes, folder, dtype, 1);
      const file = join(folder, 'perf.data');
      try {
        await record(session, file, sizes);
      } finally {
        await session.close();
      }
      const script = spawnSync('perf', ['script', '-i', file, '--no-inline', '-F', 'comm,tid,ip,sym'], {
        encoding: 'utf8',
        maxBuffer: 1 << 30,
      });
      const stacks = foldStacks(script.stdout ?? '');
      if (stacks.length === 0)
        throw new Error(`Expected samples of perf but received none. ${script.stderr.trim().slice(-300)}`);
      for (const [kind, count] of tally(stacks.map((one) => one.kind))) {
        const inside = stacks.filter((one) => one.kind === kind).map(({ stack }) => stack.at(-1));
        const parts = tally(inside)
          .slice(0, 4)
          .map(([name, part]) => `${name} ${Math.round((100 * part) / stacks.length)} %`);
        const row = { workload: 'profile', ...rowSizes(sizes), dtype, threads: 1, kind, parts: parts.join(', ') };
        results.add({
          ...row,
          value: (100 * count) / stacks.length,
          unit: '% of samples',
          clock: 'cpu',
          other: 0,
          runs: stacks.length,
        });
      }
      if (quick) return;
      mkdirSync(join(projectRoot, 'docs/images'), { recursive: true });
      const title = `GRPO step in ${dtype}, one thread: ${stacks.length} samples`;
      writeFileSync(
        join(projectRoot, 'docs/images', `bench-profile-${dtype}.svg`),
        flameGraph(
          title,
          stacks.map(({ stack }) => stack),
        ),
      );
    });
  }
  if (!quick) console.log(`written: ${await writeReport()}`);
}
