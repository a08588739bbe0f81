/**
 * optimizer.safetensors: masters, moments and the step, so that training goes on bit for bit. 8-bit moments are stored as
 * they are: codes in the rows of each tensor, scales of each fused parameter in its packed order.
 */
import { join } from 'node:path';
import type { NativeStateTensor, NativeTensorSource } from '../binding/contract.js';
import { GavelError } from '../errors.js';
import { corruptFile } from './checkpoint-files.js';
import type { ModelDtype } from './model-config.js';
import type { OptimizerState } from './optimizer-state.js';
import { dtypeSizes, readSafetensorsHeader } from './safetensors.js';
import { writeTensors, type PlannedTensor, type StoredModel } from './write-tensors.js';

const fileName = 'optimizer.safetensors';

/** What an optimizer's state is saved from. */
export interface OptimizedModel extends StoredModel {
  dtype: ModelDtype;
  optimizer: OptimizerState;
}

/** What the bits of the state, and of the steps after it, depend on: a file of one setting is not a file of another. */
function settingsOf({ dtype, optimizer }: OptimizedModel): Record<string, string> {
  const { states, weights, seed } = optimizer;
  const rounded = states === 'bf16' || weights === 'stochastic';
  return { dtype, states, weights, ...(rounded ? { seed: String(seed) } : {}) };
}

const storedName = ({ kind, name }: NativeStateTensor): string => `${kind}.${name}`;

/** Writes the file into `folder`; before the first step it holds no tensors. */
export async function saveOptimizer(model: OptimizedModel, folder: string): Promise<void> {
  const { native } = model;
  const step = native.optimizerStepCount();
  const states = step === 0 ? [] : native.stateTensors();
  // Wide elements first, so that each lies at a multiple of its size.
  const tensors = states
    .map((tensor): PlannedTensor => ({ ...tensor, stored: storedName(tensor) }))
    .sort((a, b) => dtypeSizes[b.dtype] - dtypeSizes[a.dtype]);
  await writeTensors(model, join(folder, fileName), tensors, { step: String(step), ...settingsOf(model) });
}

/**
 * Where the state's tensors lie in `folder`, and its step; undefined when the folder has none.
 * Errors: 'corrupt_checkpoint' for tensors that are missing, unexpected or of another shape, 'invalid_argument' for the
 * state of a model with another dtype or other optimizer options.
 */
export async function readOptimizer(
  model: OptimizedModel,
  folder: string,
): Promise<{ sources: NativeTensorSource[]; step: number } | undefined> {
  const path = join(folder, fileName);
  const index = await readSafetensorsHeader(path).catch((error: unknown) => {
    if (GavelError.is(error) && error.fields['errno'] === 'ENOENT') return undefined;
    throw error;
  });
  if (index === undefined) return undefined;
  const step = Number(index.metadata['step']);
  if (!Number.isSafeInteger(step) || step < 0) throw corruptFile(path, 'its metadata names no step');
  for (const [name, wanted] of Object.entries(settingsOf(model))) {
    const found = index.metadata[name];
    if (found !== undefined && found !== wanted) throw otherSettings(path, name, wanted, found);
  }
  const expected = new Map(step === 0 ? [] : model.native.stateTensors().map((one) => [storedName(one), one]));
  const sources = [...index.tensors].map(([stored, { dtype, shape, offset, sizeBytes }]): NativeTensorSource => {
    const tensor = expected.get(stored);
    if (tensor === undefined) throw corruptFile(path, `tensor "${stored}" is no optimizer state of this model`);
    expected.delete(stored);
    if (dtype !== tensor.dtype || shape.join() !== tensor.shape.join()) {
      const found = `${dtype} [${shape.join(', ')}], not ${tensor.dtype} [${tensor.shape.join(', ')}]`;
      throw corruptFile(path, `tensor "${stored}" is ${found}`);
    }
    return { name: tensor.name, kind: tensor.kind, path, offset, sizeBytes, dtype: tensor.dtype };
  });
  const [missing] = expected.keys();
  if (missing !== undefined) throw corruptFile(path, `tensor "${missing}" is missing`);
  return { sources, step };
}

function otherSettings(path: string, name: string, wanted: string, found: string): GavelError {
  return new GavelError(
    'invalid_argument',
    `Expected an optimizer state with ${name} "${wanted}" in "${path}" but received "${found}". Make the model with the ` +
      'dtype and `optimizer` options of the run that saved it, or remove the file to start a new optimizer.',
    { fields: { path, name, expected: wanted, received: found } },
  );
}
