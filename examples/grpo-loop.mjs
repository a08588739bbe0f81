// GRPO on the bare verbs: a small model from nothing learns to prefer even tokens.
import { createEngine } from 'gavel-rl';

const engine = await createEngine({ device: 'cpu' });
const config = {
  ...{ model_type: 'qwen2', vocab_size: 64, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, rms_norm_eps: 1e-6, rope_theta: 10000 },
  ...{ tie_word_embeddings: true, eos_token_id: 0 },
};
try {
  const model = await engine.createModel(config, { seed: 1 });
  const promptTokens = Int32Array.of(5, 9, 2);
  for (let step = 1; step <= 20; step++) {
    // The prompt is computed once for the 16 samples; completions arrive as they finish.
    const completions = [];
    const run = model.sample([{ id: step, promptTokens }], { count: 16, maxNewTokens: 8, seed: 7 });
    for await (const completion of run) completions.push(completion);

    const rewards = completions.map(({ tokens }) => tokens.filter((token) => token % 2 === 0).length / tokens.length);
    const mean = rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length;
    const trained = completions.map(({ tokens, logprobs }, i) => ({
      ...{ tokens, oldLogprobs: logprobs, advantage: rewards[i] - mean },
    }));
    await model.forwardBackward([{ promptTokens, images: [], completions: trained }], [{ kind: 'grpo' }]);
    const { gradNorm } = await model.optimizerStep({ learningRate: 3e-3 });
    console.log(`step ${step}  reward ${mean.toFixed(3)}  gradient norm ${gradNorm.toFixed(3)}`);
  }
} finally {
  await engine.dispose();
}
