// Every tier that needs no device, then the sum: `npm test` after set-up.
// Usage: node scripts/test.mjs [tier ...]   (unit, addon, numerics, process, package, native; default: all)
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { countsOfReport, readCounts, sumCounts } from './counts.mjs';
import { projectRoot } from './sources.mjs';

const vitestTiers = ['unit', 'addon', 'numerics', 'process', 'package'];
const allTiers = ['native', ...vitestTiers];

function runVitest(tier) {
  const folder = mkdtempSync(join(tmpdir(), 'gavel-test-'));
  const reportPath = join(folder, 'report.json');
  const entry = join(projectRoot, 'node_modules/vitest/vitest.mjs');
  const args = [
    entry,
    'run',
    '--project',
    tier,
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${reportPath}`,
  ];
  const { status } = spawnSync(process.execPath, args, { cwd: projectRoot, stdio: ['ignore', 'inherit', 'inherit'] });
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

function runNative() {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(projectRoot, 'scripts/test-native.mjs')], {
      cwd: projectRoot,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
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

const asked = process.argv.slice(2);
const unknown = asked.find((tier) => !allTiers.includes(tier));
if (unknown !== undefined) {
  console.error(`Expected one of ${allTiers.join(', ')} for \`tier\` but received ${JSON.stringify(unknown)}.`);
  process.exitCode = 1;
} else {
  const rows = [];
  for (const tier of asked.length > 0 ? asked : allTiers) {
    console.log(`\n== ${tier}`);
    const startedMs = performance.now();
    const counts = tier === 'native' ? await runNative() : runVitest(tier);
    rows.push({ tier, ...counts, seconds: (performance.now() - startedMs) / 1000 });
  }
  console.log('');
  for (const { tier, passed, failed, seconds } of rows) {
    console.log(
      `${tier.padEnd(10)} ${String(passed).padStart(5)} passed ${String(failed).padStart(4)} failed ${seconds.toFixed(1).padStart(7)} s`,
    );
  }
  const { passed, failed } = sumCounts(rows);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
}
