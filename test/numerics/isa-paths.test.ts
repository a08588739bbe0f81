// Every path of instructions this machine can run, on a small model: sampled log-probs are the trained ones, and paths
// that promise common bits (docs/exactness.md) have them.
import { describe, expect, it } from 'vitest';
import { createEngine, deviceInfo } from '../../src/engine/index.js';

const { isas } = deviceInfo();
const config = {
  model_type: 'qwen2',
  vocab_size: 301,
  hidden_size: 64,
  intermediate_size: 112,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  tie_word_embeddings: true,
};

interface Outcome {
  sampled: Float32Array;
  trained: Float32Array;
  weights: Float32Array;
}

async function sampleAndTrain(isa: string, dtype: 'fp32' | 'bf16'): Promise<Outcome> {
  await using engine = await createEngine({ threads: 2, isa: isa as 'generic' });
  expect(engine.isa).toBe(isa);
  const model = await engine.createModel(config, { dtype, seed: 3, std: 0.1 });
  const requests = [70, 3].map((length, id) => ({
    id,
    promptTokens: Int32Array.from({ length }, (_, i) => 3 + ((i * 37 + id) % 290)),
    count: 3,
  }));
  // The drawn tokens of a path with other bits could differ; the greedy ones of this model do not.
  const run = model.sample(requests, { maxNewTokens: 20, temperature: 0, stopTokens: [] });
  const completions = await run.completions();
  await run;
  completions.sort((a, b) => a.request - b.request || a.sample - b.sample);
  const groups = requests.map(({ promptTokens, id }) => ({
    promptTokens,
    images: [],
    completions: completions
      .filter(({ request }) => request === id)
      .map(({ tokens, logprobs }, i) => ({ tokens, oldLogprobs: logprobs, advantage: i - 1 })),
  }));
  const { logprobs } = await model.forwardBackward(groups, [{ kind: 'grpo' }]);
  expect((await model.optimizerStep({ learningRate: 1e-3 })).applied).toBe(true);
  const sampled = Float32Array.from(completions.flatMap(({ logprobs: own }) => [...own]));
  return { sampled, trained: logprobs, weights: await model.readTensor('model.layers.0.mlp.up_proj.weight') };
}

describe.each(['fp32', 'bf16'] as const)('%s', (dtype) => {
  const plain = sampleAndTrain('generic', dtype);

  it.each(isas)('%s', async (isa) => {
    const gold = await plain;
    const { sampled, trained, weights } = isa === 'generic' ? gold : await sampleAndTrain(isa, dtype);
    expect(sampled).toHaveLength(120);
    expect(trained).toEqual(sampled);
    if (isa !== 'amx' || dtype === 'fp32') {
      expect(sampled).toEqual(gold.sampled);
      expect(weights).toEqual(gold.weights);
      return;
    }
    const largest = sampled.reduce((worst, value, i) => Math.max(worst, Math.abs(value - gold.sampled[i]!)), 0);
    expect(largest).toBeLessThan(0.05);
  });
});

describe('a path that is demanded', () => {
  it('is refused when nothing has it', async () => {
    await expect(createEngine({ isa: 'sse9' as never })).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it.runIf(isas.length < 5)('is refused when this machine lacks it', async () => {
    const lacking = (['amx', 'avx512-bf16', 'avx512', 'avx2'] as const).find((name) => !isas.includes(name))!;
    await expect(createEngine({ isa: lacking })).rejects.toMatchObject({
      code: 'unsupported',
      fields: { isa: lacking },
    });
  });
});
