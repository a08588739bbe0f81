/** An engine, a model and its policy for one command, ended in the right order. */
import { readJson } from '../engine/checkpoint-files.js';
import { createEngine } from '../engine/engine.js';
import type { DataThreadsOptions } from '../data/threads.js';
import type { Model } from '../engine/model.js';
import type { CreateModelOptions, EngineOptions } from '../engine/options.js';
import { Policy } from '../recipes/policy.js';

export interface OpenedPolicy extends AsyncDisposable {
  model: Model;
  policy: Policy;
}

export interface OpenPolicyOptions {
  engine?: EngineOptions;
  dtype?: 'fp32' | 'bf16';
  /** Start from seeded random weights instead of those of the folder. */
  initializeSeed?: number;
  /** Bounds of prompts and pictures. */
  limits?: DataThreadsOptions;
}

/** Loads the model of `folder`. Errors: those of the engine and of the tokenizer. */
export async function openPolicy(folder: string, options: OpenPolicyOptions = {}): Promise<OpenedPolicy> {
  const { dtype, initializeSeed, limits } = options;
  const engine = await createEngine(options.engine ?? {});
  try {
    const chosen = dtype === undefined ? {} : { dtype };
    const model =
      initializeSeed === undefined
        ? await engine.loadModel(folder, chosen)
        : await engine.createModel(await readJson(folder, 'config.json'), {
            ...chosen,
            seed: initializeSeed,
            companions: folder,
          } satisfies CreateModelOptions);
    const policy = await Policy.open(model, folder, limits);
    return {
      model,
      policy,
      [Symbol.asyncDispose]: async () => {
        await policy[Symbol.asyncDispose]();
        await engine.dispose();
      },
    };
  } catch (error) {
    await engine.dispose();
    throw error;
  }
}
