import { describe, expect, it } from 'vitest';
import { summaryProblems } from '../../scripts/check-summary.mjs';
import { countsOfReport, readCounts, sumCounts } from '../../scripts/counts.mjs';

const stage = {
  name: 'grpo',
  accuracy: 0.8,
  accuracyLow: 0.75,
  accuracyHigh: 0.85,
  unseenArtistAccuracy: 0.7,
  directAccuracy: null,
  formatRate: 1,
  orderConsistency: 0.9,
  seconds: 10,
  tokensPerSecond: 100,
};
const summary = { stages: [stage], peakMemoryBytes: 5e8, wallSeconds: 12, commit: null };

describe('the check of summary.json', () => {
  it('accepts a sane summary', () => {
    expect(summaryProblems(summary)).toEqual([]);
  });

  it.each([
    ['no stages', { ...summary, stages: [] }, 'at least one stage'],
    ['a rate above 1', { ...summary, stages: [{ ...stage, formatRate: 1.2 }] }, 'grpo.formatRate'],
    ['a rate left out', { ...summary, stages: [{ ...stage, orderConsistency: undefined }] }, 'orderConsistency'],
    ['an accuracy outside its interval', { ...summary, stages: [{ ...stage, accuracyLow: 0.9 }] }, 'own interval'],
    ['NaN seconds', { ...summary, stages: [{ ...stage, seconds: NaN }] }, 'grpo.seconds'],
    ['a stage twice', { ...summary, stages: [stage, stage] }, 'every stage once'],
    ['no accuracy anywhere', { ...summary, stages: [{ ...stage, accuracy: null }] }, 'measured accuracy'],
    ['stages longer than the run', { ...summary, wallSeconds: 3 }, 'within wallSeconds'],
    ['no memory', { ...summary, peakMemoryBytes: 0 }, 'peakMemoryBytes'],
  ])('refuses %s', (_what, broken, text) => {
    expect(summaryProblems(broken).join('\n')).toContain(text);
  });
});

describe('counts', () => {
  it('reads the last line of a tier and sums', () => {
    expect(readCounts('1 passed, 2 failed\nx\n30 passed, 0 failed\n')).toEqual({ passed: 30, failed: 0 });
    expect(readCounts('nothing')).toBeUndefined();
    expect(
      sumCounts([
        { passed: 1, failed: 2 },
        { passed: 3, failed: 0 },
      ]),
    ).toEqual({ passed: 4, failed: 2 });
  });

  it('counts a file that did not load as a failure', () => {
    const report = {
      numPassedTests: 2,
      numFailedTests: 0,
      numPendingTests: 3,
      testResults: [
        { status: 'passed', assertionResults: [{}, {}] },
        { status: 'failed', assertionResults: [] },
      ],
    };
    expect(countsOfReport(report)).toEqual({ passed: 2, failed: 1, skipped: 3 });
  });
});
