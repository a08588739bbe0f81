// A service's view: completions as they finish, a deadline, typed errors, and an end that frees everything.
import { createEngine, GavelError } from 'gavel-rl';

const config = {
  ...{ model_type: 'qwen2', vocab_size: 64, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 2 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, rms_norm_eps: 1e-6, rope_theta: 10000 },
  ...{ tie_word_embeddings: true, eos_token_id: 0 },
};
const engine = await createEngine({ device: 'cpu' });
try {
  const model = await engine.createModel(config, { seed: 1 });
  const request = { id: 1, promptTokens: Int32Array.of(5, 9, 2), count: 4 };

  const run = model.sample([request], { maxNewTokens: 16, seed: 7 });
  for await (const { sample, tokens, finishReason } of run) console.log(sample, finishReason, tokens.length);
  console.log(`${(await run).completionTokens} tokens in ${(await run).decodeSteps} steps`);

  // No stop token and far too many tokens: the deadline ends it, with its own reason.
  const options = { maxNewTokens: 100_000, stopTokens: [], signal: AbortSignal.timeout(200) };
  await model.sample([request], options).catch((reason) => console.log('ended:', reason.name));

  // What cannot be is refused before anything runs.
  try {
    model.sample([request], { temprature: 0.5 });
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    console.log(error.code, error.message);
  }
} finally {
  await engine.dispose();
}
