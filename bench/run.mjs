// npm run bench            own figures: the machine's peaks, kernels, engine workloads
// npm run bench -- --peers the same work by PyTorch, transformers and TRL, interleaved (GAVEL_PEER_PYTHON or python3)
// Options: --only NAME,...  --dtypes fp32,bf16  --threads 1,2  --rounds N  --quick (tiny counts, nothing stored)  --cuda
import { parseArgs } from 'node:util';
import { deviceInfo } from 'gavel-rl';
import { benchEngine } from './engine/engine.bench.mjs';
import { benchLoad } from './engine/load.bench.mjs';
import { quickWorkloads, workloads } from './engine/shapes.mjs';
import { benchKernels, kernelProgram, measurePeaks } from './kernels/index.mjs';
import { commit, hardware, load } from './machine.mjs';
import { benchPeers } from './peers/peers.bench.mjs';
import { writeReport } from './report.mjs';
import { Results } from './rows.mjs';

const { values } = parseArgs({
  options: {
    peers: { type: 'boolean', default: false },
    cuda: { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    dtypes: { type: 'string', default: 'fp32,bf16' },
    threads: { type: 'string' },
    rounds: { type: 'string' },
  },
});

function listOf(text) {
  return text.split(',').filter((part) => part !== '');
}

async function main() {
  const info = deviceInfo();
  if (values.cuda) {
    const { cuda } = info;
    if (!cuda.available) console.log(`bench:cuda skipped: no device (${cuda.reason})`);
    else
      console.log(
        `bench:cuda skipped: this build measures no kernel on ${cuda.devices.map(({ name }) => name).join(', ')}`,
      );
    return;
  }
  const threads = listOf(values.threads ?? (info.hardwareThreads > 1 ? '1,2' : '1')).map(Number);
  const dtypes = listOf(values.dtypes);
  const only = values.only === undefined ? undefined : listOf(values.only);
  const selected = (name) => only === undefined || only.includes(name);
  const rounds = Number(values.rounds ?? (values.quick ? 1 : 5));
  const results = new Results(values.peers ? 'peers' : 'own', { publish: !values.quick });
  console.log(`${hardware()}; commit ${commit()}; load ${load()}`);
  const program = kernelProgram();
  const sizes = values.quick ? quickWorkloads : workloads;
  const peaks = await measurePeaks(program, results, { threads, dtypes });
  const options = { results, program, peaks, dtypes, threads, rounds, selected, quick: values.quick, sizes };
  if (values.peers) {
    await benchPeers(options);
  } else {
    await benchKernels(options);
    await benchEngine(options);
    await benchLoad(options);
  }
  if (!values.quick) console.log(`written: ${await writeReport()}`);
}

await main();
