/**
 * Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors, whose tensors are named after the modules
 * of transformers' classes.
 */
import { join } from 'node:path';
import { z } from 'zod';
import type { NativeTensorInfo } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import { readOptionalJson } from './checkpoint-files.js';
import type { Adapter, AdapterLayer } from './lora.js';
import { readSafetensorsHeader, type TensorIndex } from './safetensors.js';
import { canonicalName } from './tensor-names.js';

export const adapterConfigFile = 'adapter_config.json';
export const adapterWeightsFile = 'adapter_model.safetensors';
const prefix = 'base_model.model.';

const configSchema = z.looseObject({
  peft_type: z.literal('LORA'),
  base_model_name_or_path: z.string().nullish(),
  r: z.number().int().min(1),
  lora_alpha: z.number().positive(),
  lora_dropout: z.number().min(0).lt(1).default(0),
  use_rslora: z.boolean().nullish(),
  rank_pattern: z.record(z.string(), z.number()).nullish(),
  alpha_pattern: z.record(z.string(), z.number().positive()).nullish(),
  trainable_token_indices: z
    .union([z.array(z.number().int().min(0)), z.record(z.string(), z.array(z.number().int().min(0)))])
    .nullish(),
});

/** Settings that change the arithmetic and that this engine does not have, with the values it takes. */
const refused: readonly (readonly [string, (value: unknown) => boolean])[] = [
  ['use_dora', (value) => value === false],
  ['bias', (value) => value === 'none'],
  ['lora_bias', (value) => value === false],
  ['fan_in_fan_out', (value) => value === false],
  ['modules_to_save', (value) => Array.isArray(value) && value.length === 0],
  ['target_parameters', (value) => Array.isArray(value) && value.length === 0],
  ['layer_replication', () => false],
];

/** An adapter folder as read: what to attach, and where its tensors lie. */
export interface PeftAdapter {
  /** The weights of its layers have canonical names. */
  adapter: Adapter;
  base: string | undefined;
  /** By canonical name of the engine's tensor. */
  tensors: TensorIndex['tensors'];
  path: string;
}

const corrupt = (path: string, what: string): GavelError =>
  new GavelError('corrupt_checkpoint', `Expected a PEFT adapter in "${path}" but ${what}. Save it again.`, {
    fields: { path },
  });

/** The engine's name of a tensor of adapter_model.safetensors. */
function engineName(stored: string): string {
  const name = stored.startsWith(prefix) ? stored.slice(prefix.length) : stored;
  return canonicalName(
    name
      .replace(/\.(lora_[AB])\.default\.weight$/, '.$1.weight')
      .replace(/\.(token_adapter\.)?trainable_tokens_delta(\.default)?$/, '.trainable_tokens'),
  );
}

/** Reads adapter_config.json and the header of the weights. Undefined when the folder holds no adapter. */
export async function readPeftAdapter(folder: string): Promise<PeftAdapter | undefined> {
  const config = await readOptionalJson(folder, adapterConfigFile);
  if (config === undefined) return undefined;
  const path = join(folder, adapterConfigFile);
  const parsed = configSchema.safeParse(config);
  if (!parsed.success) throw corrupt(path, z.prettifyError(parsed.error).replaceAll('\n', '; '));
  for (const [key, accepts] of refused) {
    const value = config[key];
    if (value === undefined || value === null || accepts(value)) continue;
    throw new GavelError(
      'unsupported',
      `Expected an adapter without \`${key}\` in "${path}" but received ${JSON.stringify(value)}. Merge it with PEFT and load the merged model.`,
      { fields: { path, key } },
    );
  }
  const { lora_alpha, alpha_pattern, lora_dropout, use_rslora, base_model_name_or_path } = parsed.data;
  const weights = join(folder, adapterWeightsFile);
  const index = await readSafetensorsHeader(weights);
  const tensors = new Map([...index.tensors].map(([stored, entry]) => [engineName(stored), entry]));
  const layers: AdapterLayer[] = [];
  for (const [stored, { shape }] of index.tensors) {
    const name = engineName(stored);
    const match = /^(.*)\.lora_([AB])\.weight$/.exec(name);
    if (match === null && !name.endsWith('.trainable_tokens'))
      throw corrupt(weights, `it has a tensor "${stored}" that is no part of one`);
    if (match?.[2] !== 'A') continue;
    const layer = stored.slice(prefix.length).replace(/\.lora_A\..*$/, '');
    const rank = patternValue(parsed.data.rank_pattern, layer, path) ?? parsed.data.r;
    if (shape[0] !== rank)
      throw corrupt(weights, `"${stored}" is [${shape.join(', ')}] where its config has rank ${rank}`);
    layers.push({
      weight: `${match[1]!}.weight`,
      rank,
      alpha: patternValue(alpha_pattern, layer, path) ?? lora_alpha,
    });
  }
  return {
    adapter: {
      layers,
      rankStabilized: use_rslora === true,
      dropout: lora_dropout,
      seed: 0,
      trainableTokens: tokenIndices(parsed.data.trainable_token_indices, path),
    },
    base: base_model_name_or_path ?? undefined,
    tensors,
    path: weights,
  };
}

/** PEFT's patterns are regular expressions for the end of a module's name. */
function patternValue(
  patterns: Readonly<Record<string, number>> | null | undefined,
  layer: string,
  path: string,
): number | undefined {
  for (const [pattern, value] of Object.entries(patterns ?? {})) {
    let expression;
    try {
      expression = new RegExp(`^(?:.*\\.)?(?:${pattern})$`);
    } catch {
      throw corrupt(path, `its pattern ${JSON.stringify(pattern)} is no regular expression`);
    }
    if (expression.test(layer)) return value;
  }
  return undefined;
}

function tokenIndices(value: z.output<typeof configSchema>['trainable_token_indices'], path: string): number[] {
  if (value === null || value === undefined) return [];
  if (Array.isArray(value)) return value;
  const lists = Object.entries(value);
  const [first] = lists;
  if (lists.length === 1 && first?.[0] === 'embed_tokens') return first[1];
  throw new GavelError(
    'unsupported',
    `Expected \`trainable_token_indices\` of embed_tokens in "${path}" but received ${Object.keys(value).join(', ')}.`,
    { fields: { path } },
  );
}

/** Families whose decoder is `model.language_model` in transformers, and where their other parts are. */
const nested = new Set(['qwen2_5_vl', 'qwen2_vl', 'qwen3_vl', 'llava_onevision']);

/** The module of a tensor in transformers' class of the family. */
function moduleName(family: string, name: string): string {
  const canonical = canonicalName(name);
  if (!nested.has(family) || canonical.startsWith('lm_head.')) return canonical;
  return canonical.startsWith('model.') ? canonical.replace(/^model\./, 'model.language_model.') : `model.${canonical}`;
}

/** The name that PEFT gives an adapter tensor of this model. */
export function peftName(family: string, name: string): string {
  const tokens = /^(.*)\.trainable_tokens$/.exec(name);
  const stored =
    tokens === null
      ? moduleName(family, name)
      : `${moduleName(family, tokens[1]!)}.token_adapter.trainable_tokens_delta`;
  return `${prefix}${stored}`;
}

/** The names in `target_modules`: a layer's last part where all of that name are adapted, else its whole name. */
function targetModules(family: string, all: readonly string[], adapted: ReadonlySet<string>): string[] {
  const last = (name: string): string => name.split('.').at(-2)!;
  const partial = new Set(all.filter((name) => !adapted.has(name)).map(last));
  // PEFT matches ends of names, of every module: a bare number would name a block.
  const isShort = (name: string): boolean => !partial.has(last(name)) && !/^\d+$/.test(last(name));
  const modules = [...adapted].map((name) =>
    !isShort(name) ? moduleName(family, name).slice(0, -'.weight'.length) : last(name),
  );
  return [...new Set(modules)].sort();
}

/** adapter_config.json of a model's adapter. */
export function peftConfig(options: {
  family: string;
  tensors: readonly NativeTensorInfo[];
  adapter: Adapter;
  base: string | undefined;
}): Record<string, unknown> {
  const { family, tensors, adapter, base } = options;
  const { layers, dropout, rankStabilized, trainableTokens } = adapter;
  const matrices = tensors
    .filter((tensor) => tensor.kind === 'matrix' && !tensor.adapter && !tensor.rewardHead)
    .map(({ name }) => name);
  const { rank, alpha } = layers[0] ?? { rank: 1, alpha: 1 };
  const differing = (key: 'rank' | 'alpha', common: number): Record<string, number> =>
    Object.fromEntries(
      layers
        .filter((layer) => layer[key] !== common)
        .map((layer) => [moduleName(family, layer.weight).slice(0, -'.weight'.length), layer[key]]),
    );
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base ?? null,
    r: rank,
    lora_alpha: alpha,
    rank_pattern: differing('rank', rank),
    alpha_pattern: differing('alpha', alpha),
    lora_dropout: dropout,
    use_rslora: rankStabilized,
    target_modules: targetModules(family, matrices, new Set(layers.map(({ weight }) => weight))),
    trainable_token_indices: trainableTokens.length === 0 ? null : trainableTokens,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    modules_to_save: null,
    use_dora: false,
  };
}
