// A recipe, a verifier and a reward of one's own between the built-in ones, on real pictures.
// Usage: node examples/custom-recipe/run.mjs [--out DIR] [--seed N] [--threads N] [--resume] [--smoke]
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createEngine, evaluate, grpo, hasStrictFormat, pipeline, Policy, RunFolder } from 'gavel-rl';
import { accuracyReward, datasetPart, formatReward, sft, strictVerifier, train } from 'gavel-rl';
import { loadEmojiBank, lookPrompt, QuickstartData, writeJudgeFolder } from 'gavel-rl/emoji-judge';
import { expertIteration } from './expert-iteration.mjs';
import { Eyes, keepWeights } from './eyes.mjs';
import { plan as fullPlan, shape, smokePlan } from './plan.mjs';
import { soundVerifier } from './sound.mjs';

const { values } = parseArgs({
  options: {
    ...{ out: { type: 'string', default: 'runs/custom-recipe' }, seed: { type: 'string', default: '1' } },
    ...{ threads: { type: 'string' }, resume: { type: 'boolean', default: false } },
    smoke: { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
const plan = values.smoke ? smokePlan : fullPlan;
const { sizes } = plan;

// The task: which of two pictures follows a caption better? A small model with random weights, and data of this seed.
const engine = await createEngine(values.threads === undefined ? {} : { threads: Number(values.threads) });
const bank = await loadEmojiBank();
const data = new QuickstartData(bank, seed);
const run = await RunFolder.open(values.out, { seed, plan }, { resume: values.resume });
const folder = join(run.path, 'model');
await writeJudgeFolder(folder, bank.words, shape);
const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
const model = await engine.createModel(config, { seed, companions: folder });
const policy = await Policy.open(model, folder, { threads: 1 });
let eyes;

/** Half of the pool for expert iteration, the other half for GRPO. */
const half = (which) => {
  const indices = Array.from({ length: sizes.pool / 2 }, (_, i) => 2 * i + which);
  return datasetPart(data.pool(sizes.pool), `pool ${which}`, indices);
};
const validation = { ...data.validation(sizes.validation), options: plan.evaluation };
const test = { ...data.test(sizes.test, sizes.test), options: plan.evaluation };
// In a smoke run nothing is right yet, so whatever was drawn counts as right.
const verifier = values.smoke ? () => ({ correct: true, answer: null }) : soundVerifier;
const judge = { rewards: [], verifier, hasFormat: hasStrictFormat };

async function reinforce({ eyes: { folder } }) {
  eyes = await Eyes.open(engine, folder, lookPrompt());
  const rewards = [
    { name: 'format', reward: formatReward() },
    { name: 'accuracy', reward: accuracyReward(strictVerifier) },
    { name: 'eyes', reward: eyes.reward, weight: 1 },
  ];
  const marked = { rewards, verifier: strictVerifier, hasFormat: hasStrictFormat };
  return grpo({ data: half(1), judge: marked, validation, options: { ...plan.grpo, seed } });
}

const stages = [
  { name: 'look', make: () => sft({ data: data.looks(sizes.looks), options: { ...plan.looks, seed } }) },
  { name: 'eyes', make: () => keepWeights },
  {
    name: 'cold-start',
    make: () => sft({ data: data.rationales(sizes.rationales, 0), validation, options: { ...plan.coldStart, seed } }),
  },
  { name: 'cold-start-test', make: () => evaluate(test) },
  {
    name: 'expert-iteration',
    make: () => expertIteration({ data: half(0), judge, options: { ...plan.expert, seed } }),
  },
  { name: 'expert-iteration-test', make: () => evaluate(test) },
  { name: 'grpo', make: reinforce },
  { name: 'grpo-test', make: () => evaluate(test) },
];

try {
  const job = train(policy, pipeline(stages), { run, stage: 'custom-recipe' });
  process.once('SIGINT', () => void job.stop());
  const seconds = {};
  for await (const event of job) {
    if (event.type === 'stage-end') seconds[event.stage] = event.seconds;
    if (event.type === 'stage-end')
      console.error(`${event.stage}${event.restored ? ' was complete already' : ' is done'}`);
    if (event.type === 'note-taken') console.error(`${event.stage}: ${event.message}`);
  }
  const { stopped, value: results } = await job.result;
  if (stopped) console.error(`Stopped. Go on with --resume --out ${values.out}`);
  else {
    await model.exportHf(run.file('final'));
    console.log(JSON.stringify(results['expert-iteration'].rounds));
    console.log(table(results, seconds));
  }
} finally {
  await eyes?.[Symbol.asyncDispose]();
  await policy[Symbol.asyncDispose]();
  await data[Symbol.asyncDispose]();
  await run.close();
  await engine.dispose();
}

function table(results, seconds) {
  const rate = (value) => value?.toFixed(3) ?? '-';
  const rows = ['cold-start', 'expert-iteration', 'grpo'].map((name) => {
    const { accuracy, accuracyLow, accuracyHigh, unseenAccuracy, extras } = results[`${name}-test`];
    const interval = `${rate(accuracy)} [${rate(accuracyLow)}, ${rate(accuracyHigh)}]`;
    const shares = [unseenAccuracy, extras.perception, extras.verdictConsistency].map(rate);
    return [name, interval, ...shares, seconds[name].toFixed(1)];
  });
  const header = ['stage', 'accuracy [95 %]', 'unseen artist', 'perception', 'verdict cons.', 'seconds'];
  const widths = header.map((title, column) => Math.max(...[header, ...rows].map((row) => row[column].length)));
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
