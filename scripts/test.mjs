// Every tier that needs no device, then the sum: `npm test` after set-up.
// Usage: node scripts/test.mjs [tier ...]   (unit, addon, numerics, process, package, native; default: all)
import { join } from 'node:path';
import { sumCounts } from './counts.mjs';
import { runProgram, runVitest } from './run-tests.mjs';
import { projectRoot } from './sources.mjs';

const vitestTiers = ['unit', 'addon', 'numerics', 'process', 'package'];
const allTiers = ['native', ...vitestTiers];

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
    const native = [join(projectRoot, 'scripts/test-native.mjs')];
    const counts = tier === 'native' ? await runProgram(process.execPath, native) : runVitest(tier);
    rows.push({ tier, ...counts, seconds: (performance.now() - startedMs) / 1000 });
  }
  console.log('');
  for (const { tier, passed, failed, skipped = 0, seconds } of rows) {
    console.log(
      `${tier.padEnd(10)} ${String(passed).padStart(5)} passed ${String(failed).padStart(4)} failed ${seconds.toFixed(1).padStart(7)} s${skipped > 0 ? `, ${skipped} skipped` : ''}`,
    );
  }
  const { passed, failed } = sumCounts(rows);
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
}
