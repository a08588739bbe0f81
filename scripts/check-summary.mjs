// Sanity of a quickstart's summary.json: shape, ranges, stage order. Says nothing about how good the judge is.
// Usage: node scripts/check-summary.mjs RUN_FOLDER
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const rates = [
  'accuracy',
  'accuracyLow',
  'accuracyHigh',
  'unseenArtistAccuracy',
  'directAccuracy',
  'formatRate',
  'orderConsistency',
];

/** What is wrong with a summary, a sentence each; [] when nothing is. */
export function summaryProblems(summary) {
  const problems = [];
  const expectThat = (holds, text) => {
    if (!holds) problems.push(text);
  };
  const isNumber = (value) => typeof value === 'number' && Number.isFinite(value);
  const stages = Array.isArray(summary.stages) ? summary.stages : [];
  expectThat(stages.length > 0, 'Expected at least one stage but received none.');
  for (const stage of stages) {
    const name = stage.name;
    expectThat(typeof name === 'string' && name !== '', 'Expected a name for every stage.');
    for (const key of rates) {
      const value = stage[key];
      const holds = value === null || (isNumber(value) && value >= 0 && value <= 1);
      expectThat(holds, `Expected a rate in [0, 1] or null for ${name}.${key} but received ${value}.`);
    }
    if (isNumber(stage.accuracy)) {
      const inside = stage.accuracyLow <= stage.accuracy && stage.accuracy <= stage.accuracyHigh;
      expectThat(inside, `Expected ${name}.accuracy inside its own interval.`);
    }
    expectThat(
      isNumber(stage.seconds) && stage.seconds > 0,
      `Expected ${name}.seconds > 0 but received ${stage.seconds}.`,
    );
    const speed = stage.tokensPerSecond;
    expectThat(
      speed === null || (isNumber(speed) && speed > 0),
      `Expected ${name}.tokensPerSecond > 0 but received ${speed}.`,
    );
  }
  expectThat(new Set(stages.map((stage) => stage.name)).size === stages.length, 'Expected every stage once.');
  expectThat(
    stages.some((stage) => isNumber(stage.accuracy)),
    'Expected a measured accuracy in at least one stage.',
  );
  expectThat(
    isNumber(summary.peakMemoryBytes) && summary.peakMemoryBytes > 1e6,
    'Expected peakMemoryBytes above 1 MB.',
  );
  const stageSeconds = stages.reduce((sum, stage) => sum + (isNumber(stage.seconds) ? stage.seconds : 0), 0);
  expectThat(isNumber(summary.wallSeconds), 'Expected a number for wallSeconds.');
  expectThat(
    stageSeconds <= summary.wallSeconds * 1.01 + 1,
    `Expected stage seconds (${stageSeconds}) within wallSeconds (${summary.wallSeconds}).`,
  );
  expectThat('commit' in summary, 'Expected the key commit (null outside a git checkout).');
  return problems;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = join(process.argv[2] ?? 'runs/quickstart', 'summary.json');
  const problems = summaryProblems(JSON.parse(readFileSync(path, 'utf8')));
  for (const problem of problems) console.error(problem);
  console.log(`${path}: ${problems.length === 0 ? 'sane' : `${problems.length} problems`}`);
  process.exitCode = problems.length === 0 ? 0 : 1;
}
