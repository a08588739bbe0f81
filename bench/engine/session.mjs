// One engine workload as a measuring session (see bench/session.mjs for the protocol).
//   node bench/engine/session.mjs WORKLOAD MODEL_FOLDER fp32|bf16 THREADS '{"sizes"...}'
import { createEngine } from 'gavel-rl';
import { createInterface } from 'node:readline';
import process from 'node:process';

const [workload, folder, dtype, threads, text] = process.argv.slice(2);
const sizes = JSON.parse(text);
const engine = await createEngine({ threads: Number(threads) });
const model = await engine.loadModel(folder, { dtype });
const vocabulary = model.config.vocab_size;
const eos = model.config.eos_token_id;
const optimizer = { learningRate: 1e-5, weightDecay: 0, maxGradNorm: 1 };
let step = 0;

// A counter hash: the peers' programs draw the same prompts.
const tokenAt = (i) => 3 + ((Math.imul(i + 1, 2654435761) >>> 8) % (vocabulary - 3));
const tokensFrom = (start, count) => Int32Array.from({ length: count }, (_, i) => tokenAt(start + i));

function meter() {
  const started = performance.now();
  const usage = process.cpuUsage();
  return () => {
    const { user, system } = process.cpuUsage(usage);
    return { wall: (performance.now() - started) / 1000, cpu: (user + system) / 1e6 };
  };
}

async function sampleGroups() {
  const requests = Array.from({ length: sizes.prompts }, (_, id) => ({
    id,
    promptTokens: tokensFrom(id * sizes.P, sizes.P),
    count: sizes.G,
  }));
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
  return { requests, completions, stats: await run };
}

const reward = (tokens) =>
  new Set(tokens).size / tokens.length + 0.001 * (tokens.reduce((sum, token) => sum + token, 0) % 17);

function advantagesOf(group) {
  const rewards = group.map(({ tokens }) => reward(tokens));
  const mean = rewards.reduce((sum, value) => sum + value, 0) / rewards.length;
  const variance = rewards.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (rewards.length - 1);
  return rewards.map((value) => (value - mean) / (Math.sqrt(variance) + 1e-4));
}

const programs = {
  async train_step() {
    const groups = Array.from({ length: sizes.sequences }, (_, i) => ({
      promptTokens: tokensFrom(i * (sizes.tokens + 1), 1),
      images: [],
      completions: [{ tokens: tokensFrom(i * (sizes.tokens + 1) + 1, sizes.tokens) }],
    }));
    const stop = meter();
    const result = await model.forwardBackward(groups, [{ kind: 'nll' }]);
    await model.optimizerStep(optimizer);
    return { ...stop(), loss: result.loss };
  },
  async grpo_step() {
    const stop = meter();
    const stopRollout = meter();
    const { requests, completions } = await sampleGroups();
    const rollout = stopRollout();
    const groups = requests.map(({ promptTokens }, index) => {
      const group = completions.filter(({ request }) => request === index);
      const advantages = advantagesOf(group);
      return {
        promptTokens,
        images: [],
        completions: group.map(({ tokens, logprobs }, i) => ({
          tokens,
          oldLogprobs: logprobs,
          advantage: advantages[i],
        })),
      };
    });
    const stopTrain = meter();
    const options = { maxTokensPerMicroBatch: sizes.P + sizes.G * sizes.C };
    const result = await model.forwardBackward(groups, [{ kind: 'grpo', lossType: 'dapo' }], options);
    await model.optimizerStep(optimizer);
    const train = stopTrain();
    const sampled = completions.flatMap(({ logprobs }) => [...logprobs]);
    const gap = result.logprobs.reduce((worst, value, i) => Math.max(worst, Math.abs(value - sampled[i])), 0);
    return { ...stop(), rollout, train, gap };
  },
  async decode() {
    const stop = meter();
    const { stats } = await sampleGroups();
    return { ...stop(), prefillSeconds: stats.prefillSeconds, tokens: stats.completionTokens, kvBytes: stats.kvBytes };
  },
};

const answer = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);
const memoryBytes = () => process.resourceUsage().maxRSS * 1024;
answer({ ready: true, memoryBytes: memoryBytes() });
const requests = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
while (!(await requests.next()).done) {
  const result = await programs[workload]();
  step += 1;
  answer({ ...result, memoryBytes: memoryBytes(), engineBytes: engine.memory() });
}
await engine.dispose();
