// The device tier: builds the CUDA plugin and its tests and runs them where there is a device, else prints
// "skipped: no device (reason)" and ends well. With GAVEL_REQUIRE_CUDA=1 a missing device is a failure.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildCMake, configureCMake } from './build-native.mjs';
import { projectRoot } from './sources.mjs';
import { availableBuilders, findProgram, inspectToolchain } from './toolchain.mjs';

const required = Boolean(process.env.GAVEL_REQUIRE_CUDA);

function skip(reason) {
  console.log(`skipped: no device (${reason})`);
  process.exitCode = required ? 1 : 0;
}

const tools = inspectToolchain();
const cudaHome = process.env.CUDA_HOME ?? process.env.CUDA_PATH ?? '/usr/local/cuda';
const nvcc = findProgram(process.env.CUDACXX, 'nvcc', join(cudaHome, 'bin/nvcc'));
if (!nvcc) skip('the CUDA plugin is not built here: no CUDA compiler');
else if (!availableBuilders(tools).includes('cmake')) skip('the CUDA plugin is not built here: no CMake');
else {
  try {
    configureCMake('build-cmake', { GAVEL_CUDA: 'ON' }, tools);
    buildCMake('build-cmake', ['gavel_cuda_tests'], tools);
    const program = join(projectRoot, 'build-cmake/Release/gavel_cuda_tests');
    const { status } = spawnSync(program, process.argv.slice(2), { cwd: projectRoot, stdio: 'inherit' });
    process.exitCode = status ?? 1;
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
