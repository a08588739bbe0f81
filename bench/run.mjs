// npm run bench            own figures: the machine's peaks, kernels, engine workloads, curves
// npm run bench -- --peers the same work by PyTorch, transformers, TRL and llama.cpp, interleaved (bench/peers/find.mjs)
// npm run bench -- --profile where the cycles of a GRPO step go (bench/profile.mjs)
// Options: bench/options.mjs
import process from 'node:process';
import { runCases } from './cases.mjs';
import { curveCases } from './engine/curves.bench.mjs';
import { engineCases } from './engine/engine.bench.mjs';
import { loadCases } from './engine/load.bench.mjs';
import { quickWorkloads, workloads } from './engine/shapes.mjs';
import { exactnessCases } from './kernels/exactness.bench.mjs';
import { kernelCases, kernelProgram, measurePeaks } from './kernels/index.mjs';
import { commit, hardware, load } from './machine.mjs';
import { benchOptions } from './options.mjs';
import { benchPeers } from './peers/index.mjs';
import { profile } from './profile.mjs';
import { writeReport } from './report.mjs';
import { Results } from './rows.mjs';

async function main() {
  const given = benchOptions();
  const { quick, threads, dtypes } = given;
  console.log(`${hardware()}; commit ${commit()}; load ${load()}`);
  if (given.profile) return profile({ dtypes, quick });
  const results = new Results(given.peers ? 'peers' : 'own', { publish: !quick });
  const program = kernelProgram();
  const sizes = quick ? quickWorkloads : workloads;
  const own = given.peers ? [] : [kernelCases, exactnessCases, engineCases, curveCases, loadCases];
  const casesOf = (made) => own.flatMap((make) => make(made));
  // Names first: nothing is measured, or stored, for one that is not there.
  casesOf({ ...given, results, program, peaks: {}, sizes });
  if (!given.peers) given.refuseUnknown();
  const peaks = await measurePeaks(program, results, { threads, dtypes });
  const options = { ...given, results, program, peaks, sizes, kernelPath: peaks.path };
  const cases = casesOf(options);
  const failed = given.peers ? await benchPeers(options) : await runCases(cases);
  if (given.peers) given.refuseUnknown();
  if (!quick) console.log(`written: ${await writeReport()}`);
  if (failed > 0) process.exitCode = 1;
}

await main();
