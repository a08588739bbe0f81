/**
 * A model's folder: config.json, model.safetensors, the tokenizer's and processor's files, and, when asked for,
 * optimizer.safetensors with masters, moments and the step. What is saved and loaded again is equal bit for bit.
 */
import { join } from 'node:path';
import type { NativeModel, NativeTensorKind, NativeTensorSink, NativeTensorSource } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import { corruptFile, readJson } from './checkpoint-files.js';
import { copyPresent, writeFolder, writeSynced } from './folder.js';
import { configWithDtype, type JsonObject, type ModelDtype } from './model-config.js';
import {
  readCheckpointTensors,
  readSafetensorsHeader,
  writeSafetensorsHeader,
  type TensorPlan,
} from './safetensors.js';
import { checkpointShape, matchTensors } from './tensor-names.js';

const weightsFile = 'model.safetensors';
const optimizerFile = 'optimizer.safetensors';

/** Files that travel with a checkpoint although the engine itself reads none of them. */
const companionFiles = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'processor_config.json',
  'preprocessor_config.json',
  'video_preprocessor_config.json',
  'generation_config.json',
];

/** What a checkpoint is written from. */
export interface CheckpointModel {
  native: NativeModel;
  config: JsonObject;
  dtype: ModelDtype;
  /** Folder whose tokenizer and processor files are copied; none when undefined. */
  companions: string | undefined;
}

interface PlannedTensor extends NativeTensorSink {
  shape: readonly number[];
  /** Name in the file. */
  stored: string;
}

async function saveTensors(
  native: NativeModel,
  path: string,
  tensors: readonly PlannedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const plans = tensors.map(({ stored, dtype, shape }): TensorPlan => ({ name: stored, dtype, shape }));
  const header = new Uint8Array(writeSafetensorsHeader(plans, metadata));
  await native.saveTensors(
    path,
    header,
    tensors.map(({ name, kind, dtype }) => ({ name, kind, dtype })),
  );
}

async function saveWeights({ native, config, dtype }: CheckpointModel, folder: string): Promise<void> {
  const stored = dtype === 'bf16' ? 'BF16' : 'F32';
  const tensors = native.tensors().map((tensor): PlannedTensor => {
    const { name } = tensor;
    return { name, stored: name, kind: 'value', dtype: stored, shape: checkpointShape(tensor, config) };
  });
  await saveTensors(native, join(folder, weightsFile), tensors, { format: 'pt' });
}

/** Kinds of optimizer state a model has: masters of bf16 values, moments after the first step. */
function stateKinds(dtype: ModelDtype, step: number): NativeTensorKind[] {
  if (step === 0) return [];
  return dtype === 'bf16' ? ['master', 'moment1', 'moment2'] : ['moment1', 'moment2'];
}

async function saveOptimizer(native: NativeModel, folder: string, dtype: ModelDtype): Promise<void> {
  const step = native.optimizerStepCount();
  const tensors = native
    .tensors()
    .filter(({ trainable }) => trainable)
    .flatMap(({ name, shape }) =>
      stateKinds(dtype, step).map((kind): PlannedTensor => ({
        name,
        stored: `${kind}.${name}`,
        kind,
        dtype: 'F32',
        shape,
      })),
    );
  await saveTensors(native, join(folder, optimizerFile), tensors, { step: String(step) });
}

/** Writes the folder whole or not at all. */
export async function saveCheckpoint(
  model: CheckpointModel,
  folder: string,
  options: { optimizer: boolean },
): Promise<void> {
  const { native, config, dtype, companions } = model;
  await writeFolder(folder, 'config.json', async (temporary) => {
    const text = `${JSON.stringify(configWithDtype(config, dtype), null, 2)}\n`;
    await writeSynced(join(temporary, 'config.json'), text);
    if (companions !== undefined) await copyPresent(companions, temporary, companionFiles);
    await saveWeights(model, temporary);
    if (options.optimizer) await saveOptimizer(native, temporary, dtype);
  });
}

/** Loads the weights of a checkpoint folder into a model of the same config. */
export async function loadWeights(native: NativeModel, folder: string, config: JsonObject): Promise<void> {
  const index = await readCheckpointTensors(folder);
  await native.loadTensors(matchTensors(native.tensors(), index, folder, config));
}

/** The tensors of optimizer.safetensors and its step; undefined when the folder has none. */
async function readOptimizer(folder: string): Promise<{ sources: NativeTensorSource[]; step: number } | undefined> {
  const path = join(folder, optimizerFile);
  const index = await readSafetensorsHeader(path).catch((error: unknown) => {
    if (GavelError.is(error) && error.fields['errno'] === 'ENOENT') return undefined;
    throw error;
  });
  if (index === undefined) return undefined;
  const step = Number(index.metadata['step']);
  if (!Number.isSafeInteger(step) || step < 0) throw corruptFile(path, 'its metadata names no step');
  const sources = [...index.tensors].map(([stored, { dtype, offset, sizeBytes }]): NativeTensorSource => {
    const [kind, ...rest] = stored.split('.');
    if ((kind !== 'master' && kind !== 'moment1' && kind !== 'moment2') || dtype !== 'F32') {
      throw corruptFile(path, `tensor "${stored}" is no optimizer state`);
    }
    return { name: rest.join('.'), kind, path, offset, sizeBytes, dtype };
  });
  return { sources, step };
}

/** Zero moments and step 0: the state before the first step. Gradients are cleared too. */
export async function resetOptimizer(native: NativeModel): Promise<void> {
  await native.zeroGradients();
  if (native.optimizerStepCount() > 0) {
    for (const { name, shape, trainable } of native.tensors()) {
      if (!trainable) continue;
      const zeros = new Float32Array(shape.reduce((product, size) => product * size, 1));
      await native.writeTensor(name, 'moment1', zeros);
      await native.writeTensor(name, 'moment2', zeros);
    }
  }
  native.setOptimizerStepCount(0);
}

/**
 * Restores weights and, when the folder has it, optimizer state; without it the optimizer starts anew. Gradients are
 * cleared. The folder's config must be of the same model.
 */
export async function loadCheckpoint(model: CheckpointModel, folder: string): Promise<void> {
  const { native, config, dtype } = model;
  const found = await readJson(folder, 'config.json');
  if (found['model_type'] !== config['model_type']) {
    throw new GavelError(
      'corrupt_checkpoint',
      `Expected a checkpoint of family "${String(config['model_type'])}" in "${folder}" but received ` +
        `"${String(found['model_type'])}". Load it as a model of its own.`,
      { fields: { folder } },
    );
  }
  const index = await readCheckpointTensors(folder);
  const sources = matchTensors(native.tensors(), index, folder, config);
  const optimizer = await readOptimizer(folder);
  await native.loadTensors(sources);
  await resetOptimizer(native);
  if (optimizer === undefined) return;
  const states = optimizer.sources.filter(({ kind }) => kind !== 'master' || dtype === 'bf16');
  await native.loadTensors(states);
  native.setOptimizerStepCount(optimizer.step);
}
