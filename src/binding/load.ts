/**
 * Finds and loads the native addon, on first use and never on import. Order: the path in GAVEL_NATIVE (a demand: nothing
 * else is tried), the prebuilt package of this platform, then the local builds of CMake, node-gyp and the plain compiler.
 * Every failure is kept; one error lists them all.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { GavelError } from '../errors.js';
import type { NativeModule } from './contract.js';

/** The package's root folder: both src/binding and dist/binding lie two below it. */
export const packageRoot = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Where the builds leave the addon, best first; scripts/build-native.mjs writes them. */
export const localBuilds = ['build-cmake/Release/gavel.node', 'build/Release/gavel.node', 'build-plain/gavel.node'];

/** Platforms with kernels: x64 is tested, arm64 takes the generic path. */
export const supportedPlatforms = ['linux-x64', 'linux-arm64'];

export interface LoadOptions {
  /** Folder whose local builds are tried. Default: this package's root. */
  root?: string;
  /** Read for GAVEL_NATIVE. Default: process.env. */
  env?: Readonly<Record<string, string | undefined>>;
  /** Default: this machine's, as `<platform>-<arch>`. */
  platform?: string;
}

interface Failure {
  candidate: string;
  cause: string;
}

const require = createRequire(import.meta.url);

function causeOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (/GLIBC(XX)?_/.test(text)) return `${text} (built for a newer system; build it here)`;
  return text.split('\n', 1)[0] ?? text;
}

function tryPrebuilt(name: string): NativeModule | Failure {
  try {
    return require(name) as NativeModule;
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND';
    return { candidate: name, cause: missing ? 'the package is not installed' : causeOf(error) };
  }
}

function tryFile(path: string): NativeModule | Failure {
  if (!existsSync(path)) return { candidate: path, cause: 'no such file' };
  try {
    return require(path) as NativeModule;
  } catch (error) {
    return { candidate: path, cause: causeOf(error) };
  }
}

const isFailure = (value: NativeModule | Failure): value is Failure => 'candidate' in value && 'cause' in value;

function binaryMissing(failures: readonly Failure[], advice: string): GavelError {
  const lines = failures.map(({ candidate, cause }) => `  ${candidate}: ${cause}`).join('\n');
  return new GavelError(
    'binary_missing',
    `Expected a native addon that loads but found none. ${advice}\nTried:\n${lines}`,
    {
      fields: Object.fromEntries(failures.map(({ candidate, cause }) => [candidate, cause])),
    },
  );
}

/**
 * The native module, loaded once per process by Node's own module cache; a failure is not cached.
 * Errors: 'unsupported' on a platform without kernels, 'binary_missing' with every candidate, its cause, and the fix.
 */
export function loadNative(options: LoadOptions = {}): NativeModule {
  const { root = packageRoot, env = process.env, platform = `${process.platform}-${process.arch}` } = options;
  if (!supportedPlatforms.includes(platform)) {
    throw new GavelError(
      'unsupported',
      `Expected one of ${supportedPlatforms.join(', ')} for \`platform\` but received ${JSON.stringify(platform)}. ` +
        'Run it on Linux, for example in a container.',
      { fields: { platform } },
    );
  }
  const demanded = env.GAVEL_NATIVE;
  if (demanded !== undefined && demanded !== '') {
    const loaded = tryFile(resolve(demanded));
    if (!isFailure(loaded)) return loaded;
    throw binaryMissing([loaded], 'Correct or unset GAVEL_NATIVE, or build the addon with `npx gavel setup`.');
  }
  const failures: Failure[] = [];
  const prebuilt = tryPrebuilt(`@gavel-rl/${platform}`);
  if (!isFailure(prebuilt)) return prebuilt;
  failures.push(prebuilt);
  for (const build of localBuilds) {
    const loaded = tryFile(join(root, build));
    if (!isFailure(loaded)) return loaded;
    failures.push(loaded);
  }
  throw binaryMissing(failures, 'Run `npx gavel setup` to build it on this machine.');
}
