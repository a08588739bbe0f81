// The models and batches of the engine workloads; our programs and the peers' read the same folders and sizes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const qwen2 = (shape) => ({
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  hidden_act: 'silu',
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_type: 'default', rope_theta: 1e6 },
  max_position_embeddings: 32768,
  tie_word_embeddings: true,
  eos_token_id: 2,
  pad_token_id: 0,
  initializer_range: 0.05,
  ...shape,
});

export const models = {
  // 5.18 million parameters: lives in the caches, so a figure on it says nothing about memory bandwidth.
  tiny: qwen2({
    vocab_size: 4096,
    hidden_size: 256,
    intermediate_size: 640,
    num_hidden_layers: 6,
    num_attention_heads: 4,
    num_key_value_heads: 2,
  }),
  // 10.2 million.
  text10m: qwen2({
    vocab_size: 4096,
    hidden_size: 384,
    intermediate_size: 1152,
    num_hidden_layers: 5,
    num_attention_heads: 6,
    num_key_value_heads: 2,
  }),
  // 39.3 million: 157 MB in fp32, 79 MB in bf16.
  text39m: qwen2({
    vocab_size: 32768,
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 8,
    num_attention_heads: 8,
    num_key_value_heads: 2,
  }),
};

/** Parameters in matrix products (a tied embedding counts once, as the head). */
export function matrixParameters(model) {
  const { hidden_size: h, intermediate_size: f, num_attention_heads: q, num_key_value_heads: k } = models[model];
  const layer = 2 * h * h + (2 * k * h * h) / q + 3 * h * f;
  return models[model].num_hidden_layers * layer + models[model].vocab_size * h;
}

export const workloads = {
  train_step: { model: 'text10m', sequences: 4, tokens: 512 },
  grpo_step: { model: 'tiny', prompts: 8, G: 8, P: 256, C: 128 },
  decode: { model: 'text39m', prompts: 8, G: 8, P: 500, C: 128 },
};

/** Tiny counts, to see that every program runs; their figures mean nothing and are not stored. */
export const quickWorkloads = {
  train_step: { model: 'tiny', sequences: 2, tokens: 64 },
  grpo_step: { model: 'tiny', prompts: 2, G: 4, P: 32, C: 8 },
  decode: { model: 'tiny', prompts: 2, G: 4, P: 32, C: 8 },
};

/** Calls `use` with a folder that goes away afterwards. */
export async function withFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), 'gavel-bench-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Floating-point operations of forward and backward: 6 a matrix parameter and token, 12 q a layer and attended pair. */
export function trainFlop(model, tokens, pairs) {
  const { hidden_size: h, num_hidden_layers: layers } = models[model];
  return 6 * matrixParameters(model) * tokens + 12 * h * layers * pairs;
}
