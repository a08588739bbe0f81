// Everything between a fresh clone and a working checkout: compiler and CMake, npm packages, native build, TypeScript
// build. Each step is skipped when its stamp says nothing changed; a second run only reads. No dependencies.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createHash } from 'node:crypto';
import { hashFiles } from './build-id.mjs';
import { buildNative, currentBuilder } from './build-native.mjs';
import { projectRoot } from './sources.mjs';
import { inspectToolchain, installPlan } from './toolchain.mjs';

const at = (path) => join(projectRoot, path);
const startedMs = performance.now();

class SetupError extends Error {}

function say(text) {
  console.log(`setup: ${text}`);
}

function run(program, args, what) {
  const { status, error } = spawnSync(program, args, { cwd: projectRoot, stdio: ['ignore', 'inherit', 'inherit'] });
  if (error || status !== 0) throw new SetupError(`${what} failed (${error?.message ?? `exit code ${status}`}).`);
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < 20 || (major === 20 && minor < 17)) {
    throw new SetupError(`Expected Node.js >= 20.17 but this is ${process.versions.node}. Install a newer one.`);
  }
}

function prepareToolchain() {
  const plan = installPlan();
  if (!plan) return;
  if (plan.allowed) {
    say(`installing ${plan.packages.join(', ')}: ${plan.line}`);
    // A package list that cannot be refreshed may still do; the install decides.
    for (const [index, command] of plan.commands.entries()) {
      const { status } = spawnSync(command[0], command.slice(1), { stdio: ['ignore', 'inherit', 'inherit'] });
      if (status !== 0 && index === plan.commands.length - 1) break;
    }
  }
  const tools = inspectToolchain();
  if (!tools.compiler) {
    throw new SetupError(
      `Expected a C++ compiler (g++ >= 10) on this machine but found none. Type:\n\n  ${plan.line}\n`,
    );
  }
  const left = installPlan(tools);
  if (left) say(`${left.packages.join(', ')} not found, building without; for the full build type: ${left.line}`);
}

function lockHash() {
  return createHash('sha256')
    .update(readFileSync(at('package-lock.json')))
    .digest('hex');
}

// True when node_modules already holds what the lock file asks for, whoever installed it.
function installedMatchesLock() {
  if (!existsSync(at('node_modules/.package-lock.json'))) return false;
  const installed = JSON.parse(readFileSync(at('node_modules/.package-lock.json'), 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(at('package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(([path, { version, optional, devOptional }]) => {
    if (path === '' || installed[path] === undefined) return path === '' || optional === true || devOptional === true;
    return installed[path].version === version;
  });
}

function installPackages() {
  const stamp = at('node_modules/.gavel-lock');
  const hash = lockHash();
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  if (!installedMatchesLock()) {
    say('installing npm packages');
    const npm = process.env.npm_execpath;
    const args = ['ci', '--include=dev', '--include=optional', '--no-audit', '--no-fund'];
    if (npm?.endsWith('.js')) run(process.execPath, [npm, ...args], 'npm ci');
    else run('npm', args, 'npm ci');
  }
  writeFileSync(stamp, hash);
}

async function buildAddon() {
  if (currentBuilder() !== undefined) return;
  say('building the native addon (a few minutes the first time)');
  const { builder } = await buildNative();
  say(`native addon built with ${builder === 'plain' ? 'the plain compiler' : builder}`);
}

function sourceFiles(folder) {
  return readdirSync(at(folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(projectRoot.length + 1));
}

// tsc leaves the outputs of deleted sources behind, and a stale module would be published.
function removeOrphans() {
  for (const file of sourceFiles('dist')) {
    const source = file.replace(/^dist\//, 'src/').replace(/\.(js|js\.map|d\.ts)$/, '.ts');
    if (source.endsWith('.ts') && !existsSync(at(source))) rmSync(at(file));
  }
}

function buildTypeScript() {
  const stamp = at('dist/.stamp');
  const hash = hashFiles([...sourceFiles('src'), 'tsconfig.json', 'package-lock.json']);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return;
  say('compiling TypeScript');
  rmSync(stamp, { force: true });
  run(process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', 'tsconfig.json'], 'tsc');
  removeOrphans();
  if (existsSync(at('dist/cli/main.js'))) chmodSync(at('dist/cli/main.js'), 0o755);
  writeFileSync(stamp, hash);
}

try {
  checkNode();
  // Before `npm ci`, which takes long: a machine without a compiler hears of it at once.
  if (currentBuilder() === undefined) prepareToolchain();
  installPackages();
  await buildAddon();
  buildTypeScript();
  say(`ready (${((performance.now() - startedMs) / 1000).toFixed(1)} s)`);
} catch (error) {
  console.error(`setup: ${error instanceof SetupError ? error.message : (error.stack ?? String(error))}`);
  process.exitCode = 1;
}
