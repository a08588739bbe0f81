/**
 * A model's folder: config.json and model.safetensors, or an adapter's adapter_config.json and adapter_model.safetensors
 * in PEFT's format; the tokenizer's and processor's files, and, when asked for, optimizer.safetensors with masters, moments and the step. What is saved and loaded again is equal bit for bit.
 */
import { join } from 'node:path';
import type { NativeModel, NativeTensorInfo, NativeTensorSource } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import { corruptFile, readJson } from './checkpoint-files.js';
import { copyPresent, writeFolder, writeSynced } from './folder.js';
import { configWithDtype, type JsonObject } from './model-config.js';
import { readOptimizer, saveOptimizer, type OptimizedModel } from './optimizer-file.js';
import { checkStoredHead, rewardHeadSources, saveRewardHead, type RewardHead } from './reward-head.js';
import { addRewardToken } from './reward-token.js';
import { readCheckpointTensors } from './safetensors.js';
import { attachAdapter, type Adapter } from './lora.js';
import {
  adapterConfigFile,
  adapterWeightsFile,
  peftConfig,
  peftName,
  readPeftAdapter,
  type PeftAdapter,
} from './peft.js';
import { canonicalName, checkpointShape, matchTensors } from './tensor-names.js';
import { readTensors, writeTensors, type PlannedTensor, type StoredModel } from './write-tensors.js';

const weightsFile = 'model.safetensors';

/** Files that travel with a checkpoint although the engine itself reads none of them. */
export const companionFiles = [
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
export interface CheckpointModel extends OptimizedModel {
  config: JsonObject;
  /** Folder whose tokenizer and processor files are copied; none when undefined. */
  companions: string | undefined;
  /** Set when the model has an adapter; checkpoints then hold the adapter alone. */
  adapter?: Adapter | undefined;
  /** Set when the model has a reward head; its files lie beside those of the model or adapter. */
  rewardHead?: RewardHead | undefined;
  /** Name of the base model, as an adapter's config states it. */
  base?: string | undefined;
}

async function saveWeights(model: CheckpointModel, folder: string): Promise<void> {
  const { native, config, dtype, adapter: lora } = model;
  const stored = dtype === 'bf16' ? 'BF16' : 'F32';
  const kind = lora === undefined ? 'value' : 'merged';
  const tensors = native
    .tensors()
    .filter(({ adapter, rewardHead }) => !adapter && !rewardHead)
    .map((tensor): PlannedTensor => {
      const { name } = tensor;
      return { name, stored: name, kind, dtype: stored, shape: checkpointShape(tensor, config) };
    });
  await writeTensors(model, join(folder, weightsFile), tensors, { format: 'pt' });
}

async function saveAdapterFiles(model: CheckpointModel, folder: string): Promise<void> {
  const { native, dtype, adapter, base } = model;
  const stored = dtype === 'bf16' ? 'BF16' : 'F32';
  const tensors = native.tensors();
  const config = peftConfig({ family: native.family, tensors, adapter: adapter!, base });
  await writeSynced(join(folder, adapterConfigFile), `${JSON.stringify(config, null, 2)}\n`);
  const parts = tensors
    .filter((tensor) => tensor.adapter)
    .map(({ name, shape }): PlannedTensor => {
      return { name, stored: peftName(native.family, name), kind: 'value', dtype: stored, shape };
    });
  await writeTensors(model, join(folder, adapterWeightsFile), parts, { format: 'pt' });
}

/** Tokenizer and processor files, and the reward head with its token. */
async function saveCompanions(model: CheckpointModel, folder: string): Promise<void> {
  const { companions, rewardHead } = model;
  if (companions !== undefined) await copyPresent(companions, folder, companionFiles);
  if (rewardHead === undefined) return;
  if (rewardHead.token !== undefined) await addRewardToken(folder, rewardHead.token, rewardHead.tokenId);
  await saveRewardHead(model, rewardHead, folder);
}

/** Writes the folder of a whole model, an adapter merged into it, or nothing at all. */
async function saveModelFolder(model: CheckpointModel, folder: string, options: { optimizer: boolean }): Promise<void> {
  const { config, dtype } = model;
  await writeFolder(folder, 'config.json', async (temporary) => {
    const text = `${JSON.stringify(configWithDtype(config, dtype), null, 2)}\n`;
    await writeSynced(join(temporary, 'config.json'), text);
    await saveCompanions(model, temporary);
    await saveWeights(model, temporary);
    if (options.optimizer) await saveOptimizer(model, temporary);
  });
}

/** Writes the folder of an adapter, whole or not at all. */
export async function saveAdapter(
  model: CheckpointModel,
  folder: string,
  options: { optimizer: boolean },
): Promise<void> {
  await writeFolder(folder, adapterConfigFile, async (temporary) => {
    await saveCompanions(model, temporary);
    await saveAdapterFiles(model, temporary);
    if (options.optimizer) await saveOptimizer(model, temporary);
  });
}

/** What training goes on from: the model, or its adapter when it has one. */
export async function saveCheckpoint(
  model: CheckpointModel,
  folder: string,
  options: { optimizer: boolean },
): Promise<void> {
  await (model.adapter === undefined ? saveModelFolder : saveAdapter)(model, folder, options);
}

/** A folder that transformers loads; an adapter is merged. */
export async function exportModel(model: CheckpointModel, folder: string): Promise<void> {
  await saveModelFolder(model, folder, { optimizer: false });
}

/**
 * Loads the weights of a checkpoint folder into a model of the same config; where the model's vocabulary has outgrown the
 * folder's `storedRows`, the new rows are the mean of the others.
 */
export async function loadWeights(
  model: StoredModel,
  folder: string,
  config: JsonObject,
  storedRows?: number,
): Promise<void> {
  const index = await readCheckpointTensors(folder);
  await readTensors(model, matchTensors(baseTensors(model.native), index, folder, config, storedRows));
  if (storedRows !== undefined) await model.native.fillNewTokenRows(storedRows);
}

const baseTensors = (native: NativeModel): NativeTensorInfo[] =>
  native.tensors().filter(({ adapter, rewardHead }) => !adapter && !rewardHead);

/**
 * Where each adapter tensor of the model lies in an adapter folder.
 * Errors: 'corrupt_checkpoint' naming tensors that are missing, unexpected or of another shape.
 */
function matchAdapter(native: NativeModel, adapter: PeftAdapter, folder: string): NativeTensorSource[] {
  const left = new Map(adapter.tensors);
  const sources = native
    .tensors()
    .filter((tensor) => tensor.adapter)
    .map(({ name, shape }): NativeTensorSource => {
      const entry = left.get(canonicalName(name));
      left.delete(canonicalName(name));
      if (entry === undefined) throw corruptFile(adapter.path, `"${name}" is missing; its base is another model`);
      const { dtype, path, offset, sizeBytes } = entry;
      const same = entry.shape.length === shape.length && entry.shape.every((size, i) => size === shape[i]);
      if (!same || (dtype !== 'F32' && dtype !== 'BF16' && dtype !== 'F16')) {
        throw corruptFile(
          adapter.path,
          `"${name}" is ${dtype} [${entry.shape.join(', ')}], not a float tensor [${shape.join(', ')}]`,
        );
      }
      return { name, kind: 'value', path, offset, sizeBytes, dtype };
    });
  if (left.size > 0)
    throw corruptFile(adapter.path, `${folder} has unexpected tensors: ${[...left.keys()].join(', ')}`);
  return sources;
}

/** Attaches the adapter of a folder to a base model and loads its weights. Errors: 'corrupt_checkpoint'. */
export async function loadAdapter(model: StoredModel, found: PeftAdapter, folder: string): Promise<Adapter> {
  const { native } = model;
  const order = baseTensors(native).map(({ name }) => name);
  const names = new Map(order.map((name) => [canonicalName(name), name]));
  const layers = found.adapter.layers.map(({ weight, ...layer }) => {
    const name = names.get(weight);
    if (name === undefined) throw corruptFile(found.path, `its base has a layer "${weight}" that this model has not`);
    return { ...layer, weight: name };
  });
  layers.sort((a, b) => order.indexOf(a.weight) - order.indexOf(b.weight));
  const adapter = await attachAdapter(native, { ...found.adapter, layers });
  await readTensors(model, matchAdapter(native, found, folder));
  return adapter;
}

async function adapterSources(native: NativeModel, folder: string): Promise<NativeTensorSource[]> {
  const adapter = await readPeftAdapter(folder);
  if (adapter === undefined) {
    throw new GavelError(
      'corrupt_checkpoint',
      `Expected ${adapterConfigFile} in "${folder}" for a model with an adapter but there is none. Load the folder with engine.loadModel().`,
      { fields: { folder } },
    );
  }
  return matchAdapter(native, adapter, folder);
}

async function modelSources(native: NativeModel, config: JsonObject, folder: string): Promise<NativeTensorSource[]> {
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
  return matchTensors(baseTensors(native), index, folder, config);
}

/**
 * Restores weights and, when the folder has it, optimizer state; without it the optimizer starts anew. Gradients are
 * cleared. The folder's config must be of the same model.
 */
export async function loadCheckpoint(model: CheckpointModel, folder: string): Promise<void> {
  const { native, config } = model;
  await checkStoredHead(model.rewardHead, folder);
  const sources =
    model.adapter === undefined ? await modelSources(native, config, folder) : await adapterSources(native, folder);
  if (model.rewardHead !== undefined) sources.push(...(await rewardHeadSources(native, folder)));
  const optimizer = await readOptimizer(model, folder);
  await readTensors(model, sources);
  await native.resetOptimizer();
  if (optimizer === undefined) return;
  await readTensors(model, optimizer.sources);
  native.setOptimizerStepCount(optimizer.step);
}
