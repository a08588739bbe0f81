// The smallest build: the C++ compiler over native/sources.json, for machines with neither CMake nor node-gyp.
// Objects are kept with their dependency lists, so a second run compiles only what changed.
// Usage: node scripts/build-plain.mjs [--native-tests]
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeBuildIdHeader } from './build-id.mjs';
import { projectRoot, readSources } from './sources.mjs';
import { findCompiler } from './toolchain.mjs';

const output = join(projectRoot, 'build-plain');
const flags = [
  ...['-std=gnu++20', '-O3', '-DNDEBUG', '-fPIC', '-pthread', '-fvisibility=hidden', '-fvisibility-inlines-hidden'],
  ...['-ffp-contract=off', '-fno-math-errno', '-Wall', '-Wextra'],
  ...['-Wno-uninitialized', '-Wno-maybe-uninitialized'],
];
const addonDefines = [
  ...['NAPI_VERSION=8', 'NAPI_CPP_EXCEPTIONS', 'NODE_ADDON_API_CPP_EXCEPTIONS_ALL'],
  ...['NODE_GYP_MODULE_NAME=gavel', 'BUILDING_NODE_EXTENSION'],
].map((define) => `-D${define}`);

function run(program, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: projectRoot, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} ${args.join(' ')} ended with ${code}`)),
    );
  });
}

function nodeApiIncludes() {
  const require = createRequire(join(projectRoot, 'package.json'));
  const addonApi = dirname(require.resolve('node-addon-api/package.json'));
  const headers = require('node-api-headers').include_dir;
  return ['-isystem', addonApi, '-isystem', headers];
}

// An object is current when it is newer than every file its compilation read and was made by the same command.
function isCurrent(object, command) {
  const dependencies = `${object}.d`;
  if (!existsSync(object) || !existsSync(dependencies) || !existsSync(`${object}.cmd`)) return false;
  if (readFileSync(`${object}.cmd`, 'utf8') !== command) return false;
  const builtMs = statSync(object).mtimeMs;
  const files = readFileSync(dependencies, 'utf8')
    .replace(/^[^:]*:/, '')
    .replace(/\\\n/g, ' ')
    .trim()
    .split(/\s+/);
  return files.every((file) => {
    const path = file.startsWith('/') ? file : join(projectRoot, file);
    return existsSync(path) && statSync(path).mtimeMs <= builtMs;
  });
}

async function compile(compiler, source, extra) {
  const object = join(output, 'objects', `${source.replaceAll('/', '_')}.o`);
  const args = [...flags, ...extra, '-Inative', `-I${join(output, 'generated')}`];
  const command = [compiler, ...args].join(' ');
  if (!isCurrent(object, command)) {
    console.log(`  compiling ${source}`);
    await run(compiler, [...args, '-MMD', '-MF', `${object}.d`, '-c', source, '-o', object]);
    writeFileSync(`${object}.cmd`, command);
  }
  return object;
}

async function compileAll(compiler, jobs) {
  const objects = new Array(jobs.length);
  let next = 0;
  const worker = async () => {
    while (next < jobs.length) {
      const index = next++;
      objects[index] = await compile(compiler, jobs[index].source, jobs[index].extra);
    }
  };
  const width = Math.max(1, Number(process.env.GAVEL_JOBS) || availableParallelism());
  await Promise.all(Array.from({ length: width }, worker));
  return objects;
}

/** Builds build-plain/gavel.node, or build-plain/gavel_native_tests; resolves to its path. */
export async function buildPlain({ nativeTests = false } = {}) {
  const compiler = findCompiler();
  if (!compiler) throw new Error('Expected a C++ compiler (g++ >= 10 or clang++ >= 12) but found none.');
  mkdirSync(join(output, 'objects'), { recursive: true });
  writeBuildIdHeader(join(output, 'generated/gavel_build_id.h'));
  const sources = readSources();
  const jobs = sources.core_sources.map((source) => ({ source, extra: [] }));
  if (nativeTests) jobs.push(...sources.test_sources.map((source) => ({ source, extra: [] })));
  else {
    const extra = [...addonDefines, ...nodeApiIncludes()];
    jobs.push(...sources.binding_sources.map((source) => ({ source, extra })));
  }
  const objects = await compileAll(compiler, jobs);
  const target = join(output, nativeTests ? 'gavel_native_tests' : 'gavel.node');
  // Linked under another name and renamed: a process that has the old binary open keeps it whole.
  await run(compiler, [...(nativeTests ? [] : ['-shared']), '-pthread', '-o', `${target}.new`, ...objects, '-ldl']);
  renameSync(`${target}.new`, target);
  return target;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    console.log(await buildPlain({ nativeTests: process.argv.includes('--native-tests') }));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
