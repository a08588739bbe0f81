// npm run bench:cuda: the card's ceilings and every kernel of the plugin at real shapes (bench/native/cuda), stored in
// bench/results/cuda.jsonl. Prints "skipped: no device (reason)" where there is none; with GAVEL_REQUIRE_CUDA=1 that is a
// failure. Options go to the program (-- --help); --quick and --list store nothing.
import { spawnSync } from 'node:child_process';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { buildCMake, configureCMake } from '../scripts/build-native.mjs';
import { availableBuilders, findProgram, inspectToolchain } from '../scripts/toolchain.mjs';
import { commit, projectRoot } from './machine.mjs';
import { resultsFolder } from './rows.mjs';

const args = process.argv.slice(2);
const stored = !['--quick', '--list', '--help', '--out'].some((flag) => args.includes(flag));
const cudaHome = process.env.CUDA_HOME ?? process.env.CUDA_PATH ?? '/usr/local/cuda';

if (args.includes('--help')) {
  console.log(`npm run bench:cuda -- [options]: builds gavel_cuda_bench, runs it and adds its rows to bench/results/cuda.jsonl
  --only NAME,...   workloads; --list names them all
  --dtypes D,...    bf16, fp32 (both)
  --seconds S       of measuring a case (0.3)
  --device N        index of the card (0)
  --cublaslt FILE   the vendor's library, where it is not on the loader's path
  --quick           tiny sizes, nothing stored
  --out FILE        rows go there instead`);
  process.exit(0);
}

function skip(reason) {
  console.log(`skipped: no device (${reason})`);
  process.exitCode = process.env.GAVEL_REQUIRE_CUDA ? 1 : 0;
}

function run(tools) {
  configureCMake('build-cmake', { GAVEL_CUDA: 'ON' }, tools);
  buildCMake('build-cmake', ['gavel_cuda_bench'], tools);
  const scratch = mkdtempSync(join(tmpdir(), 'gavel-bench-'));
  const file = join(scratch, 'rows.jsonl');
  const program = join(projectRoot, 'build-cmake/Release/gavel_cuda_bench');
  try {
    const more = ['--commit', commit(), ...(stored ? ['--out', file] : [])];
    const { status } = spawnSync(program, [...more, ...args], { cwd: projectRoot, stdio: 'inherit' });
    process.exitCode = status ?? 1;
    if (!stored || !existsSync(file)) return;
    const rows = readFileSync(file, 'utf8');
    for (const line of rows.split('\n').filter((text) => text !== '')) JSON.parse(line);
    appendFileSync(join(resultsFolder, 'cuda.jsonl'), rows);
    console.log('stored in bench/results/cuda.jsonl; node bench/report.mjs writes them into docs/benchmarks.md');
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

const tools = inspectToolchain();
if (!findProgram(process.env.CUDACXX, 'nvcc', join(cudaHome, 'bin/nvcc')))
  skip('the CUDA plugin is not built here: no CUDA compiler');
else if (!availableBuilders(tools).includes('cmake')) skip('the CUDA plugin is not built here: no CMake');
else {
  try {
    run(tools);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
