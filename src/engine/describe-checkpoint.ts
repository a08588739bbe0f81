/**
 * What a checkpoint holds, told from its small files and the headers of its weights; no weight is read. Works for folders,
 * PEFT adapters, GGUF files and hub ids, and for families that this engine cannot run: `supported` says so.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { readJson, readOptionalJson } from './checkpoint-files.js';
import { checkTensors } from './check-tensors.js';
import { partOf, type ModelPart } from './tensor-parts.js';
import { resolveHeaders, type ResolveOptions } from './hub.js';
import { isTied, modelSpec, storedDtype, type JsonObject } from './model-config.js';
import { readCheckpointTensors, readSafetensorsHeader, type TensorIndex } from './safetensors.js';

export interface CheckpointDescription {
  name: string;
  /** Where its small files are. */
  path: string;
  kind: 'checkpoint' | 'adapter' | 'gguf';
  /** `model_type` of its config; of an adapter, null. */
  family: string | null;
  /** Whether this engine runs it, and if not, why. */
  supported: boolean;
  reason: string | null;
  /** Tensors that are missing, unexpected or of another shape than its config says; null when there are none, and unknown without an addon. */
  problem: string | null;
  /** What an adapter was trained on. */
  base: string | null;
  contextLength: number | null;
  vocabularySize: number | null;
  layers: number | null;
  hiddenSize: number | null;
  tiedHead: boolean;
  parameters: Record<ModelPart, number> & { total: number };
  dtypes: Record<string, { tensors: number; parameters: number; sizeBytes: number }>;
  sizeBytes: number;
  /** File that serves each purpose, or null. */
  files: Record<'tokenizer' | 'chatTemplate' | 'imageProcessor' | 'videoProcessor' | 'generationConfig', string | null>;
  config: JsonObject | null;
}

const count = (value: unknown): number | null => (typeof value === 'number' ? value : null);

/** Errors: 'io' (no such checkpoint), 'corrupt_checkpoint', and those of resolveCheckpoint(). */
export async function describeCheckpoint(name: string, options: ResolveOptions = {}): Promise<CheckpointDescription> {
  const { folder, tensors } = await resolveHeaders(name, options);
  const adapter = await readOptionalJson(folder, 'adapter_config.json');
  const config = adapter === undefined ? await readJson(folder, 'config.json') : null;
  const index =
    tensors ??
    (adapter === undefined
      ? await readCheckpointTensors(folder)
      : await readSafetensorsHeader(join(folder, 'adapter_model.safetensors')));
  const inner = config?.['text_config'];
  const text: JsonObject = typeof inner === 'object' && inner !== null ? { ...config, ...inner } : (config ?? {});
  const base = adapter?.['base_model_name_or_path'];
  const family = config?.['model_type'];
  const judgement = judged(config);
  return {
    name,
    path: folder,
    kind: adapter !== undefined ? 'adapter' : name.endsWith('.gguf') ? 'gguf' : 'checkpoint',
    family: typeof family === 'string' ? family : null,
    ...judgement,
    problem: config === null || !judgement.supported ? null : await problemOf(config, index, folder),
    base: typeof base === 'string' ? base : null,
    contextLength: count(text['max_position_embeddings']),
    vocabularySize: count(text['vocab_size']),
    layers: count(text['num_hidden_layers']),
    hiddenSize: count(text['hidden_size']),
    ...counted(index),
    files: await companionsOf(folder),
    config,
  };
}

function judged(config: JsonObject | null): { supported: boolean; reason: string | null; tiedHead: boolean } {
  if (config === null) return { supported: true, reason: null, tiedHead: false };
  try {
    modelSpec(config, storedDtype(config));
    return { supported: true, reason: null, tiedHead: isTied(config) };
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    return { supported: false, reason: error.message, tiedHead: config['tie_word_embeddings'] === true };
  }
}

async function problemOf(config: JsonObject, index: TensorIndex, folder: string): Promise<string | null> {
  try {
    await checkTensors(config, index, folder);
    return null;
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    // What the engine says of the config itself is told with the memory need.
    return error.code === 'corrupt_checkpoint' ? error.message : null;
  }
}

function counted(index: TensorIndex): Pick<CheckpointDescription, 'parameters' | 'dtypes' | 'sizeBytes'> {
  const parameters = { embedding: 0, decoder: 0, head: 0, vision: 0, projector: 0, adapter: 0, total: 0 };
  const dtypes: CheckpointDescription['dtypes'] = {};
  let total = 0;
  for (const [name, { dtype, shape, sizeBytes }] of index.tensors) {
    const numElements = shape.reduce((product, size) => product * size, 1);
    parameters[partOf(name)] += numElements;
    parameters.total += numElements;
    const entry = (dtypes[dtype] ??= { tensors: 0, parameters: 0, sizeBytes: 0 });
    entry.tensors++;
    entry.parameters += numElements;
    entry.sizeBytes += sizeBytes;
    total += sizeBytes;
  }
  return { parameters, dtypes, sizeBytes: total };
}

async function companionsOf(folder: string): Promise<CheckpointDescription['files']> {
  const names = new Set(await readdir(folder));
  const first = (...candidates: string[]): string | null => candidates.find((name) => names.has(name)) ?? null;
  const template = (await readOptionalJson(folder, 'tokenizer_config.json'))?.['chat_template'];
  const processor = await readOptionalJson(folder, 'processor_config.json');
  const nested = (key: string): string | null => (processor?.[key] === undefined ? null : 'processor_config.json');
  return {
    tokenizer: first('tokenizer.json', 'tokenizer.model'),
    chatTemplate:
      first('chat_template.jinja', 'chat_template.json') ??
      (template === undefined || template === null ? null : 'tokenizer_config.json'),
    imageProcessor: first('preprocessor_config.json') ?? nested('image_processor'),
    videoProcessor: first('video_preprocessor_config.json') ?? nested('video_processor'),
    generationConfig: first('generation_config.json'),
  };
}
