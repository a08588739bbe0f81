// Where the cycles of a GRPO step go: samples of perf, by kind of work and as a flame graph. One thread; the process is warm.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { engineSession, rowSizes } from './engine/engine.bench.mjs';
import { exportModel } from './engine/export.mjs';
import { quickWorkloads, withFolder, workloads } from './engine/shapes.mjs';
import { flameGraph } from './flame-graph.mjs';
import { projectRoot } from './machine.mjs';
import { writeReport } from './report.mjs';
import { Results } from './rows.mjs';

const steps = 2;

/** Kinds of work by what stands nearest the leaf of a stack. */
const kinds = [
  ['optimizer', /adamw|global_norm/],
  ['attention', /attention/],
  ['head and log-probs', /head_logprob|head_tile|sample_token/],
  ['SwiGLU, norms, rotary embedding', /swiglu|rms_norm|rope|rotate/],
  ['linear layers', /linear|multiply_rows|multiply_outer|accumulate_outer|gemm/],
];

/** Frames that say nothing of what is computed. */
const plumbing =
  /_Function_handler|ThreadPool|JobThread|Bridge|NativeModel|ModelHost|start_thread|clone3|unknown|_FUN|^std::|__invoke|entry_SYSCALL/;

/** `gavel::cpu::run_avx512<gavel::cpu::for_rows<gavel::cpu::swiglu_forward(...)...` is swiglu_forward. */
function shortName(symbol) {
  const op = /(\w+_(?:forward|backward))\(/.exec(symbol);
  if (op !== null) return op[1];
  return symbol
    .replaceAll('(anonymous namespace)::', '')
    .replace(/^gavel::(cpu::)?/, '')
    .replace(/[<(].*$/, '');
}

/** Stacks of `perf script`, from root to leaf, of the engine's own thread. */
export function foldStacks(text) {
  return text
    .split('\n\n')
    .map((sample) => {
      const lines = sample.split('\n').filter((line) => /^\s+[0-9a-f]+ /.test(line));
      return lines
        .map((line) => /^\s+([0-9a-f]+) (.*)$/.exec(line))
        .map(([, address, symbol]) => ({ address, symbol }));
    })
    .filter((frames) => frames.some(({ symbol }) => symbol.includes('JobThread::loop')))
    .map((frames) => {
      const kernel = frames.some(({ address }) => address.startsWith('ffffffff8'));
      const own = frames.filter(({ address, symbol }) => !address.startsWith('ffffffff') && !plumbing.test(symbol));
      const op = frames.map(({ symbol }) => symbol).find((symbol) => kinds.some(([, pattern]) => pattern.test(symbol)));
      const kind = kernel
        ? 'operating system (fresh pages)'
        : (kinds.find(([, pattern]) => pattern.test(op ?? ''))?.[0] ?? 'other');
      const names = own.map(({ symbol }) => shortName(symbol)).reverse();
      return {
        kind,
        stack: names.filter((name, i) => name !== names[i - 1]).concat(kernel ? ['(operating system)'] : []),
      };
    })
    .filter(({ stack }) => stack.length > 0);
}

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
