// Cases one after another: a failure costs its own rows, and how long it may take is said beforehand.

const minutes = (seconds) => Math.max(1, Math.round(seconds / 60));

/** Runs [{name, seconds, run}]; `seconds` is what a case may measure for, its start and warm-up not counted. Returns failures. */
export async function runCases(cases) {
  const planned = cases.reduce((sum, { seconds }) => sum + seconds, 0);
  console.log(`${cases.length} cases, up to about ${minutes(planned * 1.3)} minutes`);
  const started = performance.now();
  let failed = 0;
  for (const { name, run } of cases) {
    try {
      await run();
    } catch (error) {
      failed += 1;
      console.log(`  failed: ${name}: ${error.message}`);
    }
  }
  console.log(
    `${cases.length} cases took ${((performance.now() - started) / 60_000).toFixed(1)} minutes, ${failed} failed`,
  );
  return failed;
}
