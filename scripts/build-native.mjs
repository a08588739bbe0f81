// Builds the native addon with the best builder there is (CMake, node-gyp, plain compiler) and stamps the result with
// the build id, so that the next run has nothing to do. Runs in a checkout and in an installed package alike.
// Usage: node scripts/build-native.mjs [--builder cmake|gyp|plain] [--force]
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildId, hashFiles } from './build-id.mjs';
import { buildPlain } from './build-plain.mjs';
import { runNodeGyp } from './gyp.mjs';
import { projectRoot } from './sources.mjs';
import { availableBuilders, inspectToolchain, installPlan } from './toolchain.mjs';

/** Where each builder leaves the addon, in the loader's order. */
export const addonPaths = {
  cmake: 'build-cmake/Release/gavel.node',
  gyp: 'build/Release/gavel.node',
  plain: 'build-plain/gavel.node',
};

const jobs = () => Math.max(1, Number(process.env.GAVEL_JOBS) || availableParallelism());
const stampOf = (builder) => join(projectRoot, `${addonPaths[builder]}.stamp`);
const currentStamp = () =>
  `${buildId()} ${hashFiles(['CMakeLists.txt', 'binding.gyp', 'scripts/build-plain.mjs']).slice(0, 16)}`;

function isCurrent(builder, stamp) {
  const addon = join(projectRoot, addonPaths[builder]);
  return existsSync(addon) && existsSync(stampOf(builder)) && readFileSync(stampOf(builder), 'utf8') === stamp;
}

/** The builder whose addon the loader will find and which is up to date, or undefined. */
export function currentBuilder() {
  const stamp = currentStamp();
  const first = Object.keys(addonPaths).find((builder) => existsSync(join(projectRoot, addonPaths[builder])));
  return first !== undefined && isCurrent(first, stamp) ? first : undefined;
}

function run(program, args) {
  const { status, error } = spawnSync(program, args, { cwd: projectRoot, stdio: ['ignore', 'inherit', 'inherit'] });
  if (error) throw error;
  if (status !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${status}`);
}

// A cache from another folder or of a generator that is gone would fail with a message about neither.
function dropForeignCache(folder, tools) {
  const path = join(projectRoot, folder, 'CMakeCache.txt');
  if (!existsSync(path)) return;
  const cache = readFileSync(path, 'utf8');
  const value = (key) => new RegExp(`^${key}:[A-Z]+=(.*)$`, 'm').exec(cache)?.[1];
  const generator = tools.ninja ? 'Ninja' : 'Unix Makefiles';
  if (value('CMAKE_HOME_DIRECTORY') !== projectRoot || value('CMAKE_GENERATOR') !== generator) {
    rmSync(join(projectRoot, folder), { recursive: true });
  }
}

/** Configures `folder` with cmake-js where it is installed (a checkout), else with plain CMake. */
export function configureCMake(folder, definitions = {}, tools = inspectToolchain()) {
  dropForeignCache(folder, tools);
  const generator = tools.ninja ? 'Ninja' : 'Unix Makefiles';
  let cmakeJs;
  try {
    cmakeJs = createRequire(join(projectRoot, 'package.json')).resolve('cmake-js/package.json');
  } catch {
    cmakeJs = undefined;
  }
  if (cmakeJs) {
    const defines = Object.entries(definitions).map(([key, value]) => `--CD${key}=${value}`);
    const entry = join(dirname(cmakeJs), 'bin/cmake-js');
    run(process.execPath, [entry, 'configure', '--log-level=error', '-O', folder, '-G', generator, ...defines]);
  } else {
    const defines = Object.entries(definitions).map(([key, value]) => `-D${key}=${value}`);
    run(tools.cmake, ['-S', '.', '-B', folder, '-G', generator, ...defines]);
  }
}

/** Builds `targets` of a configured folder. */
export function buildCMake(folder, targets = ['all'], tools = inspectToolchain()) {
  run(tools.cmake, ['--build', folder, '--parallel', String(jobs()), '--target', ...targets]);
}

const builders = {
  cmake: (tools) => {
    configureCMake('build-cmake', {}, tools);
    buildCMake('build-cmake', ['all'], tools);
  },
  gyp: () => {
    const status = runNodeGyp(['rebuild', '--jobs', String(jobs())]);
    if (status !== 0) throw new Error(`node-gyp ended with ${status}`);
  },
  plain: () => buildPlain(),
};

/** Builds with `builder` (default: the best available). Throws with what to do when the machine lacks a compiler. */
export async function buildNative({ builder, force = false } = {}) {
  const stamp = currentStamp();
  if (!force && builder === undefined && currentBuilder() !== undefined)
    return { builder: currentBuilder(), built: false };
  if (!force && builder !== undefined && isCurrent(builder, stamp)) return { builder, built: false };
  const tools = inspectToolchain();
  const available = availableBuilders(tools);
  const chosen = builder ?? available[0];
  if (chosen === undefined || !available.includes(chosen)) {
    const plan = installPlan(tools);
    const wanted = chosen === undefined ? 'a C++ compiler (g++ >= 10)' : `what the ${chosen} build needs`;
    throw new Error(`Expected ${wanted} on this machine but found none.${plan ? ` Type: ${plan.line}` : ''}`);
  }
  rmSync(stampOf(chosen), { force: true });
  await builders[chosen](tools);
  mkdirSync(dirname(stampOf(chosen)), { recursive: true });
  writeFileSync(stampOf(chosen), stamp);
  // The loader takes the first addon it finds: one of older sources must not stand before this one.
  for (const other of Object.keys(addonPaths)) {
    if (other !== chosen && !isCurrent(other, stamp)) rmSync(join(projectRoot, addonPaths[other]), { force: true });
  }
  return { builder: chosen, built: true };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const at = process.argv.indexOf('--builder');
  try {
    const builder = at === -1 ? undefined : process.argv[at + 1];
    const result = await buildNative({ builder, force: process.argv.includes('--force') });
    console.log(`${result.built ? 'built' : 'up to date'}: ${addonPaths[result.builder]}`);
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
