// Our engine's workloads and the peers' in turns: every ratio is of neighbouring minutes of one machine.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { engineSession, workOf } from '../engine/engine.bench.mjs';
import { exportModel } from '../engine/export.mjs';
import { decoderOf, rowSizes, withFolder } from '../engine/shapes.mjs';
import { goalOf, rowsOf } from '../goals.mjs';
import { interleave, Session } from '../session.mjs';
import { compare, median, shareOf } from '../statistics.mjs';
import { script } from './find.mjs';
import { ratios } from './kernels.bench.mjs';

const warm = '{"warm":true}';

/** The peers of one case, by name: how each starts. */
function opponents({ python, llama, threads: all }, folder, dtype, threads, sizes) {
  const start = (name, ...first) => {
    const args = [script(name), ...first, folder, dtype, String(threads), JSON.stringify(sizes)];
    return () => new Session(python, args, { threads });
  };
  switch (sizes.name) {
    case 'train_step':
      return { torch: start('lean.py', 'train_step') };
    case 'grpo_step':
      return { TRL: start('trl_step.py'), 'lean-prefix': start('lean.py', 'grpo_step') };
    case 'grpo_update':
      return { TRL: start('trl_update.py'), 'lean-prefix': start('lean.py', 'grpo_update') };
    case 'score':
      return { transformers: start('score.py') };
    default: {
      const many = rowsOf(sizes) > 1;
      // Many rows take llama.cpp a minute a round: it is measured with all threads alone.
      const parallel = llama.folder && dtype === 'bf16' && (!many || threads === Math.max(...all));
      return {
        ...(many ? { 'transformers generate': start('generate.py') } : {}),
        ...(parallel ? { 'llama.cpp': () => llamaSession(python, llama, folder, threads, sizes) } : {}),
      };
    }
  }
}

function llamaSession(python, llama, folder, threads, sizes) {
  const file = join(folder, 'bf16.gguf');
  const { status, stderr } = spawnSync(python, [script('write_gguf.py'), folder, file, 'BF16'], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`write_gguf.py: ${stderr.trim().split('\n').at(-1)}`);
  const counts = JSON.stringify({ ...sizes, V: decoderOf(sizes.model).vocab_size });
  const args = [script('llama.mjs'), llama.folder, file, String(threads), counts];
  return new Session(process.execPath, args, { threads });
}

/** Every case, as work to be done: {name, seconds, run}. */
export function engineCases(options) {
  const { dtypes, threads, selected, sizes: all, seconds } = options;
  return all
    .filter(({ name }) => selected(name))
    .flatMap((sizes) =>
      dtypes.flatMap((dtype) =>
        threads.map((count) => ({ name: sizes.name, seconds, run: () => measure(options, sizes, dtype, count) })),
      ),
    );
}

const measure = (options, sizes, dtype, count) =>
  withFolder(async (folder) => {
    await exportModel(sizes.model, folder);
    const peers = opponents(options, folder, dtype, count, sizes);
    if (Object.keys(peers).length === 0) return;
    const ours = [engineSession(sizes, folder, dtype, count)];
    // The same pairs once more without the shared prompt, which no peer shares.
    if (sizes.name === 'score') ours.push(engineSession({ ...sizes, shared: false }, folder, dtype, count));
    const sessions = [...ours, ...Object.values(peers).map((start) => start())];
    const samples = await interleave(sessions, options.rounds, { seconds: options.seconds, warm });
    const theirs = samples.slice(ours.length);
    for (const [i, peer] of Object.keys(peers).entries()) {
      if (theirs[i] === undefined) continue;
      const versions = peer === 'llama.cpp' ? options.llama.versions : options.versions;
      const one = { ...options, sizes, dtype, count, peer, versions };
      addPair(one, samples[0], theirs[i]);
      if (sizes.name === 'score' && samples[1] !== undefined)
        addPair({ ...one, workload: 'score, nothing shared' }, samples[1], theirs[i]);
    }
  });

function addPair(one, mine, theirs) {
  const { results, versions, peaks, sizes, dtype, count, peer, workload = sizes.name } = one;
  const pair = compare(mine, theirs, count);
  const { flop, amount, unit } = workOf(sizes);
  const about = { rows: rowsOf(sizes) };
  const base = { workload, ...rowSizes(sizes), dtype, threads: count, peer, versions, runs: mine.length };
  const add = (row) => results.add({ ...row, ...goalOf(row, about) });
  add({
    ...base,
    ...ratios(pair),
    value: amount / pair.seconds,
    peerValue: amount / pair.peerSeconds,
    unit,
    ...shareOf(flop / pair.seconds, flop && peaks.flops(dtype, count)),
  });
  addParts(one, base, add, mine, theirs);
  const peak = (samples) => Math.max(...samples.map((sample) => sample.memoryBytes)) / 2 ** 20;
  const ratio = peak(theirs) / peak(mine);
  const memory = { value: peak(mine), peerValue: peak(theirs), unit: 'MiB', ratio, ratioLow: ratio, ratioHigh: ratio };
  add({ ...base, workload: `${workload} peak memory`, clock: 'wall', other: pair.other, ...memory });
  const gap = (samples) => median(samples.map((sample) => sample.gap));
  if (mine[0].gap === undefined || theirs[0].gap === undefined) return;
  const exact = { value: gap(mine), peerValue: gap(theirs), unit: 'largest |sampled - trained log-prob|' };
  add({ ...base, workload: `${workload} exactness`, clock: 'wall', other: pair.other, ...exact });
}

/** Rows of what a step is made of, where both say it. */
function addParts({ sizes, count, workload = sizes.name }, base, add, mine, theirs) {
  const { amount, unit } = workOf(sizes);
  const part = (name, ours, peers) => {
    const half = compare(ours, peers, count);
    add({
      ...base,
      workload: `${workload} ${name}`,
      ...ratios(half),
      value: amount / half.seconds,
      peerValue: amount / half.peerSeconds,
      unit,
    });
  };
  const timed = (samples, name) => samples.map((sample) => ({ ...sample[name], other: sample.other }));
  for (const name of ['rollout', 'train'].filter((one) => mine[0][one] && theirs[0][one]))
    part(name, timed(mine, name), timed(theirs, name));
  // Of decoding: without the prompts, and against the peer's library alone (no sampling, no JavaScript). CPU seconds are those of
  // the whole run by the share of its time.
  const spent = (samples, field) =>
    samples.map(({ wall, cpu, other, ...rest }) => ({ wall: rest[field], cpu: (cpu * rest[field]) / wall, other }));
  for (const [name, field] of [
    ['after the prompts', 'decodeSeconds'],
    ['after the prompts, its decode calls alone', 'librarySeconds'],
  ]) {
    if (mine[0].decodeSeconds && theirs[0][field]) part(name, spent(mine, 'decodeSeconds'), spent(theirs, field));
  }
}
