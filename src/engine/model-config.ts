/**
 * config.json of a Hugging Face checkpoint: which family, and its numbers as the native module takes them. What this engine
 * would compute differently from the model's authors is refused here.
 */
import type { NativeModelSpec } from '../binding/contract.js';
import { GavelError } from '../errors.js';

export type JsonObject = Readonly<Record<string, unknown>>;
export type ModelDtype = 'fp32' | 'bf16';

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function flatten(object: JsonObject, prefix: string, numbers: Record<string, number | number[]>): void {
  for (const [key, value] of Object.entries(object)) {
    const name = `${prefix}${key}`;
    if (typeof value === 'number') numbers[name] = value;
    else if (typeof value === 'boolean') numbers[name] = Number(value);
    else if (Array.isArray(value) && value.every((entry) => typeof entry === 'number')) numbers[name] = value;
    else if (isObject(value)) flatten(value, `${name}.`, numbers);
  }
}

/** Older checkpoints keep `rope_theta` and `rope_scaling` where newer ones have `rope_parameters`. */
function renameRope(numbers: Record<string, number | number[]>): void {
  for (const [old, current] of [
    ['rope_theta', 'rope_parameters.rope_theta'],
    ['rope_scaling.mrope_section', 'rope_parameters.mrope_section'],
  ] as const) {
    const value = numbers[old];
    if (value !== undefined) numbers[current] ??= value;
  }
}

const unsupported = (name: string, what: string, received: unknown): GavelError =>
  new GavelError(
    'unsupported',
    `Expected ${what} for \`${name}\` of the model's config but received ${JSON.stringify(received)}. ` +
      'Choose a checkpoint without it.',
    { fields: { name, expected: what, received: JSON.stringify(received) ?? 'undefined' } },
  );

function refuseOtherArithmetic(config: JsonObject): void {
  const text = isObject(config['text_config']) ? { ...config, ...config['text_config'] } : config;
  const activation = text['hidden_act'];
  if (activation !== undefined && activation !== 'silu') throw unsupported('hidden_act', '"silu"', activation);
  const rope = isObject(text['rope_parameters']) ? text['rope_parameters'] : text['rope_scaling'];
  if (isObject(rope)) {
    const type = rope['rope_type'] ?? rope['type'];
    if (type !== undefined && type !== 'default' && type !== 'mrope') {
      throw unsupported('rope_parameters.rope_type', '"default" or "mrope"', type);
    }
  }
  if (text['use_sliding_window'] === true) throw unsupported('use_sliding_window', 'false', true);
  const layers = text['layer_types'];
  if (Array.isArray(layers)) {
    const other: unknown = layers.find((layer) => layer !== 'full_attention');
    if (other !== undefined) throw unsupported('layer_types', '"full_attention" in every layer', other);
  }
}

/**
 * The native module's view of a config: numbers and booleans (0 or 1) under dotted names, `text_config` lifted to the top.
 * Errors: 'invalid_config' without a model_type, 'unsupported' for arithmetic this engine does not have.
 */
export function modelSpec(config: JsonObject, dtype: ModelDtype): NativeModelSpec {
  const family = config['model_type'];
  if (typeof family !== 'string') {
    throw new GavelError(
      'invalid_config',
      `Expected a string for \`model_type\` of the model's config but received ${JSON.stringify(family) ?? 'undefined'}. ` +
        'Name a Hugging Face checkpoint or give its whole config.',
      { fields: { name: 'model_type' } },
    );
  }
  refuseOtherArithmetic(config);
  const { text_config: text, ...outer } = config;
  const numbers: Record<string, number | number[]> = {};
  flatten(outer, '', numbers);
  const tied = numbers['tie_word_embeddings'];
  if (isObject(text)) flatten(text, '', numbers);
  if (tied !== undefined) numbers['tie_word_embeddings'] = tied;
  renameRope(numbers);
  return { family, numbers, dtype };
}

/** The dtype a checkpoint is stored in: bf16 for bfloat16, else fp32, which holds float16 exactly. */
export function storedDtype(config: JsonObject): ModelDtype {
  const text = isObject(config['text_config']) ? config['text_config'] : {};
  const stored = config['dtype'] ?? config['torch_dtype'] ?? text['dtype'] ?? text['torch_dtype'];
  return stored === 'bfloat16' ? 'bf16' : 'fp32';
}

/** The config of a model in `dtype`: unchanged but for the dtype it names. */
export function configWithDtype(config: JsonObject, dtype: ModelDtype): JsonObject {
  const { torch_dtype: _old, ...rest } = config;
  const name = dtype === 'bf16' ? 'bfloat16' : 'float32';
  const text = rest['text_config'];
  if (!isObject(text) || !('dtype' in text || 'torch_dtype' in text)) return { ...rest, dtype: name };
  const { torch_dtype: _inner, ...innerRest } = text;
  return { ...rest, dtype: name, text_config: { ...innerRest, dtype: name } };
}

/** Whether the language head is the embedding. */
export const isTied = (config: JsonObject): boolean => modelSpec(config, 'fp32').numbers['tie_word_embeddings'] === 1;

/** A token id, or ids, of config.json or generation_config.json. */
export function tokenIds(config: JsonObject, name: string): number[] {
  const text = isObject(config['text_config']) ? config['text_config'] : {};
  const value = config[name] ?? text[name];
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.filter((id): id is number => typeof id === 'number' && Number.isInteger(id) && id >= 0);
}
