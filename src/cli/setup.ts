/**
 * `gavel setup`: builds the native addon inside an installed package with whatever the machine has (CMake, node-gyp or
 * the plain compiler). The package runs no install script, so this is how a dependency gets its binary.
 * Light on purpose: it must run where nothing else of the package does yet.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { join } from 'node:path';
import { loadNative, packageRoot } from '../binding/load.js';
import { expected, GavelError } from '../errors.js';

/** The builders in the order they are tried; 'gyp' is node-gyp. */
export const builders = ['cmake', 'gyp', 'plain'] as const;
export type Builder = (typeof builders)[number];

export interface SetupOptions {
  /** Use this builder and no other. Default: the best one available. */
  builder?: string;
  /** Build again even when the present binary is up to date. Default: false. */
  force?: boolean;
}

function checkWritable(folder: string): void {
  try {
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    throw new GavelError(
      'permission_denied',
      `Expected a writable folder for \`package\` but received ${JSON.stringify(folder)}. ` +
        'Run the command as the user who installed the package.',
      { fields: { folder }, cause },
    );
  }
}

/**
 * Builds the addon and proves that it loads. Resolves to nothing; throws GavelError with 'invalid_argument' (unknown
 * builder), 'permission_denied' (package folder), 'binary_missing' (the build failed, its output is on the terminal).
 */
export function runSetup(options: SetupOptions = {}): void {
  const { builder, force = false } = options;
  if (builder !== undefined && !(builders as readonly string[]).includes(builder)) {
    throw expected(
      'invalid_argument',
      'builder',
      `one of ${builders.join(', ')}`,
      builder,
      'Leave it out to use the best.',
    );
  }
  const script = join(packageRoot, 'scripts/build-native.mjs');
  if (!existsSync(script)) {
    throw new GavelError(
      'binary_missing',
      `Expected ${script} in the package but found none. Install the package again.`,
    );
  }
  checkWritable(packageRoot);
  const args = [script, ...(builder === undefined ? [] : ['--builder', builder]), ...(force ? ['--force'] : [])];
  const { status } = spawnSync(process.execPath, args, { stdio: 'inherit' });
  if (status !== 0) {
    throw new GavelError(
      'binary_missing',
      'The native build failed; its output is above. Mend that and run `npx gavel setup` again.',
      {
        fields: { exitCode: status },
      },
    );
  }
  loadNative();
}
