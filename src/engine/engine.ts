/** An engine: one device, one job thread, the models on it. */
import { availableParallelism } from 'node:os';
import type { NativeEngine, NativeInfo, NativeMemory, NativeModule } from '../binding/contract.js';
import { expected, GavelError } from '../errors.js';
import { loadWeights } from './checkpoint.js';
import { readJson, readOptionalJson } from './checkpoint-files.js';
import { JobRunner } from './job-runner.js';
import { Model, type Memory, type ModelParts } from './model.js';
import { modelSpec, storedDtype, type JsonObject, type ModelDtype } from './model-config.js';
import { nativeModule } from './native-module.js';
import {
  createModelOptionsSchema,
  engineOptionsSchema,
  loadModelOptionsSchema,
  type CreateModelOptions,
  type EngineOptions,
  type LoadModelOptions,
} from './options.js';
import { parseOptions } from './parse-options.js';

/** What this machine offers: instruction set, threads, CUDA devices or why there are none. */
export function deviceInfo(): NativeInfo {
  return nativeModule().info();
}

// A named device is a demand: never replaced by another.
function demandDevice(native: NativeModule, device: string): void {
  if (!device.startsWith('cuda')) return;
  const { cuda } = native.info();
  const index = Number(device.split(':')[1] ?? 0);
  let reason = 'This build has no CUDA engine yet; its kernels run on the CPU.';
  if (!cuda.available) reason = cuda.reason;
  else if (index >= cuda.devices.length) reason = `This machine has ${cuda.devices.length} CUDA devices.`;
  throw new GavelError(
    'device_unavailable',
    `Expected a usable device for \`device\` but received "${device}". ${reason} Use 'auto' or 'cpu'.`,
    { fields: { device, reason } },
  );
}

/**
 * Makes an engine; the native addon is loaded on the first call.
 * Errors: 'device_unavailable' with the reason when a named device cannot be had, 'binary_missing', 'unsupported',
 * 'invalid_argument'.
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  const { device, threads = Math.min(256, availableParallelism()) } = parseOptions(
    engineOptionsSchema,
    options,
    'options',
  );
  const native = nativeModule();
  demandDevice(native, device);
  return new Engine(native.createEngine({ threads }), 'cpu');
}

/** Made by createEngine. Dispose of it to free every model; an idle engine does not keep the process alive. */
export class Engine {
  readonly #native: NativeEngine;
  readonly #runner: JobRunner;
  readonly #models = new Set<WeakRef<Model>>();
  /** Where its models live. */
  readonly device: 'cpu';

  /** @internal Use createEngine. */
  constructor(native: NativeEngine, device: 'cpu') {
    this.#native = native;
    this.#runner = new JobRunner(native);
    this.device = device;
  }

  /** Threads that compute. */
  get threads(): number {
    return this.#native.threads;
  }

  /**
   * Loads a Hugging Face folder: config.json and model.safetensors, sharded or not. Old and new tensor names are known.
   * Errors: 'io' (no such folder), 'corrupt_checkpoint' naming tensors that are missing, unexpected or of another shape,
   * 'unsupported', 'out_of_memory', 'disposed'.
   */
  async loadModel(folder: string, options: LoadModelOptions = {}): Promise<Model> {
    const resolved = parseOptions(loadModelOptionsSchema, options, 'options');
    if (typeof folder !== 'string' || folder === '') throw expected('invalid_argument', 'folder', 'a path', folder);
    const config = await readJson(folder, 'config.json');
    const generation = { ...config, ...(await readOptionalJson(folder, 'generation_config.json')) };
    const dtype = resolved.dtype ?? storedDtype(config);
    return this.#build(config, generation, dtype, folder, (parts) => loadWeights(parts.native, folder, config));
  }

  /**
   * A model of a config with seeded random weights: the same config and seed give the same weights on any machine.
   * `config` is what config.json would hold.
   */
  async createModel(config: JsonObject, options: CreateModelOptions = {}): Promise<Model> {
    const { dtype, seed, std: given, companions } = parseOptions(createModelOptionsSchema, options, 'options');
    const range = modelSpec(config, dtype).numbers['initializer_range'];
    const std = given ?? (typeof range === 'number' ? range : 0.02);
    const generation =
      companions === undefined
        ? config
        : { ...config, ...(await readOptionalJson(companions, 'generation_config.json')) };
    return this.#build(config, generation, dtype, companions, (parts) => parts.native.initialize(seed, std));
  }

  /** A second model with a copy of the weights, not of the optimizer's state. */
  async cloneModel(model: Model): Promise<Model> {
    const { config, generation, dtype, companions, native } = model.parts;
    return this.#build(config, generation, dtype, companions, (parts) => parts.native.copyWeightsFrom(native));
  }

  async #build(
    config: JsonObject,
    generation: JsonObject,
    dtype: ModelDtype,
    companions: string | undefined,
    fill: (parts: ModelParts) => Promise<void>,
  ): Promise<Model> {
    const native = await this.#native.createModel(modelSpec(config, dtype));
    const clone = (model: Model): Promise<Model> => this.cloneModel(model);
    const parts: ModelParts = { native, config, generation, dtype, companions, runner: this.#runner, clone };
    try {
      await fill(parts);
    } catch (error) {
      await native.dispose();
      throw error;
    }
    const model = new Model(parts);
    this.#models.add(new WeakRef(model));
    return model;
  }

  /** Bytes held now by all models together; scratch memory is shared by them. */
  memory(): Memory {
    const total: NativeMemory = {
      weightBytes: 0,
      gradientBytes: 0,
      optimizerBytes: 0,
      activationBytes: 0,
      kvBytes: 0,
      scratchBytes: 0,
    };
    for (const reference of this.#models) {
      const model = reference.deref();
      const memory = model === undefined ? undefined : memoryOf(model);
      if (memory === undefined) {
        this.#models.delete(reference);
        continue;
      }
      for (const key of Object.keys(total) as (keyof NativeMemory)[]) {
        total[key] = key === 'scratchBytes' ? Math.max(total[key], memory[key]) : total[key] + memory[key];
      }
    }
    return total;
  }

  /** Aborts what runs, waits until native code has stopped, frees every model. Idempotent. */
  async dispose(): Promise<void> {
    await this.#native.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}

/** Undefined for a model that was disposed. */
function memoryOf(model: Model): Memory | undefined {
  try {
    return model.memory();
  } catch (error) {
    if (GavelError.is(error) && error.code === 'disposed') return undefined;
    throw error;
  }
}
