// One engine workload as a measuring session (see bench/session.mjs for the protocol). A request may be a JSON object of
// sizes that differ from those of the command line; `{"warm":true}` asks for a short run.
//   node bench/engine/session.mjs WORKLOAD MODEL_FOLDER fp32|bf16 THREADS '{"sizes"...}'
import { createEngine } from 'gavel-rl';
import { createInterface } from 'node:readline';
import process from 'node:process';
// What runs record of themselves, from the build: not public.
import { peakMemoryBytes as memoryBytes } from '../../dist/runs/peak-memory.js';
import { completionsOf, pairOf, promptOf, rewardToken, tokensFrom } from './batches.mjs';

const [workload, folder, dtype, threads, text] = process.argv.slice(2);
const given = JSON.parse(text);
const engine = await createEngine({ threads: Number(threads) });
const rewardHead = workload === 'score' ? { rewardHead: { token: rewardToken } } : {};
// Weights stay as they are between rounds of some workloads: what one left must not serve the next. Peers keep nothing.
const model = await engine.loadModel(folder, { dtype, promptCacheBytes: 0, ...rewardHead });
const { config } = model;
const eos = (config.text_config ?? config).eos_token_id;
const optimizer = { learningRate: 1e-5, weightDecay: 0, maxGradNorm: 1 };
let step = 0;

function meter() {
  const started = performance.now();
  const usage = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(usage);
    return { wall: (performance.now() - started) / 1000, cpu: (user + system) / 1e6 };
  };
}

// Inputs are drawn once for each set of sizes, outside of what is timed.
const drawn = new Map();
function once(kind, sizes, make) {
  const key = kind + JSON.stringify(sizes);
  if (!drawn.has(key)) drawn.set(key, make());
  return drawn.get(key);
}
function expectFresh({ promptTokens }) {
  if (promptTokens > 0) throw new Error(`Expected every prompt to be computed but ${promptTokens} tokens were reused.`);
}

const promptsOf = (sizes) =>
  once('prompts', sizes, () => Array.from({ length: sizes.prompts }, (_, id) => promptOf(id, sizes, config)));

async function sampleGroups(sizes) {
  const requests = promptsOf(sizes).map((prompt, id) => ({ id, ...prompt, count: sizes.G }));
  // No end of sequence: everybody draws the same number of tokens. It stays in the normaliser.
  const options = {
    maxNewTokens: sizes.C,
    seed: step,
    stopTokens: [],
    bannedTokens: [eos],
    maxRows: sizes.prompts * sizes.G,
  };
  const run = model.sample(requests, options);
  const completions = await run.completions();
  const stats = await run;
  expectFresh(stats.reused);
  return { requests, completions, stats };
}

const reward = (tokens) =>
  new Set(tokens).size / tokens.length + 0.001 * (tokens.reduce((sum, token) => sum + token, 0) % 17);

function advantagesOf(group) {
  const rewards = group.map(({ tokens }) => reward(tokens));
  const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
  const variance = rewards.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (rewards.length - 1);
  return rewards.map((value) => (value - mean) / (Math.sqrt(variance) + 1e-4));
}

async function update(groups, { P, C, G }) {
  const options = { maxTokensPerMicroBatch: P + G * C };
  const result = await model.forwardBackward(groups, [{ kind: 'grpo', lossType: 'dapo' }], options);
  await model.optimizerStep(optimizer);
  return result;
}

const programs = {
  async train_step(sizes) {
    const vocabulary = config.vocab_size;
    const groups = Array.from({ length: sizes.sequences }, (_, i) => ({
      promptTokens: tokensFrom(i * (sizes.tokens + 1), 1, vocabulary),
      images: [],
      completions: [{ tokens: tokensFrom(i * (sizes.tokens + 1) + 1, sizes.tokens, vocabulary) }],
    }));
    const stop = meter();
    const result = await model.forwardBackward(groups, [{ kind: 'nll' }]);
    await model.optimizerStep(optimizer);
    return { ...stop(), loss: result.loss };
  },
  async grpo_step(sizes) {
    const prompts = promptsOf(sizes);
    const stop = meter();
    const stopRollout = meter();
    const { completions } = await sampleGroups(sizes);
    const rollout = stopRollout();
    const groups = prompts.map((prompt, index) => {
      const group = completions.filter(({ request }) => request === index);
      const advantages = advantagesOf(group);
      return {
        ...prompt,
        completions: group.map(({ tokens, logprobs }, i) => ({
          tokens,
          oldLogprobs: logprobs,
          advantage: advantages[i],
        })),
      };
    });
    const stopTrain = meter();
    const result = await update(groups, sizes);
    const train = stopTrain();
    const sampled = completions.flatMap(({ logprobs }) => [...logprobs]);
    const gap = result.logprobs.reduce((worst, value, i) => Math.max(worst, Math.abs(value - sampled[i])), 0);
    return { ...stop(), rollout, train, gap };
  },
  async grpo_update(sizes) {
    const groups = once('groups', sizes, () =>
      promptsOf(sizes).map((prompt, i) => ({ ...prompt, completions: completionsOf(i, sizes, config) })),
    );
    const stop = meter();
    const result = await update(groups, sizes);
    return { ...stop(), loss: result.loss };
  },
  async decode(sizes) {
    promptsOf(sizes);
    const stop = meter();
    const { stats } = await sampleGroups(sizes);
    const { prefillSeconds, decodeSeconds, completionTokens: tokens, kvBytes } = stats;
    return { ...stop(), prefillSeconds, decodeSeconds, tokens, kvBytes };
  },
  async score(sizes) {
    const pairs = once('pairs', sizes, () => Array.from({ length: sizes.pairs }, (_, i) => pairOf(i, sizes, config)));
    const groups = pairs.flatMap(({ prompt, answers }) =>
      sizes.shared === false
        ? answers.map((tokens) => ({ promptTokens: prompt, images: [], completions: [{ tokens }] }))
        : [{ promptTokens: prompt, images: [], completions: answers.map((tokens) => ({ tokens })) }],
    );
    const stop = meter();
    const { rewards, reused } = await model.score(groups);
    const total = stop();
    expectFresh(reused);
    return { ...total, count: rewards.length };
  },
};

/** A short run of the same kind: few tokens to draw. */
const warmed = ({ warm, ...sizes }) => (warm && workload === 'decode' ? { ...sizes, C: 4 } : sizes);

const answer = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);
answer({ ready: true, memoryBytes: memoryBytes() });
for await (const line of createInterface({ input: process.stdin })) {
  const result = await programs[workload](warmed({ ...given, ...JSON.parse(line || '{}') }));
  step += 1;
  answer({ ...result, memoryBytes: memoryBytes(), engineBytes: engine.memory() });
}
await engine.dispose();
