// A real pretrained model from load to export: chat, supervised fine-tuning and GRPO of a LoRA adapter, and both exports.
// Usage: node examples/smollm2/run.mjs FILE.gguf|FILE.whl [--out DIR] [--sft-steps N] [--grpo-steps N] [--dtype bf16|fp32] [--threads N]
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { computeAdvantages, createEngine } from 'gavel-rl';
import { bootstrap, makeSums, openText, rewardOf } from './task.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'smollm2-sums' },
    'sft-steps': { type: 'string', default: '12' },
    'grpo-steps': { type: 'string', default: '40' },
    dtype: { type: 'string', default: 'bf16' },
    threads: { type: 'string' },
  },
});

/** The GGUF file of a wheel, which is a zip archive, beside the exports: an adapter's config names its base. */
function unpack(wheel) {
  const folder = join(values.out, 'wheel');
  mkdirSync(folder, { recursive: true });
  execFileSync('python3', ['-m', 'zipfile', '-e', wheel, folder], { stdio: 'inherit' });
  const name = readdirSync(folder, { recursive: true }).find((path) => path.endsWith('.gguf'));
  if (name === undefined) throw new Error(`Expected a .gguf file in ${wheel} but found none.`);
  return join(folder, name);
}

const questions = [
  'What is the capital of France?',
  'Write two short sentences about the sea.',
  'Name three colors of the rainbow.',
];

async function chat(model, text) {
  for (const [id, question] of questions.entries()) {
    const request = { id, promptTokens: text.chat(question), maxNewTokens: 80 };
    const run = model.sample([request], { temperature: 0 });
    const [{ tokens }] = await run.completions();
    const { completionTokens, decodeSeconds } = await run;
    console.log(`> ${question}\n${text.decode(tokens)}`);
    console.log(`  (${(completionTokens / decodeSeconds).toFixed(1)} tokens/s)`);
  }
}

/** Greedy answers to held-out sums. */
async function evaluate(model, text, sums, name) {
  const requests = sums.map((sum) => ({ id: sum.id, promptTokens: text.prompt(sum), maxNewTokens: 12 }));
  const completions = await model.sample(requests, { temperature: 0, maxRows: 32 }).completions();
  const rewards = sums.map(() => 0);
  for (const { request, tokens } of completions) rewards[request] = rewardOf(text.decode(tokens), sums[request]);
  const { mean, low, high } = bootstrap(rewards);
  const right = rewards.filter((reward) => reward === 1).length;
  const interval = `95 % interval ${low.toFixed(3)} to ${high.toFixed(3)}`;
  console.log(`${name}: held-out reward ${mean.toFixed(3)} (${interval}), ${right} of ${sums.length} right`);
}

/** The form of the answer, on sums of one digit. */
async function supervise(model, text, steps) {
  const sums = makeSums(48, 10, 'train');
  for (let step = 0; step < steps; step++) {
    const batch = Array.from({ length: 8 }, (_, i) => sums[(step * 8 + i) % sums.length]);
    const groups = batch.map((sum) => ({
      promptTokens: text.prompt(sum),
      images: [],
      completions: [{ tokens: text.target(sum) }],
    }));
    const { loss } = await model.forwardBackward(groups, [{ kind: 'nll' }]);
    await model.optimizerStep({ learningRate: 3e-4, maxGradNorm: 1 });
    if (step % 4 === 3) console.log(`sft ${step + 1}: loss ${loss.toFixed(3)}`);
  }
}

const groupSize = 8;

async function reinforceStep(model, text, batch, step) {
  const requests = batch.map((sum) => ({ id: sum.id, promptTokens: text.prompt(sum), maxNewTokens: 12 }));
  const run = model.sample(requests, { count: groupSize, temperature: 1, seed: 100 + step, maxRows: 64 });
  const drawn = batch.map(() => []);
  for await (const completion of run) drawn[completion.request].push(completion);
  for (const group of drawn) group.sort((a, b) => a.sample - b.sample);
  const rewards = drawn.flatMap((group, i) => group.map(({ tokens }) => rewardOf(text.decode(tokens), batch[i])));
  const { advantages } = computeAdvantages(
    rewards.map((reward) => [reward]),
    { groupSize },
  );
  // A group whose rewards are all equal has nothing to teach.
  const groups = batch.flatMap((_, i) => {
    const completions = drawn[i].map(({ tokens, logprobs }, j) => ({
      tokens,
      oldLogprobs: logprobs,
      advantage: advantages[i * groupSize + j],
    }));
    if (completions.every(({ advantage }) => advantage === 0)) return [];
    return [{ promptTokens: requests[i].promptTokens, images: [], completions }];
  });
  if (groups.length > 0) {
    await model.forwardBackward(groups, [{ kind: 'grpo', lossType: 'dr_grpo', maxCompletionLength: 12 }]);
    await model.optimizerStep({ learningRate: 1e-4, maxGradNorm: 1 });
  }
  return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
}

async function reinforce(model, text, steps) {
  const sums = makeSums(400, 50, 'train');
  await model.resetOptimizer();
  for (let step = 0; step < steps; step++) {
    const batch = Array.from({ length: 8 }, (_, i) => sums[(step * 8 + i) % sums.length]);
    const reward = await reinforceStep(model, text, batch, step);
    if (step % 5 === 4) console.log(`grpo ${step + 1}: reward of the samples ${reward.toFixed(3)}`);
  }
}

const [given] = positionals;
if (given === undefined) throw new Error('Expected the path of a .gguf file or of the wheel that holds it.');
const path = given.endsWith('.whl') ? unpack(given) : given;
const engine = await createEngine(values.threads === undefined ? {} : { threads: Number(values.threads) });
try {
  mkdirSync(values.out, { recursive: true });
  const startedMs = performance.now();
  const model = await engine.loadModel(path, { dtype: values.dtype, lora: { rank: 16, targets: 'all-linear' } });
  console.log(`loaded in ${((performance.now() - startedMs) / 1000).toFixed(2)} s`);
  const text = await openText(model.folder);
  // The adapter's product is still zero: this is the base, as transformers reads it.
  await model.exportHf(join(values.out, 'base'));
  await chat(model, text);
  const heldOut = makeSums(96, 50, 'held-out');
  await evaluate(model, text, heldOut, 'base');
  await supervise(model, text, Number(values['sft-steps']));
  await evaluate(model, text, heldOut, 'after sft');
  await reinforce(model, text, Number(values['grpo-steps']));
  await evaluate(model, text, heldOut, 'after grpo');
  await model.exportHf(join(values.out, 'merged'));
  await model.saveAdapter(join(values.out, 'adapter'));
  console.log(`exported: ${join(values.out, 'merged')} and ${join(values.out, 'adapter')}`);
} finally {
  await engine.dispose();
}
