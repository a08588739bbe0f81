// npm run bench            own figures: the machine's peaks, kernels, engine workloads, curves
// npm run bench -- --peers the same work by PyTorch, transformers, TRL and llama.cpp, interleaved (bench/peers/find.mjs)
// npm run bench -- --profile where the cycles of a GRPO step go (bench/profile.mjs)
// Options: --only NAME,... (a workload, an op, curves, exactness, load)  --dtypes fp32,bf16  --threads 1,2  --rounds N
//   --seconds N (of one case against peers)  --quick (tiny counts, nothing stored)  --cuda
import process from 'node:process';
import { parseArgs } from 'node:util';
import { deviceInfo } from 'gavel-rl';
import { runCases } from './cases.mjs';
import { curveCases } from './engine/curves.bench.mjs';
import { engineCases } from './engine/engine.bench.mjs';
import { loadCases } from './engine/load.bench.mjs';
import { quickWorkloads, workloads } from './engine/shapes.mjs';
import { exactnessCases } from './kernels/exactness.bench.mjs';
import { kernelCases, kernelProgram, measurePeaks } from './kernels/index.mjs';
import { commit, hardware, load } from './machine.mjs';
import { benchPeers } from './peers/index.mjs';
import { profile } from './profile.mjs';
import { writeReport } from './report.mjs';
import { Results } from './rows.mjs';

const { values } = parseArgs({
  options: {
    peers: { type: 'boolean', default: false },
    profile: { type: 'boolean', default: false },
    cuda: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    dtypes: { type: 'string', default: 'fp32,bf16' },
    threads: { type: 'string' },
    rounds: { type: 'string' },
    seconds: { type: 'string', default: '40' },
  },
});

function listOf(text) {
  return text.split(',').filter((part) => part !== '');
}

function skipCuda({ cuda }) {
  const names = cuda.available ? cuda.devices.map(({ name }) => name).join(', ') : '';
  const reason = cuda.available ? `this build measures no kernel on ${names}` : `no device (${cuda.reason})`;
  console.log(`bench:cuda skipped: ${reason}`);
}

async function main() {
  const info = deviceInfo();
  if (values.cuda) return skipCuda(info);
  const { quick } = values;
  const threads = listOf(values.threads ?? (info.hardwareThreads > 1 ? '1,2' : '1')).map(Number);
  const dtypes = listOf(values.dtypes);
  console.log(`${hardware()}; commit ${commit()}; load ${load()}`);
  if (values.profile) return profile({ dtypes, quick });
  const only = values.only === undefined ? undefined : listOf(values.only);
  const selected = (name) => only === undefined || only.includes(name);
  const rounds = Number(values.rounds ?? (quick ? 1 : 5));
  const results = new Results(values.peers ? 'peers' : 'own', { publish: !quick });
  const program = kernelProgram();
  const sizes = quick ? quickWorkloads : workloads;
  const peaks = await measurePeaks(program, results, { threads, dtypes });
  const seconds = Number(values.seconds);
  const options = {
    results,
    program,
    peaks,
    dtypes,
    threads,
    rounds,
    seconds,
    selected,
    quick,
    sizes,
    kernelPath: peaks.path,
  };
  const own = [kernelCases, exactnessCases, engineCases, curveCases, loadCases];
  const failed = values.peers ? await benchPeers(options) : await runCases(own.flatMap((cases) => cases(options)));
  if (!quick) console.log(`written: ${await writeReport()}`);
  if (failed > 0) process.exitCode = 1;
}

await main();
