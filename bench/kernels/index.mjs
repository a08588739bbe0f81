// Every kernel bench, and the sessions of the native program that runs a kernel on its own.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import process from 'node:process';
import { buildCMake, configureCMake } from '../../scripts/build-native.mjs';
import { availableBuilders, inspectToolchain } from '../../scripts/toolchain.mjs';
import { goalOf } from '../goals.mjs';
import { timeCall } from '../harness.mjs';
import { projectRoot } from '../machine.mjs';
import { repeat, Session, withSessions } from '../session.mjs';
import { clockOf, median, shareOf } from '../statistics.mjs';
import adamw from './adamw.bench.mjs';
import attention from './attention.bench.mjs';
import headLogprob from './head_logprob.bench.mjs';
import linear from './linear.bench.mjs';
import rmsNorm from './rms_norm.bench.mjs';
import sampleToken from './sample_token.bench.mjs';
import swiglu from './swiglu.bench.mjs';

export const benches = [linear, attention, headLogprob, rmsNorm, swiglu, adamw, sampleToken];

/** Path of the built kernel_bench; GAVEL_KERNEL_BENCH names one built elsewhere. */
export function kernelProgram() {
  const given = process.env.GAVEL_KERNEL_BENCH;
  if (given) return given;
  const tools = inspectToolchain();
  if (!availableBuilders(tools).includes('cmake')) throw new Error('Expected CMake but found none. Run: npm run setup');
  configureCMake('build-cmake', {}, tools);
  buildCMake('build-cmake', ['kernel_bench'], tools);
  const program = join(projectRoot, 'build-cmake/Release/kernel_bench');
  if (spawnSync(program, []).status !== 2) throw new Error(`Expected ${program} to start but it did not.`);
  return program;
}

/** `path` is 'auto', or 'vector' to leave AMX out. */
export const kernelSession = (program, op, dtype, sizes, { threads, path = 'auto' }) =>
  new Session(program, [String(threads), path, op, dtype === 'bf16' ? 'bf16' : 'f32', ...sizes.map(String)], {
    threads,
  });

/** Peaks of bare instructions and of reading memory, measured now: {flops(dtype, threads), read(threads)} in units a second. */
export async function measurePeaks(program, results, { threads, dtypes }) {
  const peaks = new Map();
  const measure = async (op, dtype, count, path, name, sizes, unit) => {
    const session = kernelSession(program, op, dtype, sizes, { threads: count, path });
    const samples = await withSessions([session], () => repeat(session, 5)).catch(() => undefined);
    if (samples === undefined) return;
    const clock = clockOf(samples, count);
    const amount = session.facts.flop || session.facts.bytes;
    // A ceiling is the best seen; a sum over threads counts on a shared machine only in wall time.
    const value = amount / Math.min(...samples.map((sample) => sample[clock.clock] ?? NaN)) / 1e9;
    results.add({
      workload: name(session.facts.path),
      dtype,
      threads: count,
      value,
      unit,
      ...clock,
      runs: samples.length,
    });
    if (dtype === 'bf16' && path === 'auto') peaks.set('path', session.facts.path);
    if (Number.isFinite(value)) peaks.set(`${op} ${dtype} ${path} ${count}`, value * 1e9);
  };
  for (const count of threads) {
    for (const dtype of dtypes) {
      for (const path of dtype === 'bf16' ? ['auto', 'vector'] : ['auto']) {
        const instruction = (taken) => (taken === 'amx' ? 'tdpbf16ps' : dtype === 'bf16' ? 'vdpbf16ps' : 'vfmadd231ps');
        await measure('peak', dtype, count, path, (taken) => `peak ${instruction(taken)}`, [], 'GFLOP/s');
      }
    }
    await measure('read', 'fp32', count, 'auto', () => 'peak memory read', [1024], 'GB/s');
  }
  return {
    flops: (dtype, count) => peaks.get(`peak ${dtype} auto ${count}`),
    read: (count) => peaks.get(`read fp32 auto ${count}`),
    /** What bf16 products take: 'amx' or a vector path. */
    path: peaks.get('path'),
  };
}

/** Rate, unit and share of the ceiling of `seconds` a call. */
export function rateOf({ flop, bytes }, seconds, peaks, dtype, threads) {
  // Memory writes beside what it reads: the rate of reading alone is no ceiling of kernels that do both.
  if (!(flop > 0)) return { value: bytes / seconds / 1e9, unit: 'GB/s', shareOfLimit: null };
  return { value: flop / seconds / 1e9, unit: 'GFLOP/s', ...shareOf(flop / seconds, peaks.flops(dtype, threads)) };
}

/** The workload and sizes of a case as its rows name them. */
export function sizesOf(bench, { P = null, C = null, G = null, V = null, shape }) {
  return { workload: bench.op, P, C, G, V, shape };
}

export const rowOf = (bench, one, dtype, threads) => ({ ...sizesOf(bench, one), dtype, threads });

/** The kernels on their own, and the same calls through `gavel-rl/kernels` (one thread, packing and copies included). */
export function kernelCases(options) {
  const { dtypes, threads, selected, quick } = options;
  const cases = [];
  for (const bench of benches.filter(({ op }) => selected(op))) {
    for (const dtype of bench.dtypes.filter((one) => dtypes.includes(one))) {
      // What has a goal against a peer is measured with the peer.
      for (const one of quick ? bench.quick : bench.cases.filter(({ goal }) => goal !== true)) {
        const work = (seconds, run) => cases.push({ name: bench.op, seconds, run });
        for (const count of threads) work(3, () => measureKernel(options, bench, dtype, one, count));
        const call = bench.call?.(dtype, one.sizes);
        if (call !== undefined) work(1, () => measureCall(options, bench, dtype, one, call));
      }
    }
  }
  return cases;
}

async function measureKernel({ results, program, peaks, rounds }, bench, dtype, one, count) {
  const session = kernelSession(program, bench.op, dtype, one.sizes, { threads: count });
  const samples = await withSessions([session], () => repeat(session, rounds, { seconds: 3 }));
  const clock = clockOf(samples, count);
  const seconds = median(samples.map((sample) => sample[clock.clock] ?? NaN));
  const rate = rateOf(session.facts, seconds, peaks, dtype, count);
  const row = { ...rowOf(bench, one, dtype, count), ...rate };
  const goal = row.shareOfLimit === null ? {} : goalOf(row, { goal: one.peak === true });
  results.add({ ...row, seconds, path: session.facts.path, ...clock, runs: samples.length, ...goal });
}

async function measureCall({ results, peaks, quick }, bench, dtype, one, call) {
  const timed = timeCall(call.fn, { seconds: quick ? 0.05 : 1 });
  const clock = clockOf([timed], 1);
  const rate = rateOf(call, timed[clock.clock], peaks, dtype, 1);
  const row = { ...rowOf(bench, one, dtype, 1), workload: `${bench.op} called from JavaScript` };
  results.add({ ...row, ...rate, seconds: timed[clock.clock], ...clock, runs: timed.samples });
}
