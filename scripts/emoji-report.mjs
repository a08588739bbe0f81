/**
 * Writes docs/experiments/emoji-judge.md from the summaries of finished quickstart runs of several seeds:
 *   node scripts/emoji-report.mjs RUN_FOLDER... > docs/experiments/emoji-judge.md
 * Every number comes from the runs' summary.json and config.json.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';

const folders = process.argv.slice(2);
if (folders.length < 2) {
  process.stderr.write(
    'Expected at least two run folders. Example: node scripts/emoji-report.mjs runs/seed-1 runs/seed-2\n',
  );
  process.exit(2);
}
const read = (folder, name) => JSON.parse(readFileSync(join(folder, name), 'utf8'));
const runs = folders.map((folder) => ({ ...read(folder, 'summary.json'), config: read(folder, 'config.json') }));
runs.sort((a, b) => a.seed - b.seed);

const stages = ['cold-start', 'rejection', 'grpo'];
const stageOf = (run, name) => run.stages.find((stage) => stage.name === name);
const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const deviation = (values) =>
  Math.sqrt(values.reduce((sum, value) => sum + (value - mean(values)) ** 2, 0) / (values.length - 1));
const fixed = (value, digits = 3) => (value === null || value === undefined ? '-' : value.toFixed(digits));
const table = (header, rows) =>
  [header, header.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n');
const signed = (value) => `${value >= 0 ? '+' : ''}${fixed(value)}`;
// Two-sided 95 % Student quantiles, degrees of freedom 1 to 9.
const student = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262];

const columns = [
  ['accuracy', 'accuracy'],
  ['unseenArtistAccuracy', 'unseen artist'],
  ['directAccuracy', 'direct answer'],
  ['perception', 'perception'],
  ['cellConsistency', 'cell consistency'],
  ['scoreConsistency', 'score consistency'],
  ['verdictConsistency', 'verdict consistency'],
  ['formatRate', 'format rate'],
  ['orderConsistency', 'order consistency'],
  ['seconds', 'seconds'],
];
const meanRows = stages.map((name) => [
  name,
  ...columns.map(([key]) => {
    const values = runs.map((run) => stageOf(run, name)[key]).filter((value) => typeof value === 'number');
    if (values.length === 0) return '-';
    return key === 'seconds' ? fixed(mean(values), 0) : `${fixed(mean(values))} ± ${fixed(deviation(values))}`;
  }),
]);
const seedRows = runs.map((run) => [
  run.seed,
  ...stages.map((name) => `${fixed(stageOf(run, name).accuracy)} / ${fixed(stageOf(run, name).unseenArtistAccuracy)}`),
  fixed(stageOf(run, 'cold-start').formatRate),
  fixed(run.wallSeconds, 0),
  fixed(run.peakMemoryBytes / 2 ** 20, 0),
]);
const comparisons = runs[0].comparisons.map(({ from, to, set }) => {
  const own = runs.map((run) => run.comparisons.find((one) => one.from === from && one.to === to && one.set === set));
  const differences = own.map(({ difference }) => difference);
  const half = (student[runs.length - 2] * deviation(differences)) / Math.sqrt(runs.length);
  const middle = mean(differences);
  return [
    `${from} to ${to}`,
    set,
    signed(middle),
    `${signed(middle - half)} to ${signed(middle + half)}`,
    differences.filter((one) => one > 0).length + ` of ${runs.length}`,
    own.map(({ low, high }) => `${signed(low)} to ${signed(high)}`).join('; '),
  ];
});
const [{ testItems, unseenTestItems }] = [stageOf(runs[0], 'grpo')];
const { plan } = runs[0].config.recipe ?? runs[0].config;

process.stdout.write(`# Emoji judge over ${runs.length} seeds

A judge of pictures trained from random weights by \`gavel quickstart\`: perception, cold start, rejection sampling, GRPO. Written by
\`scripts/emoji-report.mjs\` from the runs' own \`summary.json\`; no number has another source. Seeds ${runs.map(({ seed }) => seed).join(', ')}; commit
${[...new Set(runs.map(({ commit }) => String(commit).slice(0, 12)))].join(', ')}. After each stage ${testItems} new pairs of the seen artists and ${unseenTestItems} of the unseen one (Noto), every pair in both
orders, greedy. Seeds differ in weights, training items, test items and sampling.

## Means

${table(['stage', ...columns.map(([, title]) => title)], meanRows)}

Mean ± standard deviation over seeds. \`accuracy\` is that of the seen artists. Seconds are training alone.

## Does a stage help?

${table(['step', 'test set', 'mean difference', '95 % over seeds (Student)', 'seeds above 0', 'paired bootstrap per seed (95 %)'], comparisons)}

The bootstrap resamples the test pairs of one seed, both stages on the same draw (2,000 resamples).

## Every seed

${table(['seed', ...stages.map((name) => `${name} (seen / unseen)`), 'format after cold start', 'wall seconds', 'peak memory MiB'], seedRows)}

## What was run

${plan.budgetSeconds > 3600 ? 'The time budgets were lifted: the machine was shared with other work, and a budget shortens a stage on a slow machine. Wall seconds are upper bounds.\n\n' : ''}\`\`\`json
${JSON.stringify(plan ?? runs[0].config, null, 1)}
\`\`\`
`);
