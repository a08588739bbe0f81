// Counts of a test run: every tier ends with "N passed, N failed", and the sums are made of those.

/** The last "N passed, N failed" of a text, or undefined. */
export function readCounts(text) {
  const all = [...text.matchAll(/(\d+) passed, (\d+) failed/g)];
  const last = all.at(-1);
  return last === undefined ? undefined : { passed: Number(last[1]), failed: Number(last[2]) };
}

/** Tests of vitest's JSON report; a file that did not load counts as one failure. */
export function countsOfReport(report) {
  const brokenFiles = report.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  );
  const skipped = report.numPendingTests + (report.numTodoTests ?? 0);
  return { passed: report.numPassedTests, failed: report.numFailedTests + brokenFiles.length, skipped };
}

export function sumCounts(rows) {
  return rows.reduce((sum, row) => ({ passed: sum.passed + row.passed, failed: sum.failed + row.failed }), {
    passed: 0,
    failed: 0,
  });
}
