// Runs test programs and counts what passed, whoever reports it.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { countsOfReport, readCounts } from './counts.mjs';
import { projectRoot } from './sources.mjs';

/**
 * A vitest project, or the files of it that `filters` name.
 * @returns {{ passed: number, failed: number }}
 */
export function runVitest(tier, filters = [], env = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'gavel-test-'));
  const reportPath = join(folder, 'report.json');
  const args = [
    join(projectRoot, 'node_modules/vitest/vitest.mjs'),
    'run',
    '--project',
    tier,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${reportPath}`,
    ...filters,
  ];
  const { status } = spawnSync(process.execPath, args, {
    cwd: projectRoot,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  try {
    const counts = countsOfReport(JSON.parse(readFileSync(reportPath, 'utf8')));
    // vitest also fails on errors outside any test, which its report does not count.
    if (status !== 0 && counts.failed === 0) counts.failed = 1;
    return counts;
  } catch {
    return { passed: 0, failed: 1 };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/**
 * A program that ends with "N passed, N failed".
 * @returns {Promise<{ passed: number, failed: number }>}
 */
export function runProgram(command, args) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: projectRoot, stdio: ['ignore', 'pipe', 'inherit'] });
    let text = '';
    child.stdout.on('data', (chunk) => {
      process.stdout.write(chunk);
      text += chunk;
    });
    child.on('close', (code) => {
      const counts = readCounts(text) ?? { passed: 0, failed: 1 };
      if (code !== 0 && counts.failed === 0) counts.failed = 1;
      resolve(counts);
    });
  });
}
