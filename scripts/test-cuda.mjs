// The device tier: builds the CUDA plugin and its tests and runs them where there is a device, else prints
// "skipped: no device (reason)" and ends well. With GAVEL_REQUIRE_CUDA=1 a missing device is a failure.
// Usage: node scripts/test-cuda.mjs [--emulated | --sanitize memcheck|racecheck|initcheck|synccheck] [test filter]
// --emulated runs the kernels' sources on the processor, then an engine of the addon on them; --sanitize runs the device tests under compute-sanitizer.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildCMake, configureCMake } from './build-native.mjs';
import { sumCounts } from './counts.mjs';
import { runProgram, runVitest } from './run-tests.mjs';
import { projectRoot } from './sources.mjs';
import { availableBuilders, findProgram, inspectToolchain } from './toolchain.mjs';

const required = Boolean(process.env.GAVEL_REQUIRE_CUDA);
const cudaHome = process.env.CUDA_HOME ?? process.env.CUDA_PATH ?? '/usr/local/cuda';

function skip(reason) {
  console.log(`skipped: no device (${reason})`);
  process.exitCode = required ? 1 : 0;
}

const args = process.argv.slice(2);
const unknown = args.find((arg) => arg.startsWith('--') && !['--emulated', '--sanitize'].includes(arg));
if (unknown !== undefined) {
  const usage =
    'npm run test:cuda -- [--emulated | --sanitize memcheck|racecheck|initcheck|synccheck] [filter of test names]';
  if (unknown !== '--help') console.error(`Unknown option '${unknown}'`);
  console.log(usage);
  process.exit(unknown === '--help' ? 0 : 2);
}
const emulatedAt = args.indexOf('--emulated');
if (emulatedAt !== -1) args.splice(emulatedAt, 1);
const sanitizeAt = args.indexOf('--sanitize');
const sanitize = sanitizeAt === -1 ? undefined : args.splice(sanitizeAt, 2)[1];

function runTests(name, options, tools) {
  configureCMake('build-cmake', options, tools);
  buildCMake('build-cmake', [name], tools);
  const program = join(projectRoot, 'build-cmake/Release', name);
  const command = [program, ...args];
  if (sanitize !== undefined) {
    const sanitizer = findProgram(undefined, 'compute-sanitizer', join(cudaHome, 'bin/compute-sanitizer'));
    if (!sanitizer) throw new Error('Expected compute-sanitizer but found none. It comes with the CUDA toolkit.');
    command.unshift(sanitizer, '--tool', sanitize, '--error-exitcode', '1');
  }
  const { status } = spawnSync(command[0], command.slice(1), { cwd: projectRoot, stdio: 'inherit' });
  process.exitCode = status ?? 1;
}

async function runEmulated(tools) {
  configureCMake('build-cmake', {}, tools);
  buildCMake('build-cmake', ['gavel', 'gavel_emulated_tests', 'gavel_cuda_emulated'], tools);
  const release = join(projectRoot, 'build-cmake/Release');
  const kernels = await runProgram(join(release, 'gavel_emulated_tests'), args);
  const env = { GAVEL_NATIVE: join(release, 'gavel.node'), GAVEL_REQUIRE_CUDA: '1' };
  const engine = runVitest('addon', ['test/addon/cuda-engine.test.ts'], env);
  const { passed, failed } = sumCounts([kernels, engine]);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
}

const tools = inspectToolchain();
const nvcc = findProgram(process.env.CUDACXX, 'nvcc', join(cudaHome, 'bin/nvcc'));
const cmake = availableBuilders(tools).includes('cmake');
if (emulatedAt === -1 && !nvcc) skip('the CUDA plugin is not built here: no CUDA compiler');
else if (!cmake) skip('the CUDA plugin is not built here: no CMake');
else {
  try {
    if (emulatedAt === -1) runTests('gavel_cuda_tests', { GAVEL_CUDA: 'ON' }, tools);
    else await runEmulated(tools);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
