/** An engine, a model and its policy for one command, ended in the right order. */
import { readJson } from '../engine/checkpoint-files.js';
import { createEngine } from '../engine/engine.js';
import { resolveCheckpoint } from '../engine/hub.js';
import type { DataThreadsOptions } from '../data/threads.js';
import type { Model } from '../engine/model.js';
import type { CreateModelOptions, EngineOptions, LoadModelOptions } from '../engine/options.js';
import { Policy } from '../recipes/policy.js';
import { isRunFolder, modelFolderOfRun } from '../runs/run-facts.js';
import { type ProgressRenderer } from './progress.js';

export interface OpenedPolicy extends AsyncDisposable {
  model: Model;
  policy: Policy;
}

export interface OpenPolicyOptions {
  engine?: EngineOptions;
  dtype?: 'fp32' | 'bf16';
  /** Start from seeded random weights instead of those of the folder. */
  initializeSeed?: number;
  /** What trains, and how its optimizer keeps state. */
  training?: Pick<LoadModelOptions, 'lora' | 'adapter' | 'freeze' | 'optimizer' | 'promptCacheBytes' | 'rewardHead'>;
  /** Bounds of prompts and pictures. */
  limits?: DataThreadsOptions;
  /** Ends a download. */
  signal?: AbortSignal;
  /** Where a download shows how far it is. */
  progress?: ProgressRenderer;
}

/** What a command's model is called: of a run folder its final weights, else its last checkpoint. */
export async function modelOf(name: string): Promise<string> {
  return (await isRunFolder(name)) ? modelFolderOfRun(name, { adapter: false }) : name;
}

/** The local path of a model that a command was given: a folder, a file, or a hub id. */
export async function fetchModel(
  name: string,
  { signal, progress }: Pick<OpenPolicyOptions, 'signal' | 'progress'>,
): Promise<string> {
  const mib = (bytes: number): string => (bytes / 2 ** 20).toFixed(1);
  const path = await resolveCheckpoint(name, {
    signal,
    onProgress: ({ file, receivedBytes, totalBytes }) =>
      progress?.passing(`[fetch] ${file}: ${mib(receivedBytes)} of ${mib(totalBytes)} MiB`),
  });
  progress?.clear();
  return path;
}

/** Loads the model called `given`, a run folder too. Errors: those of the run, the hub, the engine and the tokenizer. */
export async function openPolicy(given: string, options: OpenPolicyOptions = {}): Promise<OpenedPolicy> {
  const { dtype, initializeSeed, limits } = options;
  const name = await modelOf(given);
  const path = await fetchModel(name, options);
  const engine = await createEngine(options.engine ?? {});
  try {
    const chosen = { ...options.training, ...(dtype === undefined ? {} : { dtype }) };
    const model =
      initializeSeed === undefined
        ? await engine.loadModel(name, chosen)
        : await engine.createModel(await readJson(path, 'config.json'), {
            ...chosen,
            seed: initializeSeed,
            companions: path,
          } satisfies CreateModelOptions);
    const policy = await Policy.open(model, model.folder, limits);
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
