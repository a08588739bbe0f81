// What this machine can build with: compiler, make or ninja, CMake, Python for node-gyp; and the one line that
// installs what is missing through the system's package manager. No dependencies: this runs before `npm ci`.
import { spawnSync } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { projectRoot } from './sources.mjs';

/** Absolute path of the first of `names` that is an executable file on PATH, or undefined. */
export function findProgram(...names) {
  for (const name of names) {
    if (!name) continue;
    const candidates = name.includes('/')
      ? [name]
      : (process.env.PATH ?? '').split(delimiter).map((d) => join(d, name));
    for (const candidate of candidates) {
      try {
        accessSync(candidate, constants.X_OK);
        return candidate;
      } catch {
        // Not in this folder of PATH.
      }
    }
  }
  return undefined;
}

function versionOf(program, args, pattern) {
  const { stdout, status } = spawnSync(program, args, { encoding: 'utf8' });
  const match = status === 0 ? pattern.exec(stdout) : null;
  return match ? match.slice(1).map(Number) : undefined;
}

const atLeast = (version, wanted) =>
  version !== undefined &&
  (version[0] > wanted[0] || (version[0] === wanted[0] && (version[1] ?? 0) >= (wanted[1] ?? 0)));

/** The C++ compiler: $CXX, else g++ (10 or newer), else clang++ (12 or newer). */
export function findCompiler() {
  if (process.env.CXX) return findProgram(process.env.CXX);
  const gcc = findProgram('g++');
  if (gcc && atLeast(versionOf(gcc, ['-dumpfullversion', '-dumpversion'], /^(\d+)(?:\.(\d+))?/), [10])) return gcc;
  const clang = findProgram('clang++');
  if (clang && atLeast(versionOf(clang, ['-dumpversion'], /^(\d+)(?:\.(\d+))?/), [12])) return clang;
  return undefined;
}

/** node-gyp's entry file: the project's own, else the one npm brings along and names in the environment. */
export function findNodeGyp() {
  try {
    return createRequire(join(projectRoot, 'package.json')).resolve('node-gyp/bin/node-gyp.js');
  } catch {
    return process.env.npm_config_node_gyp;
  }
}

/** Everything the three builders need, each entry a path or undefined. */
export function inspectToolchain() {
  const cmake = findProgram('cmake');
  const python = findProgram(process.env.PYTHON, 'python3');
  return {
    compiler: findCompiler(),
    make: findProgram('make'),
    ninja: findProgram('ninja'),
    cmake: cmake && atLeast(versionOf(cmake, ['--version'], /version (\d+)\.(\d+)/), [3, 22]) ? cmake : undefined,
    python: python && atLeast(versionOf(python, ['--version'], /Python (\d+)\.(\d+)/), [3, 8]) ? python : undefined,
    nodeGyp: findNodeGyp(),
  };
}

/** The builders that can run here, best first. The loader looks for their results in the same order. */
export function availableBuilders(tools = inspectToolchain()) {
  if (!tools.compiler) return [];
  const builders = [];
  if (tools.cmake && (tools.ninja || tools.make)) builders.push('cmake');
  if (tools.nodeGyp && tools.python && tools.make) builders.push('gyp');
  builders.push('plain');
  return builders;
}

const managers = [
  { program: 'apt-get', install: ['install', '-y', '--no-install-recommends'], refresh: ['update'], compiler: 'g++' },
  { program: 'dnf', install: ['install', '-y'], compiler: 'gcc-c++' },
  { program: 'yum', install: ['install', '-y'], compiler: 'gcc-c++' },
  { program: 'zypper', install: ['--non-interactive', 'install'], compiler: 'gcc-c++' },
  { program: 'pacman', install: ['-S', '--noconfirm', '--needed'], refresh: ['-Sy'], compiler: 'gcc' },
  { program: 'apk', install: ['add'], compiler: 'g++' },
];

/** Names of the packages this machine lacks for the CMake build, or [] when it lacks nothing. */
export function missingPackages(tools, compilerPackage) {
  const missing = [];
  if (!tools.compiler) missing.push(compilerPackage);
  if (!tools.make && !tools.ninja) missing.push('make');
  if (!tools.cmake) missing.push('cmake');
  return missing;
}

/**
 * How this machine installs what it lacks: `{ packages, commands, line, allowed }`, where `line` is what a person types
 * and `allowed` says whether we may run the commands ourselves (root, or sudo that asks no password). Undefined when
 * nothing is missing; without a known package manager `commands` is empty.
 */
export function installPlan(tools = inspectToolchain()) {
  const manager = managers.find(({ program }) => findProgram(program));
  const packages = missingPackages(tools, manager?.compiler ?? 'g++');
  if (packages.length === 0) return undefined;
  if (!manager) {
    return {
      packages,
      commands: [],
      line: `install ${packages.join(', ')} with your system's package manager`,
      allowed: false,
    };
  }
  const root = process.getuid?.() === 0;
  const prefix = root ? [] : ['sudo'];
  const commands = [manager.refresh, [...manager.install, ...packages]]
    .filter((args) => args !== undefined)
    .map((args) => [...prefix, manager.program, ...args]);
  const line = commands.map((command) => command.join(' ')).join(' && ');
  const allowed = root || (findProgram('sudo') !== undefined && spawnSync('sudo', ['-n', 'true']).status === 0);
  return { packages, commands, line, allowed };
}
