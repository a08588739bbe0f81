// Our programs and the peers' in turns: every ratio is of neighbouring minutes of one machine.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { engineSession, rowSizes, workOf } from '../engine/engine.bench.mjs';
import { exportModel } from '../engine/export.mjs';
import { withFolder } from '../engine/shapes.mjs';
import { benches, kernelSession, rateOf, rowOf } from '../kernels/index.mjs';
import { projectRoot } from '../machine.mjs';
import { interleave, Session, withSessions } from '../session.mjs';
import { compare, median } from '../statistics.mjs';

// The goals of the project, by workload, peer and dtype: ratios.
const goals = {
  'head_logprob torch log_softmax': { fp32: 1.2, bf16: 1.5 },
  'train_step torch': { fp32: 1.4, bf16: 1.25 },
  'grpo_step TRL': { fp32: 3.5, bf16: 4 },
  'grpo_step lean-prefix': { bf16: 1.5 },
  'decode transformers generate': { fp32: 4, bf16: 4 },
};

/** A Python with torch, transformers and trl, or why there is none. */
export function findPython() {
  const python = process.env.GAVEL_PEER_PYTHON || 'python3';
  const probe =
    'import torch, transformers, trl; print("torch", torch.__version__, "transformers", transformers.__version__, "trl", trl.__version__)';
  const { status, stdout, stderr, error } = spawnSync(python, ['-c', probe], { encoding: 'utf8' });
  if (status === 0) return { python, versions: stdout.trim().split('\n').at(-1) };
  const reason = error?.message ?? stderr.trim().split('\n').at(-1);
  return { reason: `${python}: ${reason}. Name a Python with torch 2.13, transformers and trl in GAVEL_PEER_PYTHON` };
}

const script = (name) => join(projectRoot, 'bench/peers', name);

// glibc gives large tensors back when they are freed, and the next call faults their pages in again, which can cost more than
// the kernel: the peers' kernels are measured with memory kept, as ours have theirs.
const keepMemory = { MALLOC_MMAP_MAX_: '0', MALLOC_TRIM_THRESHOLD_: '17179869184', MALLOC_TOP_PAD_: '268435456' };

const peerNames = {
  linear: 'torch linear',
  attention: 'torch SDPA',
  head_logprob: 'torch log_softmax',
  rms_norm: 'torch rms_norm',
  swiglu: 'torch silu * up',
  adamw: 'torch fused AdamW',
  sample_token: 'torch sort + multinomial',
};

function ratios(pair) {
  const { ratio, ratioLow, ratioHigh, cpuSeconds, peerCpuSeconds, seconds, peerSeconds, clock, other } = pair;
  return { ratio, ratioLow, ratioHigh, seconds, peerSeconds, cpuSeconds, peerCpuSeconds, clock, other };
}

async function kernelPeers({ results, program, python, versions, peaks, dtypes, threads, rounds, selected, quick }) {
  for (const bench of benches.filter((one) => selected(one.op))) {
    const shared = (bench.peerDtypes ?? bench.dtypes).filter((one) => dtypes.includes(one));
    for (const dtype of shared) {
      for (const one of (quick ? bench.quick : bench.cases).filter(({ peer }) => peer !== undefined)) {
        for (const count of threads) {
          const ours = kernelSession(program, bench.op, dtype, one.sizes, { threads: count });
          const args = [script('torch_kernels.py'), bench.op, dtype, String(count), ...one.peer.map(String)];
          const theirs = new Session(python, args, { threads: count, env: keepMemory });
          const [mine, peer] = await withSessions([ours, theirs], () => interleave([ours, theirs], rounds));
          const pair = compare(mine, peer, count);
          const name = peerNames[bench.op];
          const row = {
            ...rowOf(bench, one, dtype, count),
            ...ratios(pair),
            peer: name,
            versions,
            path: ours.facts.path,
            runs: rounds,
          };
          const rate = rateOf(ours.facts, pair.seconds, peaks, dtype, count, 'auto');
          const peerValue = rateOf(ours.facts, pair.peerSeconds, peaks, dtype, count, 'auto').value;
          const goal = one.goal === true ? goals[`${bench.op} ${name}`]?.[dtype] : undefined;
          results.add({ ...row, ...rate, peerValue, ...(goal === undefined ? {} : { goal }) });
          if (!bench.memory) continue;
          const extra = (session, samples) => (samples.at(-1).memoryBytes - session.facts.memoryBytes) / 2 ** 20;
          const [value, peerMemory] = [extra(ours, mine), extra(theirs, peer)];
          const ratio = peerMemory / value;
          const memory = { ...row, workload: `${bench.op} extra memory`, value, unit: 'MiB', peerValue: peerMemory };
          results.add({ ...memory, clock: 'wall', ratio, ratioLow: ratio, ratioHigh: ratio });
        }
      }
    }
  }
}

const opponents = (python, folder, dtype, threads, sizes) => {
  const args = [folder, dtype, String(threads), JSON.stringify(sizes)];
  const start = (name, ...first) => new Session(python, [script(name), ...first, ...args], { threads });
  return {
    train_step: { torch: () => start('lean.py', 'train_step') },
    grpo_step: { TRL: () => start('trl_step.py'), 'lean-prefix': () => start('lean.py', 'grpo_step') },
    decode: { 'transformers generate': () => start('generate.py') },
  };
};

function addPair({ results, versions, peaks, rounds }, workload, sizes, dtype, count, peer, mine, theirs) {
  const pair = compare(mine, theirs, count);
  const { flop, tokens, unit } = workOf(workload, sizes);
  const limit = peaks.flops(dtype, count);
  const goal = goals[`${workload} ${peer}`]?.[dtype];
  const base = { workload, ...rowSizes(workload, sizes), dtype, threads: count, peer, versions, runs: rounds };
  results.add({
    ...base,
    ...ratios(pair),
    value: tokens / pair.seconds,
    peerValue: tokens / pair.peerSeconds,
    unit,
    shareOfLimit: flop && limit ? flop / pair.seconds / limit : null,
    ...(goal === undefined ? {} : { goal }),
  });
  for (const part of ['rollout', 'train'].filter((name) => mine[0][name] && theirs[0][name])) {
    const timed = (samples) => samples.map((sample) => ({ ...sample[part], other: sample.other }));
    const half = compare(timed(mine), timed(theirs), count);
    const rate = { value: tokens / half.seconds, peerValue: tokens / half.peerSeconds, unit };
    results.add({ ...base, workload: `${workload} ${part}`, ...ratios(half), ...rate });
  }
  const peak = (samples) => Math.max(...samples.map((sample) => sample.memoryBytes)) / 2 ** 20;
  const ratio = peak(theirs) / peak(mine);
  const memory = { value: peak(mine), peerValue: peak(theirs), unit: 'MiB', ratio, ratioLow: ratio, ratioHigh: ratio };
  const memoryGoal = workload === 'grpo_step' && peer === 'TRL' ? { goal: 3 } : {};
  results.add({
    ...base,
    workload: `${workload} peak memory`,
    clock: 'wall',
    other: pair.other,
    ...memory,
    ...memoryGoal,
  });
  const gap = (samples) => median(samples.map((sample) => sample.gap));
  if (mine[0].gap === undefined || theirs[0].gap === undefined) return;
  const exact = { value: gap(mine), peerValue: gap(theirs), unit: 'largest |sampled - trained log-prob|' };
  results.add({ ...base, workload: `${workload} exactness`, clock: 'wall', other: pair.other, ...exact });
}

async function enginePeers(options) {
  const { python, dtypes, threads, rounds, selected, sizes: all } = options;
  for (const [workload, sizes] of Object.entries(all)) {
    if (!selected(workload)) continue;
    await withFolder(async (folder) => {
      await exportModel(sizes.model, folder);
      for (const dtype of dtypes) {
        for (const count of threads) {
          const peers = opponents(python, folder, dtype, count, sizes)[workload];
          const ours = engineSession(workload, folder, dtype, count, sizes);
          const sessions = [ours, ...Object.values(peers).map((start) => start())];
          const [mine, ...theirs] = await withSessions(sessions, () => interleave(sessions, rounds));
          for (const [i, peer] of Object.keys(peers).entries()) {
            addPair(options, workload, sizes, dtype, count, peer, mine, theirs[i]);
          }
        }
      }
    });
  }
}

/** Skips with the reason where there is no such Python. */
export async function benchPeers(options) {
  const { python, versions, reason } = findPython();
  if (python === undefined) {
    console.log(`bench:peers skipped: ${reason}`);
    return;
  }
  console.log(`peers: ${versions}`);
  await kernelPeers({ ...options, python, versions });
  await enginePeers({ ...options, python, versions });
}
