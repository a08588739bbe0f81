// clang-format over the native sources: rewrites them, or with --check lists those that differ.
// The binary comes from the clang-format package, so that every machine formats alike.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './sources.mjs';
import { findProgram } from './toolchain.mjs';

const packaged = join(
  projectRoot,
  'node_modules/clang-format/bin',
  `${process.platform}_${process.arch}`,
  'clang-format',
);
const program = existsSync(packaged) ? packaged : findProgram('clang-format');
const files = ['native', 'bench/native']
  .filter((folder) => existsSync(join(projectRoot, folder)))
  .flatMap((folder) => readdirSync(join(projectRoot, folder), { withFileTypes: true, recursive: true }))
  .filter((entry) => entry.isFile() && /\.(cpp|h|cu|cuh)$/.test(entry.name))
  .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
  .sort();

if (!program) {
  console.error('Expected clang-format in node_modules or on PATH but found none. Run: npm ci');
  process.exitCode = 1;
} else {
  const mode = process.argv.includes('--check') ? ['--dry-run', '--Werror'] : ['-i'];
  const { status } = spawnSync(program, ['--style=file', ...mode, ...files], { cwd: projectRoot, stdio: 'inherit' });
  process.exitCode = status ?? 1;
}
