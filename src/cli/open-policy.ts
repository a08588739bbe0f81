/** An engine, a model and its policy for one command, ended in the right order. */
import { createEngine } from '../engine/engine.js';
import type { Model } from '../engine/model.js';
import type { CreateModelOptions, EngineOptions } from '../engine/options.js';
import { Policy } from '../recipes/policy.js';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface OpenedPolicy extends AsyncDisposable {
  model: Model;
  policy: Policy;
}

export interface OpenPolicyOptions {
  engine?: EngineOptions;
  dtype?: 'fp32' | 'bf16';
  /** Start from seeded random weights instead of those of the folder. */
  initializeSeed?: number;
}

/** Loads the model of `folder`. Errors: those of the engine and of the tokenizer. */
export async function openPolicy(folder: string, options: OpenPolicyOptions = {}): Promise<OpenedPolicy> {
  const { dtype, initializeSeed } = options;
  const engine = await createEngine(options.engine ?? {});
  try {
    const chosen = dtype === undefined ? {} : { dtype };
    const model =
      initializeSeed === undefined
        ? await engine.loadModel(folder, chosen)
        : await engine.createModel(await readConfig(folder), {
            ...chosen,
            seed: initializeSeed,
            companions: folder,
          } satisfies CreateModelOptions);
    const policy = await Policy.open(model, folder);
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

async function readConfig(folder: string): Promise<Record<string, unknown>> {
  return JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
}
