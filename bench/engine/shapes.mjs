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

const qwenVl = (text, vision) => ({
  architectures: ['Qwen2_5_VLForConditionalGeneration'],
  model_type: 'qwen2_5_vl',
  tie_word_embeddings: false,
  initializer_range: 0.05,
  vision_start_token_id: 3,
  vision_end_token_id: 4,
  image_token_id: 5,
  video_token_id: 6,
  text_config: {
    model_type: 'qwen2_5_vl_text',
    hidden_act: 'silu',
    rms_norm_eps: 1e-6,
    max_position_embeddings: 32768,
    rope_parameters: { rope_type: 'default', rope_theta: 1e6, mrope_section: [8, 12, 12] },
    eos_token_id: 2,
    pad_token_id: 0,
    ...text,
  },
  vision_config: {
    model_type: 'qwen2_5_vl_vision',
    hidden_act: 'silu',
    in_channels: 3,
    patch_size: 14,
    spatial_merge_size: 2,
    temporal_patch_size: 2,
    tokens_per_second: 4,
    window_size: 112,
    out_hidden_size: text.hidden_size,
    ...vision,
  },
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
  // 19 million, 6.5 of them in the vision tower: windows in all of its blocks but two.
  vision19m: qwenVl(
    {
      vocab_size: 4096,
      hidden_size: 384,
      intermediate_size: 1024,
      num_hidden_layers: 6,
      num_attention_heads: 6,
      num_key_value_heads: 2,
    },
    { depth: 6, hidden_size: 256, intermediate_size: 688, num_heads: 4, fullatt_block_indexes: [2, 5] },
  ),
  tinyVision: qwenVl(
    {
      vocab_size: 512,
      hidden_size: 128,
      intermediate_size: 256,
      num_hidden_layers: 2,
      num_attention_heads: 2,
      num_key_value_heads: 1,
    },
    { depth: 2, hidden_size: 64, intermediate_size: 96, num_heads: 1, fullatt_block_indexes: [1] },
  ),
};

/** The decoder's part of a model's configuration. */
export const decoderOf = (model) => models[model].text_config ?? models[model];

/** Parameters of the decoder's layers in matrix products. */
function layerParameters(model) {
  const { hidden_size: h, intermediate_size: f, num_attention_heads: q, num_key_value_heads: k } = decoderOf(model);
  return decoderOf(model).num_hidden_layers * (2 * h * h + (2 * k * h * h) / q + 3 * h * f);
}

/** Parameters in matrix products (a tied embedding counts once, as the head). */
export function matrixParameters(model) {
  const { vocab_size: v, hidden_size: h } = decoderOf(model);
  return layerParameters(model) + v * h + visionParameters(model);
}

function visionParameters(model) {
  const vision = models[model].vision_config;
  if (vision === undefined) return 0;
  const { depth, hidden_size: h, intermediate_size: f, out_hidden_size: out } = vision;
  return depth * (4 * h * h + 3 * h * f) + 4 * h * (4 * h + out) + 1176 * h;
}

/**
 * Every measured batch. `name` is the workload of its rows; P prompt, C completion tokens, G group size. `pictures` of
 * `grid` patches (rows, columns) are part of P.
 */
export const workloads = [
  { name: 'train_step', model: 'text10m', sequences: 4, tokens: 512 },
  { name: 'train_step', model: 'text39m', sequences: 2, tokens: 512 },
  { name: 'grpo_step', model: 'tiny', prompts: 8, G: 8, P: 256, C: 128 },
  { name: 'grpo_update', model: 'vision19m', prompts: 1, G: 8, P: 1000, C: 256, pictures: 2, grid: [30, 40] },
  { name: 'decode', model: 'text39m', prompts: 8, G: 8, P: 500, C: 128 },
  { name: 'decode', model: 'text39m', prompts: 1, G: 1, P: 500, C: 128 },
  { name: 'score', model: 'tiny', pairs: 64, low: 32, high: 512 },
];

/** Tiny counts, to see that every program runs; their figures mean nothing and are not stored. */
export const quickWorkloads = [
  { name: 'train_step', model: 'tiny', sequences: 2, tokens: 64 },
  { name: 'grpo_step', model: 'tiny', prompts: 2, G: 4, P: 32, C: 8 },
  { name: 'grpo_update', model: 'tinyVision', prompts: 1, G: 4, P: 64, C: 8, pictures: 2, grid: [6, 10] },
  { name: 'decode', model: 'tiny', prompts: 2, G: 4, P: 32, C: 8 },
  { name: 'decode', model: 'tiny', prompts: 1, G: 1, P: 32, C: 8 },
  { name: 'score', model: 'tiny', pairs: 4, low: 8, high: 32 },
];

const batchOf = (sizes) => {
  if (sizes.sequences !== undefined) return `${sizes.sequences} sequences`;
  if (sizes.pairs !== undefined) return `${sizes.pairs} pairs, prompt and answers of ${sizes.low} to ${sizes.high}`;
  const pictures =
    sizes.pictures === undefined ? '' : `, ${sizes.pictures} pictures of ${sizes.grid.join(' x ')} patches`;
  return `${sizes.prompts} ${sizes.prompts === 1 ? 'prompt' : 'prompts'}${pictures}`;
};

/** The sizes of a workload as a row names them. */
export const rowSizes = (sizes) => ({
  P: sizes.P ?? null,
  C: sizes.C ?? sizes.tokens ?? null,
  G: sizes.G ?? null,
  V: decoderOf(sizes.model).vocab_size,
  shape: `${batchOf(sizes)}, ${(matrixParameters(sizes.model) / 1e6).toFixed(1)}M`,
});

/** Calls `use` with a folder that goes away afterwards. */
export async function withFolder(use) {
  const folder = mkdtempSync(join(tmpdir(), 'gavel-bench-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Query-key pairs of one group: the prompt's own, and each completion's with the prompt and itself. */
const groupPairs = (P, C, G, shared) => (shared ? P ** 2 / 2 + G * (P * C + C ** 2 / 2) : (G * (P + C) ** 2) / 2);

/** Operations of training: 6 a matrix parameter and token, 12 q a layer and attended pair; the head on `heads` rows alone. */
export function trainFlop(model, tokens, pairs, heads = tokens) {
  const { hidden_size: h, vocab_size: v, num_hidden_layers: layers } = decoderOf(model);
  return 6 * layerParameters(model) * tokens + 6 * v * h * heads + 12 * h * layers * pairs;
}

/** Operations of an update of `prompts` groups; without `shared` the prompt runs once a completion. */
export function updateFlop({ model, prompts, P, C, G }, shared = true) {
  const tokens = shared ? P + G * C : G * (P + C);
  return prompts * trainFlop(model, tokens, groupPairs(P, C, G, shared), G * C);
}

/** Bytes of one decode step at `rows` rows in the middle of C completion tokens: weights, and keys and values read. */
export function decodeBytes({ model, P, C, G }, rows, elementBytes) {
  const decoder = decoderOf(model);
  const kv =
    2 * decoder.num_hidden_layers * ((decoder.hidden_size / decoder.num_attention_heads) * decoder.num_key_value_heads);
  return elementBytes * (matrixParameters(model) + kv * ((rows / G) * P + (rows * C) / 2));
}

/** Operations of one decode step. */
export const decodeFlop = ({ model }, rows) => 2 * matrixParameters(model) * rows;
