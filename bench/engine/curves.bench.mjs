// How cost grows with G, P, C, rows, V and threads: measured, beside what the formulas say. A prediction is the work of a
// point times the seconds a unit of work took at the base point, so the base point agrees by construction and the shape is
// what is shown. Where a roofline is the formula (decoding), it is of the machine's measured peaks, not of the base point.
import { kernelSession } from '../kernels/index.mjs';
import { repeat, withSessions } from '../session.mjs';
import { clockOf, median } from '../statistics.mjs';
import { engineSession } from './engine.bench.mjs';
import { exportModel } from './export.mjs';
import { decodeBytes, decodeFlop, decoderOf, matrixParameters, updateFlop, withFolder } from './shapes.mjs';

const update = { name: 'grpo_update', model: 'text10m', prompts: 1, G: 8, P: 512, C: 64 };
const decode = { name: 'decode', model: 'text39m', prompts: 8, G: 8, P: 128, C: 32 };
const head = { T: 256, V: 32768, H: 512 };

/** Curves of an update: the letter that varies and its values. `unshared` is what the prompt once a completion would cost. */
const updateCurves = { G: [1, 2, 4, 8, 16], P: [128, 256, 512, 1024, 2048], C: [32, 64, 128, 256] };
const decodeRows = [1, 2, 4, 8, 16, 32, 64];
const vocabularies = [4096, 8192, 32768, 151936];
const quick = { G: [1, 2], P: [32, 64], C: [8, 16], rows: [1, 2], V: [512, 1024] };

/** Median seconds of `requests` to one session, in turn. */
async function timed(session, requests, rounds, threads) {
  return withSessions([session], async () => {
    const found = [];
    for (const request of requests) {
      const samples = await repeat(session, rounds, { seconds: 2, request: JSON.stringify(request) });
      const clock = clockOf(samples, threads);
      found.push({
        ...clock,
        seconds: median(samples.map((sample) => sample[clock.clock] ?? NaN)),
        runs: samples.length,
      });
    }
    return found;
  });
}

const common = (sizes) => ({
  ...{ P: sizes.P, C: sizes.C, G: sizes.G, V: decoderOf(sizes.model).vocab_size },
  shape: `${(matrixParameters(sizes.model) / 1e6).toFixed(1)}M`,
});

async function measureUpdates({ results, rounds, quick: small }, dtype, count) {
  const base = small ? { ...update, model: 'tiny', G: 2, P: 32, C: 8 } : update;
  const points = [
    base,
    ...Object.entries(small ? quick : updateCurves)
      .filter(([letter]) => letter in updateCurves)
      .flatMap(([letter, values]) => values.map((value) => ({ ...base, [letter]: value, curve: letter }))),
  ];
  await withFolder(async (folder) => {
    await exportModel(base.model, folder);
    const [first, ...rest] = await timed(engineSession(base, folder, dtype, count), points, rounds, count);
    const rate = updateFlop(base) / first.seconds;
    for (const [i, { seconds, ...clock }] of rest.entries()) {
      const { curve, ...sizes } = points[i + 1];
      const predicted = updateFlop(sizes) / rate;
      const unshared = updateFlop(sizes, false) / rate;
      const row = { workload: 'grpo_update', curve, ...common(sizes), dtype, threads: count, ...clock };
      results.add({ ...row, value: seconds, unit: 's', predicted, unshared });
    }
  });
}

async function measureDecode({ results, rounds, peaks, quick: small }, dtype, count) {
  const base = small ? { ...decode, model: 'tiny', P: 32, C: 8 } : decode;
  const points = (small ? quick.rows : decodeRows).map((rows) => ({
    ...base,
    prompts: Math.ceil(rows / base.G),
    G: Math.min(rows, base.G),
  }));
  await withFolder(async (folder) => {
    await exportModel(base.model, folder);
    const session = engineSession(base, folder, dtype, count);
    await withSessions([session], async () => {
      for (const sizes of points) {
        const samples = await repeat(session, rounds, { seconds: 2, request: JSON.stringify(sizes) });
        const clock = clockOf(samples, count);
        const rows = sizes.prompts * sizes.G;
        const share = ({ decodeSeconds, wall }) => decodeSeconds / wall;
        const rate = median(samples.map((sample) => sample.tokens / (share(sample) * (sample[clock.clock] ?? NaN))));
        // A step reads weights, keys and values once, and multiplies every weight once a row.
        const bytes = decodeBytes(sizes, rows, dtype === 'bf16' ? 2 : 4);
        const bound = Math.max(
          bytes / (peaks.read(count) ?? NaN),
          decodeFlop(sizes, rows) / (peaks.flops(dtype, count) ?? NaN),
        );
        const predicted = Number.isFinite(bound) ? rows / bound : null;
        const row = { workload: 'decode', curve: 'rows', rows, ...common(sizes), dtype, threads: count, ...clock };
        results.add({
          ...row,
          clock: clock.clock,
          value: rate,
          unit: 'completion tokens/s',
          predicted,
          runs: samples.length,
        });
      }
    });
  });
}

async function measureHead({ results, program, rounds, quick: small }, dtype, count) {
  const base = small ? { T: 64, V: 512, H: 64 } : head;
  const found = [];
  for (const vocabulary of small ? quick.V : vocabularies) {
    const session = kernelSession(program, 'head_logprob', dtype, [base.T, vocabulary, base.H, 1], { threads: count });
    const samples = await withSessions([session], () => repeat(session, rounds, { seconds: 2 }));
    const clock = clockOf(samples, count);
    const seconds = median(samples.map((sample) => sample[clock.clock] ?? NaN));
    found.push({ V: vocabulary, ...clock, seconds, runs: samples.length });
  }
  const { seconds: whole, V: at } = found.find(({ V }) => V === base.V);
  for (const { V, seconds, ...clock } of found) {
    const row = { workload: 'head_logprob', curve: 'V', V, C: base.T, dtype, threads: count, ...clock };
    results.add({ ...row, shape: `T ${base.T}, H ${base.H}`, value: seconds, unit: 's', predicted: (whole * V) / at });
  }
}

/** Every curve, as work to be done: each with every count of threads. */
export function curveCases(options) {
  const { dtypes, threads, selected } = options;
  if (!selected('curves')) return [];
  return dtypes.flatMap((dtype) =>
    threads.flatMap((count) =>
      [measureUpdates, measureDecode, measureHead].map((measure) => ({
        name: `curves (${measure.name})`,
        seconds: 20,
        run: () => measure(options, dtype, count),
      })),
    ),
  );
}
