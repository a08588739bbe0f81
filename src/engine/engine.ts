/** An engine: one device, one job thread, the models on it. */
import { availableParallelism } from 'node:os';
import type { NativeEngine, NativeInfo, NativeMemory } from '../binding/contract.js';
import { expected, GavelError } from '../errors.js';
import { loadAdapter, loadWeights } from './checkpoint.js';
import { readJson, readOptionalJson } from './checkpoint-files.js';
import { resolveCheckpoint } from './hub.js';
import { deviceIndex, type EngineDevice } from './device.js';
import { JobRunner } from './job-runner.js';
import { adapterOf, attachAdapter, namesMatching } from './lora.js';
import { Model, type Memory, type ModelParts, type Signal } from './model.js';
import { checkConfigObject, modelSpec, storedDtype, type JsonObject } from './model-config.js';
import { nativeModule } from './native-module.js';
import { readPeftAdapter, type PeftAdapter } from './peft.js';
import { checkOptimizerState } from './optimizer-state.js';
import {
  createModelOptionsSchema,
  engineOptionsSchema,
  loadModelOptionsSchema,
  type CreateModelOptions,
  type EngineOptions,
  type Exactness,
  type LoadModelOptions,
} from './options.js';
import { parseCall, parseOptions } from './parse-options.js';
import { attachRewardHead, loadRewardHead } from './reward-head.js';
import { planRewardHead } from './reward-head-plan.js';

/** What this machine offers: instruction set, threads, CUDA devices or why there are none. */
export function deviceInfo(): NativeInfo {
  return nativeModule().info();
}

/**
 * Makes an engine; the native addon is loaded on the first call.
 * Errors: 'device_unavailable' with the reason when a named device cannot be had, 'binary_missing', 'unsupported' for an
 * `isa` or pinning that this machine lacks and for an `exactness` that the device does not have, 'invalid_argument'.
 */
export async function createEngine(options: EngineOptions = {}): Promise<Engine> {
  const { device, isa, pinThreads, exactness, ...given } = parseOptions(engineOptionsSchema, options, 'options');
  const native = nativeModule();
  const cores = availableParallelism();
  const threads = given.threads ?? Math.min(256, Array.isArray(pinThreads) ? pinThreads.length : cores);
  const index = deviceIndex(native, device);
  const made = native.createEngine({
    threads,
    pinThreads,
    exactness,
    ...(isa === 'auto' ? {} : { isa }),
    ...(index === undefined ? {} : { device: index }),
  });
  if (native.oversubscribes(cores)) {
    process.emitWarning(
      `Expected no more threads of engines than the ${cores} cores of this process, but they come to ` +
        `${native.info().engineThreads}. Engines take turns on shared threads and slow each other down; give each fewer \`threads\`.`,
      { type: 'GavelWarning', code: 'GAVEL_OVERSUBSCRIBED' },
    );
  }
  return new Engine(made, index === undefined ? 'cpu' : `cuda:${index}`, exactness);
}

/** Made by createEngine. Dispose of it to free every model; an idle engine does not keep the process alive. */
export class Engine {
  readonly #native: NativeEngine;
  readonly #runner: JobRunner;
  readonly #models = new Set<WeakRef<Model>>();
  /** Where its models live: 'cpu', or 'cuda:0' and so on. */
  readonly device: EngineDevice;
  /** What it promises of its bits: 'bitwise' or 'fastest'. */
  readonly exactness: Exactness;

  /** @internal Use createEngine. */
  constructor(native: NativeEngine, device: EngineDevice, exactness: Exactness) {
    this.#native = native;
    this.#runner = new JobRunner(native);
    this.device = device;
    this.exactness = exactness;
  }

  /** Threads that compute. */
  get threads(): number {
    return this.#native.threads;
  }

  /** The instructions it computes with: one of deviceInfo().isas, or 'cuda'. */
  get isa(): string {
    return this.#native.isa;
  }

  /**
   * Loads a Hugging Face folder: config.json and model.safetensors, sharded or not. Old and new tensor names are known.
   * `name` is a path or, when there is nothing there, a hub id "org/name" or "org/name@revision": resolveCheckpoint().
   * Errors: those of resolveCheckpoint(), 'io' (no such folder), 'corrupt_checkpoint' naming tensors that are missing,
   * unexpected or of another shape, 'unsupported', 'out_of_memory', 'disposed'.
   */
  async loadModel(name: string, options: LoadModelOptions & Signal = {}): Promise<Model> {
    const { signal, resolved } = parseCall(loadModelOptionsSchema, options);
    const { folder, base, adapter } = await this.#findCheckpoint(name, resolved);
    const stored = await readJson(folder, 'config.json');
    const plan = await planRewardHead(
      resolved.rewardHead,
      stored,
      adapter === undefined ? [folder] : [adapter.folder, folder],
      folder,
    );
    const { config, head, storedRows } = plan;
    const generation = { ...config, ...(await readOptionalJson(folder, 'generation_config.json')) };
    const dtype = resolved.dtype ?? storedDtype(config);
    const optimizer = checkOptimizerState(resolved.optimizer, dtype);
    const lora = plan.withToken(resolved.lora);
    const { promptCacheBytes } = resolved;
    const about = {
      config,
      generation,
      dtype,
      optimizer,
      companions: folder,
      base,
      rewardHead: head,
      promptCacheBytes,
    };
    const model = await this.#build(about, async (parts) => {
      const { native } = parts;
      await loadWeights({ ...parts, signal }, folder, config, storedRows);
      if (adapter !== undefined) parts.adapter = await loadAdapter({ ...parts, signal }, adapter.peft, adapter.folder);
      else if (lora !== undefined) parts.adapter = await attachAdapter(native, adapterOf(native.tensors(), lora));
      if (head !== undefined) await attachRewardHead(native, head);
      if (plan.weights !== undefined) await loadRewardHead({ ...parts, signal }, plan.weights);
    });
    return freezeTensors(model, resolved.freeze);
  }

  /** The folder of the base model, and the adapter that goes on it. */
  async #findCheckpoint(
    name: string,
    options: { hub?: Parameters<typeof resolveCheckpoint>[1]; adapter?: string | undefined },
  ): Promise<{ folder: string; base: string; adapter?: { peft: PeftAdapter; folder: string } }> {
    const found = await resolveCheckpoint(name, options.hub);
    const given = options.adapter === undefined ? found : await resolveCheckpoint(options.adapter, options.hub);
    const peft = await readPeftAdapter(given);
    if (options.adapter !== undefined) {
      if (peft === undefined) throw expected('io', 'adapter', 'a folder with adapter_config.json', options.adapter);
      return { folder: found, base: name, adapter: { peft, folder: given } };
    }
    if (peft === undefined || (await readOptionalJson(found, 'config.json')) !== undefined) {
      return { folder: found, base: name };
    }
    if (peft.base === undefined) {
      throw expected(
        'invalid_config',
        'base_model_name_or_path',
        `the base model in ${found}/adapter_config.json`,
        'none',
        'Load the base model with the option `adapter`.',
      );
    }
    return {
      folder: await resolveCheckpoint(peft.base, options.hub),
      base: peft.base,
      adapter: { peft, folder: found },
    };
  }

  /**
   * A model of a config with seeded random weights: the same config and seed give the same weights on any machine.
   * `given` is what config.json would hold. Errors: 'invalid_argument', 'invalid_config' or 'unsupported' for the config,
   * 'out_of_memory', 'disposed'.
   */
  async createModel(given: JsonObject, options: CreateModelOptions = {}): Promise<Model> {
    const resolved = parseOptions(createModelOptionsSchema, options, 'options');
    const { dtype, seed, companions, promptCacheBytes } = resolved;
    checkConfigObject(given);
    const plan = await planRewardHead(resolved.rewardHead, given, [], companions);
    const { config, head, storedRows } = plan;
    const state = checkOptimizerState(resolved.optimizer, dtype);
    const range = modelSpec(config, dtype).numbers['initializer_range'];
    const std = resolved.std ?? (typeof range === 'number' ? range : 0.02);
    const generation =
      companions === undefined
        ? config
        : { ...config, ...(await readOptionalJson(companions, 'generation_config.json')) };
    const lora = plan.withToken(resolved.lora);
    const kept = { companions, base: companions, rewardHead: head, promptCacheBytes };
    const about = { config, generation, dtype, optimizer: state, ...kept };
    const model = await this.#build(about, async (parts) => {
      const { native } = parts;
      await native.initialize(seed, std);
      if (storedRows !== undefined) await native.fillNewTokenRows(storedRows);
      if (lora !== undefined) parts.adapter = await attachAdapter(native, adapterOf(native.tensors(), lora));
      if (head !== undefined) await attachRewardHead(native, head);
    });
    return freezeTensors(model, resolved.freeze);
  }

  /** A second model with a copy of the weights, not of the optimizer's state. Errors: 'out_of_memory', 'disposed'. */
  async cloneModel(model: Model): Promise<Model> {
    const { native, runner: _runner, clone: _clone, ...about } = model.parts;
    return this.#build(about, async (parts) => {
      if (about.adapter !== undefined) await attachAdapter(parts.native, about.adapter);
      if (about.rewardHead !== undefined) await attachRewardHead(parts.native, about.rewardHead);
      await parts.native.copyWeightsFrom(native);
    });
  }

  async #build(
    about: Omit<ModelParts, 'native' | 'runner' | 'clone'>,
    fill: (parts: ModelParts) => Promise<void>,
  ): Promise<Model> {
    const { config, dtype, optimizer, promptCacheBytes } = about;
    const native = await this.#native.createModel({ ...modelSpec(config, dtype, optimizer), promptCacheBytes });
    const clone = (model: Model): Promise<Model> => this.cloneModel(model);
    const parts: ModelParts = { ...about, native, runner: this.#runner, clone };
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

  /** Model.memory() of all models together; scratch memory is shared by them. */
  memory(): Memory {
    const total: NativeMemory = {
      weightBytes: 0,
      gradientBytes: 0,
      optimizerBytes: 0,
      activationBytes: 0,
      kvBytes: 0,
      samplingBytes: 0,
      promptCacheBytes: 0,
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

/** Freezes the tensors that `patterns` name. */
function freezeTensors(model: Model, patterns: readonly string[]): Model {
  if (patterns.length === 0) return model;
  const names = model.tensors().map(({ name }) => name);
  const frozen = new Set(namesMatching(names, patterns, 'freeze'));
  model.setTrainable(names.filter((name) => !frozen.has(name)));
  return model;
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
