// Our kernels and PyTorch's in turns.
import { benches, kernelSession, rateOf, rowOf } from '../kernels/index.mjs';
import { goalOf } from '../goals.mjs';
import { interleave, repeat, Session, withSessions } from '../session.mjs';
import { compare } from '../statistics.mjs';
import { script } from './find.mjs';

// glibc gives large tensors back when they are freed, and the next call faults their pages in again, which can cost more than
// the kernel: the peers' kernels are timed with memory kept, as ours have theirs. What they need beyond their operands is
// seen in another process without that.
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

export function ratios(pair) {
  const { ratio, ratioLow, ratioHigh, cpuSeconds, peerCpuSeconds, seconds, peerSeconds, clock, other } = pair;
  return { ratio, ratioLow, ratioHigh, seconds, peerSeconds, cpuSeconds, peerCpuSeconds, clock, other };
}

/** Every case with a peer, as work to be done: {name, run}. */
export function kernelCases(options) {
  const { dtypes, threads, selected, quick } = options;
  const cases = [];
  for (const bench of benches.filter(({ op }) => selected(op))) {
    for (const dtype of (bench.peerDtypes ?? bench.dtypes).filter((one) => dtypes.includes(one))) {
      for (const one of (quick ? bench.quick : bench.cases).filter(({ peer }) => peer !== undefined)) {
        // Those of the goals take a minute: with all threads alone.
        for (const count of one.goal === true ? [Math.max(...threads)] : threads)
          cases.push({ name: bench.op, seconds: 8, run: () => measure(options, bench, dtype, one, count) });
      }
    }
  }
  return cases;
}

async function measure({ results, program, python, versions, peaks, rounds }, bench, dtype, one, count) {
  const ours = kernelSession(program, bench.op, dtype, one.sizes, { threads: count });
  const args = [script('torch_kernels.py'), bench.op, dtype, String(count), ...one.peer.map(String)];
  const theirs = new Session(python, args, { threads: count, env: keepMemory });
  const [mine, peer] = await interleave([ours, theirs], rounds, { seconds: 8 });
  if (peer === undefined) return;
  const pair = compare(mine, peer, count);
  const name = peerNames[bench.op];
  const row = {
    ...rowOf(bench, one, dtype, count),
    ...ratios(pair),
    peer: name,
    versions,
    path: ours.facts.path,
    runs: mine.length,
  };
  const rate = rateOf(ours.facts, pair.seconds, peaks, dtype, count);
  const peerValue = rateOf(ours.facts, pair.peerSeconds, peaks, dtype, count).value;
  results.add({ ...row, ...rate, peerValue, ...goalOf(row, one) });
  if (!bench.memory) return;
  const plain = new Session(python, args, { threads: count });
  const freed = await withSessions([plain], () => repeat(plain, 1));
  const extra = (session, samples) => (samples.at(-1).memoryBytes - session.facts.memoryBytes) / 2 ** 20;
  const [value, peerMemory] = [extra(ours, mine), extra(plain, freed)];
  const ratio = peerMemory / value;
  const memory = { ...row, workload: `${bench.op} extra memory`, value, unit: 'MiB', peerValue: peerMemory };
  const sure = { clock: 'wall', ratio, ratioLow: ratio, ratioHigh: ratio };
  results.add({ ...memory, ...sure, ...goalOf(memory, one) });
}
