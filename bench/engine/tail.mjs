// How much of a GRPO step is the tail of decoding, where fewer than 8 rows are in flight, and how busy the cores are there:
// the bound of what training on finished groups meanwhile could gain.
//   node bench/engine/tail.mjs [steps] [threads] [model] [prompts] [G] [P] [C] [mean length]
import { createEngine } from 'gavel-rl';
import process from 'node:process';
import { promptOf } from './batches.mjs';
import { models } from './shapes.mjs';

const [, , steps = 4, threads = 2, name = 'tiny', ...rest] = process.argv;
const [prompts = 8, G = 8, P = 256, C = 128, mean = 50] = rest.map(Number);
const config = models[name];
const vocabulary = config.vocab_size;
const engine = await createEngine({ threads: Number(threads) });
// Near-uniform draws: the share of tokens that end a completion sets the mean of geometric lengths, cut at C.
const model = await engine.createModel({ ...config, initializer_range: 0.02 }, { dtype: 'bf16', seed: 1 });
const stopTokens = Array.from({ length: Math.round(vocabulary / mean) }, (_, i) => 3 + i);
const cpuSeconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

const total = { wall: 0, rollout: 0, decode: 0, tail: 0, train: 0 };
for (let step = -1; step < Number(steps); step++) {
  const requests = Array.from({ length: prompts }, (_, id) => ({ id, ...promptOf(id, { P }, config), count: G }));
  const started = performance.now();
  const run = model.sample(requests, { maxNewTokens: C, seed: step + 1, stopTokens });
  const completions = await run.completions();
  const stats = await run;
  const sampled = performance.now();
  const groups = requests.map(({ promptTokens }, index) => ({
    promptTokens,
    images: [],
    completions: completions
      .filter(({ request }) => request === index)
      .map(({ tokens, logprobs }, i) => ({ tokens, oldLogprobs: logprobs, advantage: i % 2 === 0 ? 1 : -1 })),
  }));
  await model.forwardBackward(groups, [{ kind: 'grpo' }], { maxTokensPerMicroBatch: P + G * C });
  await model.optimizerStep({ learningRate: 1e-9 });
  const ended = performance.now();
  if (step < 0) continue;
  total.wall += (ended - started) / 1000;
  total.rollout += (sampled - started) / 1000;
  total.train += (ended - sampled) / 1000;
  total.decode += stats.decodeSeconds;
  total.tail += stats.tailSeconds;
}
// The cores in such steps: 4 rows that never stop.
const before = cpuSeconds();
const started = performance.now();
await model.sample([{ id: 1, ...promptOf(1, { P }, config), count: 4 }], { maxNewTokens: 400, stopTokens: [] });
const busy = (cpuSeconds() - before) / ((performance.now() - started) / 1000) / Number(threads);
const share = (part) => `${((100 * part) / total.wall).toFixed(1)} %`;
console.log(
  `${name} ${prompts}x${G} P ${P} C ${C} mean length ${mean}, ${threads} threads: step ${(total.wall / steps).toFixed(3)} s, ` +
    `rollout ${share(total.rollout)}, decode ${share(total.decode)}, tail ${share(total.tail)}, training ${share(total.train)}; ` +
    `cores busy with 4 rows ${(100 * busy).toFixed(0)} %`,
);
await engine.dispose();
