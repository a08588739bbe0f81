/** Loads a golden checkpoint straight through the native contract: the numerics tier tests the engine, not its wrapper. */
import { readFileSync } from 'node:fs';
import { loadNative } from '../../src/binding/load.js';
import type { NativeEngine, NativeGroup, NativeModel, NativeTensorSource } from '../../src/binding/contract.js';
import { readSafetensorsHeader } from '../../src/data/safetensors.js';
import { GavelError } from '../../src/errors.js';
import { goldenFolder } from './golden.js';

export function makeEngine(threads = 2): NativeEngine {
  const native = loadNative();
  native.setErrorClass(GavelError);
  return native.createEngine({ threads });
}

/** config.json as dotted numbers, text_config lifted to the top. */
export function flattenConfig(config: Record<string, unknown>): Record<string, number | number[]> {
  const numbers: Record<string, number | number[]> = {};
  const walk = (value: unknown, name: string): void => {
    if (typeof value === 'number') numbers[name] = value;
    else if (typeof value === 'boolean') numbers[name] = value ? 1 : 0;
    else if (Array.isArray(value) && value.every((one) => typeof one === 'number')) numbers[name] = value;
    else if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
      for (const [key, inner] of Object.entries(value)) walk(inner, name === '' ? key : `${name}.${key}`);
    }
  };
  const { text_config: text, ...rest } = config;
  walk(text ?? {}, '');
  walk(rest, '');
  return numbers;
}

export async function loadGoldenModel(
  engine: NativeEngine,
  name: string,
  dtype: 'fp32' | 'bf16' = 'fp32',
): Promise<NativeModel> {
  const folder = `${goldenFolder}${name}`;
  const config = JSON.parse(readFileSync(`${folder}/config.json`, 'utf8')) as Record<string, unknown>;
  const model = await engine.createModel({
    family: config['model_type'] as string,
    numbers: flattenConfig(config),
    dtype,
  });
  const { tensors } = await readSafetensorsHeader(`${folder}/model.safetensors`);
  const sources: NativeTensorSource[] = model.tensors().map(({ name: tensor }) => {
    const entry = tensors.get(tensor);
    if (entry === undefined) throw new Error(`${name} has no tensor ${tensor}`);
    const { path, offset, sizeBytes, dtype: stored } = entry;
    return { name: tensor, kind: 'value', path, offset, sizeBytes, dtype: stored as 'F32' };
  });
  await model.loadTensors(sources);
  return model;
}

export const stepOptions = { maxTokensPerMicroBatch: 4096, activationCheckpointing: false };

let nextJob = 1_000_000;
export const job = (): number => nextJob++;

export const group = (
  prompt: ArrayLike<number>,
  completions: NativeGroup['completions'],
  images: NativeGroup['images'] = [],
): NativeGroup => ({
  promptTokens: Int32Array.from(prompt),
  images,
  completions,
});
