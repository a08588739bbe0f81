/**
 * config.json of a Hugging Face checkpoint: which family, and its values as the native module takes them. What this engine
 * would compute differently from the model's authors is refused here.
 */
import type { NativeModelSpec } from '../binding/contract.js';
import { expected, GavelError } from '../errors.js';
import { defaultOptimizerState, type OptimizerState } from './optimizer-state.js';

export type JsonObject = Readonly<Record<string, unknown>>;
export type ModelDtype = 'fp32' | 'bf16';

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `model_type` and the native family that computes it; a text model saved on its own has its family's decoder. */
const families: Readonly<Record<string, string>> = {
  llama: 'llama',
  mistral: 'llama',
  qwen2: 'qwen2',
  qwen2_5_vl_text: 'qwen2',
  qwen3: 'qwen3',
  qwen3_vl_text: 'qwen3',
  qwen2_5_vl: 'qwen2_5_vl',
  qwen3_vl: 'qwen3_vl',
  llava_onevision: 'llava_onevision',
};

/** Errors: 'invalid_argument' unless `config` is an object. */
export function checkConfigObject(config: unknown): void {
  if (!isObject(config))
    throw expected('invalid_argument', 'config', 'an object, the values of a config.json,', config);
}

type Numbers = Record<string, number | number[]>;
interface Flat {
  numbers: Numbers;
  texts: Record<string, string>;
}

const isNumber = (value: unknown): value is number => typeof value === 'number';

function flatten(object: JsonObject, prefix: string, { numbers, texts }: Flat): void {
  for (const [key, value] of Object.entries(object)) {
    const name = `${prefix}${key}`;
    if (typeof value === 'number') numbers[name] = value;
    else if (typeof value === 'boolean') numbers[name] = Number(value);
    else if (typeof value === 'string') texts[name] = value;
    else if (Array.isArray(value)) {
      const flat: unknown[] = value.flat();
      if (flat.every(isNumber)) numbers[name] = flat;
    } else if (isObject(value)) flatten(value, `${name}.`, { numbers, texts });
  }
}

/** The rope settings of a text config: `rope_parameters`, or what older checkpoints have instead; both spellings of the type. */
function ropeOf(text: JsonObject): JsonObject {
  const old = text['rope_scaling'];
  const rope = isObject(old) && Object.keys(old).length > 0 ? old : text['rope_parameters'];
  const { type, rope_type: current, ...rest } = isObject(rope) ? rope : {};
  const theta = text['rope_theta'];
  return {
    ...(theta === undefined || theta === null ? {} : { rope_theta: theta }),
    ...rest,
    ...(typeof (current ?? type) === 'string' ? { rope_type: current ?? type } : {}),
  };
}

const unsupported = (
  name: string,
  what: string,
  received: unknown,
  advice = 'This engine computes nothing else there: choose another checkpoint.',
): GavelError =>
  new GavelError(
    'unsupported',
    `Expected ${what} for \`${name}\` of the model's config but received ${JSON.stringify(received)}. ${advice}`,
    { fields: { name, expected: what, received: JSON.stringify(received) ?? 'undefined' } },
  );

function refuseOtherArithmetic(config: JsonObject): void {
  const text = isObject(config['text_config']) ? { ...config, ...config['text_config'] } : config;
  const activation = text['hidden_act'];
  if (activation !== undefined && activation !== 'silu') throw unsupported('hidden_act', '"silu"', activation);
  if (text['use_sliding_window'] === true) throw unsupported('use_sliding_window', 'false', true);
  // Mistral's window is on unless the config says null.
  const window = text['sliding_window'];
  if (config['model_type'] === 'mistral' && window !== null) throw unsupported('sliding_window', 'null', window);
  const layers = text['layer_types'];
  if (Array.isArray(layers)) {
    const other: unknown = layers.find((layer) => layer !== 'full_attention');
    if (other !== undefined) throw unsupported('layer_types', '"full_attention" in every layer', other);
  }
}

/**
 * The native module's view of a config: numbers, booleans (0 or 1) and texts under dotted names, `text_config` lifted to the
 * top, rope settings in their newest spelling.
 * Errors: 'invalid_config' without a model_type, 'unsupported' for arithmetic this engine does not have.
 */
export function modelSpec(
  config: JsonObject,
  dtype: ModelDtype,
  optimizer: OptimizerState = defaultOptimizerState,
): NativeModelSpec {
  const family = config['model_type'];
  if (typeof family !== 'string') {
    throw new GavelError(
      'invalid_config',
      `Expected a string for \`model_type\` of the model's config but received ${JSON.stringify(family) ?? 'undefined'}. ` +
        'Name a Hugging Face checkpoint or give its whole config.',
      { fields: { name: 'model_type' } },
    );
  }
  const native = families[family];
  if (native === undefined) {
    const known = Object.keys(families).join(', ');
    throw unsupported('model_type', `one of ${known}`, family, 'Choose a checkpoint of one of these families.');
  }
  refuseOtherArithmetic(config);
  const { text_config: inner, ...outer } = config;
  const text = isObject(inner) ? inner : {};
  const flat: Flat = { numbers: {}, texts: {} };
  const withoutRope = ({ rope_scaling: _old, rope_parameters: _new, ...rest }: JsonObject): JsonObject => rest;
  flatten(withoutRope(outer), '', flat);
  flatten(withoutRope(text), '', flat);
  flatten(ropeOf({ ...outer, ...text }), 'rope_parameters.', flat);
  // The head of a vision-language model is tied by the outer config; some older ones say so in the text config alone.
  const tied = outer['tie_word_embeddings'] ?? text['tie_word_embeddings'];
  const forwarded = native !== 'qwen3_vl' && text['tie_word_embeddings'] === true;
  flat.numbers['tie_word_embeddings'] = Number(tied === true || forwarded);
  return { family: native, ...flat, dtype, optimizer };
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
