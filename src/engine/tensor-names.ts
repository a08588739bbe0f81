/**
 * Checkpoints of one model come under several names: transformers moved `visual.*` to `model.visual.*`, `model.*` to
 * `model.language_model.*` and `vision_tower.vision_model.*` to `model.vision_tower.*`. Names are compared by one canonical
 * form. Saved are those of the published checkpoints.
 */
import type { NativeTensorInfo, NativeTensorSource } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import { isTied, modelSpec, type JsonObject } from './model-config.js';
import type { TensorEntry, TensorIndex } from './safetensors.js';

const renames: readonly (readonly [RegExp, string])[] = [
  [/^(model\.language_model|language_model\.model)\./, 'model.'],
  [/^language_model\.lm_head\./, 'lm_head.'],
  [/^model\.visual\./, 'visual.'],
  [/^(model\.)?vision_tower\.(vision_model\.)?/, 'vision_tower.'],
  [/^model\.(multi_modal_projector\.|image_newline$)/, '$1'],
  // A decoder saved without its head's class.
  [/^(embed_tokens|layers|norm)\./, 'model.$1.'],
];

/** The form in which names of a checkpoint and of the engine meet. */
export function canonicalName(name: string): string {
  for (const [pattern, replacement] of renames) if (pattern.test(name)) return name.replace(pattern, replacement);
  return name;
}

/**
 * A tensor's shape in a checkpoint. The engine sees a convolution over patches as the matrix it is; files keep the kernel's
 * [H, channels, temporal, patch, patch].
 */
export function checkpointShape({ name, shape }: NativeTensorInfo, config: JsonObject): readonly number[] {
  if (canonicalName(name) !== 'visual.patch_embed.proj.weight' || shape.length !== 2) return shape;
  const { numbers } = modelSpec(config, 'fp32');
  const read = (key: string, otherwise: number): number => {
    const value = numbers[`vision_config.${key}`];
    return typeof value === 'number' ? value : otherwise;
  };
  const patch = read('patch_size', config['model_type'] === 'qwen3_vl' ? 16 : 14);
  const channels = read('in_channels', read('in_chans', 3));
  const kernel = [channels, read('temporal_patch_size', 2), patch, patch];
  const columns = kernel.reduce((product, size) => product * size, 1);
  return columns === shape[1] ? [shape[0]!, ...kernel] : shape;
}

/** Tables that old checkpoints carry and every implementation computes. */
const isBuffer = (name: string): boolean => name.endsWith('rotary_emb.inv_freq');

const isTokenTable = (key: string): boolean => key === 'model.embed_tokens.weight' || key === 'lm_head.weight';

const listed = (names: readonly string[]): string =>
  names.slice(0, 5).join(', ') + (names.length > 5 ? ` and ${names.length - 5} more` : '');

function corrupt(folder: string, what: string, names: readonly string[], advice: string): GavelError {
  return new GavelError(
    'corrupt_checkpoint',
    `Expected the tensors of its config in "${folder}" but ${what}: ${listed(names)}. ${advice}`,
    {
      fields: { folder, tensors: names.join(', ') },
    },
  );
}

const sameShape = (a: readonly number[], b: readonly number[]): boolean =>
  a.length === b.length && a.every((size, i) => size === b[i]);

const loadable = ['F32', 'BF16', 'F16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K', 'Q6_K'] as const;
type LoadableDtype = (typeof loadable)[number];

function sourceOf(name: string, entry: TensorEntry): NativeTensorSource {
  const { dtype, path, offset, sizeBytes, interleavedHeads } = entry;
  if (!(loadable as readonly string[]).includes(dtype)) {
    throw new GavelError(
      'unsupported',
      `Expected F32, BF16 or F16 for tensor "${name}" but received ${dtype}. Convert the checkpoint.`,
      {
        fields: { name, dtype, path },
      },
    );
  }
  const source = { name, kind: 'value' as const, path, offset, sizeBytes, dtype: dtype as LoadableDtype };
  return interleavedHeads === undefined ? source : { ...source, interleavedHeads };
}

/**
 * Where each of the model's tensors lies in a checkpoint, in file order. `storedRows`: of the embedding and head of a
 * checkpoint whose vocabulary the model's has outgrown.
 * Errors: 'corrupt_checkpoint' naming tensors that are missing, unexpected or of another shape.
 */
export function matchTensors(
  tensors: readonly NativeTensorInfo[],
  index: TensorIndex,
  folder: string,
  config: JsonObject,
  storedRows?: number,
): NativeTensorSource[] {
  const tied = isTied(config);
  const found = new Map([...index.tensors].map(([name, entry]) => [canonicalName(name), { name, entry }]));
  const missing: string[] = [];
  const misshaped: string[] = [];
  const sources: NativeTensorSource[] = [];
  for (const tensor of tensors) {
    const { name } = tensor;
    const shape = checkpointShape(tensor, config);
    const key = canonicalName(name);
    const match = found.get(key);
    found.delete(key);
    const grown = storedRows !== undefined && isTokenTable(key) ? [storedRows, ...shape.slice(1)] : undefined;
    if (match === undefined) missing.push(name);
    else if (grown !== undefined && sameShape(grown, match.entry.shape))
      sources.push({ ...sourceOf(name, match.entry), rows: storedRows! });
    else if (!sameShape(shape, match.entry.shape)) {
      misshaped.push(`${match.name} is [${match.entry.shape.join(', ')}], not [${shape.join(', ')}]`);
    } else sources.push(sourceOf(name, match.entry));
  }
  if (missing.length > 0)
    throw corrupt(folder, 'these are missing', missing, 'Fetch the checkpoint again, with all its files.');
  if (misshaped.length > 0)
    throw corrupt(folder, 'these have another shape', misshaped, 'Its config.json belongs to another model.');
  const rest = [...found.keys()].filter((key) => !isBuffer(key) && !(tied && key === 'lm_head.weight'));
  if (rest.length > 0) throw corrupt(folder, 'these are unexpected', rest, 'Its config.json belongs to another model.');
  return sources.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : a.offset - b.offset));
}
