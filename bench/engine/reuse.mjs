// What keeping pictures' features and prompts' keys and values saves: each call with the cache and without it, in turns.
//   node bench/engine/reuse.mjs [repetitions] [threads]
import { createEngine } from 'gavel-rl';
import process from 'node:process';
import { median } from '../statistics.mjs';
import { promptOf, rewardToken } from './batches.mjs';

const [repetitions = 5, threads = 1] = process.argv.slice(2).map(Number);
// 23 million parameters in the decoder, 10 million in the tower.
const config = {
  model_type: 'qwen2_5_vl',
  vocab_size: 8192,
  hidden_size: 512,
  intermediate_size: 1408,
  num_hidden_layers: 6,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  tie_word_embeddings: true,
  vision_start_token_id: 3,
  vision_end_token_id: 4,
  image_token_id: 5,
  eos_token_id: 2,
  rope_parameters: { rope_type: 'default', rope_theta: 1e6, mrope_section: [8, 12, 12] },
  vision_config: {
    depth: 8,
    hidden_size: 320,
    intermediate_size: 864,
    num_heads: 5,
    out_hidden_size: 512,
    fullatt_block_indexes: [3, 7],
  },
};
const sizes = { prompts: 2, P: 1000, G: 8, C: 64, pictures: 1, grid: [40, 80] };
/** A prompt with a picture of 800 tokens; the reward token is its last. */
function asked(index) {
  const prompt = promptOf(index, sizes, config);
  prompt.promptTokens[sizes.P - 1] = rewardToken;
  return prompt;
}

const engine = await createEngine({ threads });
const rewardHead = { heads: 1, token: rewardToken };
const load = (promptCacheBytes) =>
  engine.createModel(config, { dtype: 'bf16', seed: 1, promptCacheBytes, rewardHead, freeze: ['visual'] });
const models = { without: await load(0), kept: await load(2 ** 28) };
const requests = Array.from({ length: sizes.prompts }, (_, id) => ({ id, ...asked(id), count: sizes.G }));
// Four candidates judged beside the same picture.
const judged = Array.from({ length: 4 }, (_, i) => ({
  promptTokens: asked(sizes.prompts + i).promptTokens,
  images: requests[0].images,
  completions: [],
}));
const draw = { maxNewTokens: sizes.C, stopTokens: [], bannedTokens: [config.eos_token_id, config.image_token_id] };

const seconds = {};
async function timed(name, which, call) {
  const started = process.cpuUsage();
  const result = await call();
  const { user, system } = process.cpuUsage(started);
  ((seconds[name] ??= { without: [], kept: [] })[which] ??= []).push((user + system) / 1e6);
  return result;
}

let checked = '';
for (let round = 0; round < repetitions; round++) {
  for (const [which, model] of Object.entries(models)) {
    const run = await timed('sample', which, async () => {
      const drawn = model.sample(requests, { ...draw, seed: round });
      return { completions: await drawn.completions(), stats: await drawn };
    });
    const groups = requests.map(({ promptTokens, images }, index) => ({
      promptTokens,
      images,
      completions: run.completions.filter(({ request }) => request === index).map(({ tokens }) => ({ tokens })),
    }));
    const { logprobs } = await timed('logprobs of what was drawn', which, () => model.logprobs(groups));
    const bits = Buffer.from(logprobs.buffer).toString('base64');
    if (which === 'without') checked = bits;
    else if (bits !== checked) throw new Error('kept and computed log-probs differ');
    await timed('sample again', which, async () =>
      model.sample(requests, { ...draw, seed: round + 100 }).completions(),
    );
    await timed('score 4 candidates of a picture', which, () => model.score(judged));
    await timed('forwardBackward, tower frozen', which, () => model.forwardBackward(groups, [{ kind: 'nll' }]));
    await model.optimizerStep({ learningRate: 1e-9 });
  }
}
for (const [name, { without, kept }] of Object.entries(seconds)) {
  const [before, after] = [median(without), median(kept)];
  console.log(
    `${name.padEnd(34)} without ${before.toFixed(3)} s  kept ${after.toFixed(3)} s  ratio ${(before / after).toFixed(2)}`,
  );
}
console.log(`kept after a step: ${models.kept.memory().promptCacheBytes} bytes`);
await engine.dispose();
