// The native tests: built from the addon's own objects and run; ends with "N passed, N failed".
// Usage: node scripts/test-native.mjs [--sanitize address,undefined|thread] [test filter]
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { buildCMake, configureCMake } from './build-native.mjs';
import { buildPlain } from './build-plain.mjs';
import { projectRoot } from './sources.mjs';
import { availableBuilders, inspectToolchain } from './toolchain.mjs';

async function buildTests(sanitize) {
  const tools = inspectToolchain();
  if (!availableBuilders(tools).includes('cmake')) {
    if (sanitize) throw new Error('Expected CMake for a sanitizer build but found none. Run: npm run setup');
    return buildPlain({ nativeTests: true });
  }
  const folder = sanitize ? `build-${sanitize.replaceAll(',', '-')}` : 'build-cmake';
  configureCMake(
    folder,
    sanitize ? { GAVEL_SANITIZE: sanitize, GAVEL_NODE_ADDON: 'OFF', GAVEL_CUDA: 'OFF' } : {},
    tools,
  );
  buildCMake(folder, ['gavel_native_tests'], tools);
  return join(projectRoot, folder, 'Release/gavel_native_tests');
}

const args = process.argv.slice(2);
const at = args.indexOf('--sanitize');
const sanitize = at === -1 ? undefined : args.splice(at, 2)[1];
try {
  const program = await buildTests(sanitize);
  const env = { ...process.env, UBSAN_OPTIONS: 'print_stacktrace=1', ASAN_OPTIONS: 'detect_leaks=1' };
  const { status, signal } = spawnSync(program, args, { cwd: projectRoot, stdio: 'inherit', env });
  if (signal) console.error(`gavel_native_tests was ended by ${signal}`);
  process.exitCode = status ?? 1;
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
