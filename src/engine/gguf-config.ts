/**
 * A GGUF file's metadata and tensors as those of a Hugging Face checkpoint: config.json, generation_config.json and names.
 * Decoders of the llama, qwen2 and qwen3 architectures.
 */
import { join } from 'node:path';
import { corruptFile, readBytes } from './checkpoint-files.js';
import type { GgufHeader, GgufTensor } from './gguf.js';
import { ggufCount, ggufNumber, ggufText, required, shortDecimal, unsupportedGguf } from './gguf-metadata.js';
import type { JsonObject } from './model-config.js';
import type { TensorEntry, TensorIndex } from './safetensors.js';

const families: Readonly<Record<string, string>> = {
  llama: 'LlamaForCausalLM',
  qwen2: 'Qwen2ForCausalLM',
  qwen3: 'Qwen3ForCausalLM',
};

const outerNames: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};
const layerNames: Readonly<Record<string, string>> = {
  attn_norm: 'input_layernorm',
  ffn_norm: 'post_attention_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  attn_q_norm: 'self_attn.q_norm',
  attn_k_norm: 'self_attn.k_norm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};

/** The divisors of rotary frequencies, which a Hugging Face checkpoint has in its config. */
const frequencyTensor = 'rope_freqs.weight';

/** A tensor's Hugging Face name; one that this file does not know keeps its own, and is then refused as unexpected. */
export function huggingFaceName(name: string): string {
  const outer = /^(\w+)\.(weight|bias)$/.exec(name);
  if (outer !== null) return Object.hasOwn(outerNames, outer[1]!) ? `${outerNames[outer[1]!]}.${outer[2]}` : name;
  const inner = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name);
  if (inner === null || !Object.hasOwn(layerNames, inner[2]!)) return name;
  return `model.layers.${inner[1]}.${layerNames[inner[2]!]}.${inner[3]}`;
}

function architectureOf(header: GgufHeader): string {
  const key = 'general.architecture';
  const name = required(ggufText(header, key), header, key);
  if (Object.hasOwn(families, name)) return name;
  throw unsupportedGguf(header, key, Object.keys(families).join(', '), name);
}

/** Heads whose rows llama.cpp's converter wrote as pairs, because its Llama rotates neighbours. */
function interleavedHeads(header: GgufHeader, architecture: string, name: string): number {
  if (architecture !== 'llama') return 0;
  const part = /^blk\.\d+\.attn_([qk])\./.exec(name)?.[1];
  if (part === undefined) return 0;
  const heads = required(ggufCount(header, 'llama.attention.head_count'), header, 'llama.attention.head_count');
  return part === 'q' ? heads : (ggufCount(header, 'llama.attention.head_count_kv') ?? heads);
}

/** The tensors by their Hugging Face names. */
export function ggufTensorIndex(header: GgufHeader): TensorIndex {
  const architecture = architectureOf(header);
  const tensors = new Map<string, TensorEntry>();
  for (const { name, dtype, shape, offset, sizeBytes } of header.tensors.values()) {
    if (name === frequencyTensor) continue;
    const given = huggingFaceName(name);
    if (tensors.has(given)) throw corruptFile(header.path, `tensor "${name}" stands under two names`);
    const heads = interleavedHeads(header, architecture, name);
    const entry: TensorEntry = { dtype, shape, path: header.path, offset, sizeBytes };
    tensors.set(given, heads === 0 ? entry : { ...entry, interleavedHeads: heads });
  }
  return { tensors, metadata: {} };
}

function matrix(header: GgufHeader, name: string): GgufTensor {
  const tensor = header.tensors.get(name);
  if (tensor === undefined) throw corruptFile(header.path, `tensor "${name}" is missing`);
  if (tensor.shape.length !== 2) throw corruptFile(header.path, `tensor "${name}" is no matrix`);
  return tensor;
}

/** Llama 3's scaling, the only one whose frequencies converters write as a table; its other numbers are the same in all. */
const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

/** Divisors of the rotary frequencies, as Llama 3 (Grattafiori et al. 2024) makes them for `factor`. */
function llama3Divisors(factor: number, theta: number, headDim: number): number[] {
  const { low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: original } = llama3;
  return Array.from({ length: headDim / 2 }, (_, i) => {
    const turns = (original * theta ** ((-2 * i) / headDim)) / (2 * Math.PI);
    if (turns > high) return 1;
    if (turns < low) return factor;
    const smooth = (turns - low) / (high - low);
    return 1 / ((1 - smooth) / factor + smooth);
  });
}

/** The config whose frequencies are those of the file's table; undefined for a file without one. */
function llama3Scaling(header: GgufHeader, tables: RopeTables, theta: number, headDim: number): JsonObject | undefined {
  if (!header.tensors.has(frequencyTensor)) return undefined;
  const { divisors } = tables;
  const factor = divisors?.at(-1) ?? 0;
  const expected = llama3Divisors(factor, theta, headDim);
  const same =
    expected.length === divisors?.length && expected.every((one, i) => Math.abs(one / divisors[i]! - 1) < 1e-4);
  if (same) return { rope_type: 'llama3', factor, ...llama3 };
  throw unsupportedGguf(header, frequencyTensor, "the rotary frequencies of Llama 3's scaling", 'others');
}

/** Small tensors that a Hugging Face checkpoint has as numbers of its config. */
export interface RopeTables {
  divisors?: number[];
}

/** Reads them. Errors: 'corrupt_checkpoint', 'io'. */
export async function readRopeTables(header: GgufHeader): Promise<RopeTables> {
  const entry = header.tensors.get(frequencyTensor);
  if (entry === undefined) return {};
  const { dtype, sizeBytes, offset } = entry;
  const { path } = header;
  if (dtype !== 'F32' || sizeBytes > 4096)
    throw corruptFile(path, `tensor "${frequencyTensor}" is no table of numbers`);
  return { divisors: [...new Float32Array((await readBytes(path, offset, sizeBytes)).buffer)] };
}

function ropeParameters(header: GgufHeader, architecture: string, headDim: number, tables: RopeTables): JsonObject {
  const key = (name: string): string => `${architecture}.rope.${name}`;
  const base = { rope_theta: shortDecimal(ggufNumber(header, key('freq_base')) ?? 10000) };
  const type = ggufText(header, key('scaling.type')) ?? 'none';
  const factor = ggufNumber(header, key('scaling.factor')) ?? ggufNumber(header, key('scale_linear')) ?? 1;
  const original = ggufCount(header, key('scaling.original_context_length'));
  const extended = { ...base, ...(original === undefined ? {} : { original_max_position_embeddings: original }) };
  const scaling = llama3Scaling(header, tables, base.rope_theta, headDim);
  if (scaling !== undefined) return { ...scaling, ...base };
  if (type === 'yarn') return { rope_type: 'yarn', factor: shortDecimal(factor), ...extended };
  if (type !== 'none' && type !== 'linear') {
    throw unsupportedGguf(header, key('scaling.type'), '"none", "linear" or "yarn"', type);
  }
  if (factor === 1 || factor === 0) return { rope_type: 'default', ...base };
  return { rope_type: 'linear', factor: shortDecimal(factor), ...base };
}

function refuseOthers(header: GgufHeader, architecture: string, headDim: number): void {
  for (const [name, accepted] of [
    ['expert_count', 0],
    ['attention.sliding_window', 0],
    ['rope.dimension_count', headDim],
  ] as const) {
    const key = `${architecture}.${name}`;
    const value = ggufCount(header, key);
    if (value !== undefined && value !== accepted) throw unsupportedGguf(header, key, String(accepted), value);
  }
}

const has = (header: GgufHeader, name: string): boolean => header.tensors.has(name);

/** bfloat16 or float16 where every matrix is stored so; quantized ones are float32, which holds them exactly. */
function dtypeOf(header: GgufHeader): string {
  const matrices = [...header.tensors.values()].filter(({ shape }) => shape.length === 2);
  if (matrices.every(({ dtype }) => dtype === 'BF16')) return 'bfloat16';
  return matrices.every(({ dtype }) => dtype === 'F16') ? 'float16' : 'float32';
}

const tokenKeys = ['bos', 'eos', 'padding'] as const;

/** What config.json of the same model holds. Errors: 'corrupt_checkpoint' and 'unsupported', naming file and key. */
export function ggufConfig(header: GgufHeader, tables: RopeTables): JsonObject {
  const architecture = architectureOf(header);
  const key = (name: string): string => `${architecture}.${name}`;
  const count = (name: string): number => required(ggufCount(header, key(name)), header, key(name));
  const hidden = count('embedding_length');
  const heads = count('attention.head_count');
  const layers = count('block_count');
  const context = count('context_length');
  const [vocabulary, columns] = matrix(header, 'token_embd.weight').shape as [number, number];
  if (columns !== hidden) throw corruptFile(header.path, `"token_embd.weight" has ${columns} columns, not ${hidden}`);
  // A layer has tensors of its own, so a count that the file cannot hold is a lie.
  if (heads === 0 || layers === 0 || layers > header.tensors.size) {
    throw corruptFile(header.path, `${layers} layers of ${heads} heads in ${header.tensors.size} tensors`);
  }
  const headDim = ggufCount(header, key('attention.key_length')) ?? hidden / heads;
  refuseOthers(header, architecture, headDim);
  const bias = has(header, 'blk.0.attn_q.bias');
  const epsilon = 'attention.layer_norm_rms_epsilon';
  const ids = Object.fromEntries(
    tokenKeys.map((name) => [name, ggufCount(header, `tokenizer.ggml.${name}_token_id`) ?? null]),
  );
  return {
    architectures: [families[architecture]],
    model_type: architecture,
    hidden_act: 'silu',
    hidden_size: hidden,
    intermediate_size: count('feed_forward_length'),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: ggufCount(header, key('attention.head_count_kv')) ?? heads,
    ...(architecture === 'qwen2' ? {} : { head_dim: headDim, attention_bias: bias }),
    ...(architecture === 'llama' ? { mlp_bias: has(header, 'blk.0.ffn_up.bias') } : { use_sliding_window: false }),
    vocab_size: vocabulary,
    max_position_embeddings: context,
    rms_norm_eps: shortDecimal(required(ggufNumber(header, key(epsilon)), header, key(epsilon))),
    rope_parameters: ropeParameters(header, architecture, headDim, tables),
    tie_word_embeddings: !has(header, 'output.weight'),
    bos_token_id: ids['bos'],
    eos_token_id: ids['eos'],
    pad_token_id: ids['padding'],
    dtype: dtypeOf(header),
  };
}

/** Which tokens end a completion: end of sequence, and end of turn or message where the file names them. */
export function ggufGenerationConfig(header: GgufHeader): JsonObject {
  const id = (name: string): number | undefined => ggufCount(header, `tokenizer.ggml.${name}_token_id`);
  const ends = [...new Set([id('eos'), id('eot'), id('eom')].filter((one) => one !== undefined))];
  const [bos, pad] = [id('bos'), id('padding')];
  return {
    ...(bos === undefined ? {} : { bos_token_id: bos }),
    ...(ends.length === 0 ? {} : { eos_token_id: ends.length === 1 ? ends[0] : ends }),
    ...(pad === undefined ? {} : { pad_token_id: pad }),
  };
}

/** Where a folder keeps the weights that importGguf() gave it: a link to the GGUF file. */
export const ggufWeights = (folder: string): string => join(folder, 'model.gguf');
