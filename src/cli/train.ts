/** `gavel train run.yaml`: builds the stages of a configuration and runs them in its run folder. */
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseHubId } from '../engine/hub.js';
import { isVision } from '../engine/lora.js';
import type { Model } from '../engine/model.js';
import { expected } from '../errors.js';
import { checkDropout } from '../recipes/check-dropout.js';
import { train, type Recipe } from '../recipes/job.js';
import { pipeline, type StageResults } from '../recipes/pipeline.js';
import { runConfigSchema, type RunConfig } from '../recipes/run-config.js';
import { withoutMarks } from '../runs/measurements.js';
import { RunFolder } from '../runs/run-folder.js';
import { readConfigFile } from './config-file.js';
import { exitCodes } from './exit-codes.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { needsEarlier, OpenFiles, stageRecipe } from './train-stages.js';
import { print, progressOnTerminal, shellQuote } from './terminal.js';

export interface TrainCommandOptions {
  resume?: boolean;
  set: string[];
  json: boolean;
}

export async function trainCommand(path: string, options: TrainCommandOptions): Promise<number> {
  const { resume = false, json } = options;
  const config = await readConfigFile(path, runConfigSchema, options.set);
  const base = dirname(resolve(path));
  const at = (relative: string): string => resolve(base, relative);
  checkStages(config);
  checkDropout(config.model.lora?.dropout ?? 0, config.stages);
  const {
    path: modelPath,
    trainable,
    lora,
    adapter,
    freeze,
    dtype,
    initializeSeed,
    optimizer,
    promptCacheBytes,
    rewardHead,
    ...limits
  } = config.model;
  const progress = progressOnTerminal();
  const interrupts = new Interrupts((text) => progress.line(text));
  await using opened = await openPolicy(modelName(modelPath, at), {
    signal: interrupts.signal,
    progress,
    dtype,
    limits: Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== undefined)),
    engine: config.engine,
    ...(initializeSeed === undefined ? {} : { initializeSeed }),
    training: {
      freeze,
      optimizer,
      promptCacheBytes,
      ...(lora === undefined ? {} : { lora: { ...lora, vision: lora.vision && trainable === 'all' } }),
      ...(adapter === undefined ? {} : { adapter }),
      ...(rewardHead === undefined ? {} : { rewardHead }),
    },
  });
  checkDropout(opened.model.adapter?.dropout ?? 0, config.stages);
  if (trainable === 'language' && opened.model.adapter === undefined) freezeVision(opened.model);
  await using files = new OpenFiles(at, interrupts.signal);
  const shared = { files, stages: config.stages, signal: interrupts.signal };
  // Bad data shall end a new run before there is a folder of it. What stands on earlier stages waits for them.
  const made = new Map<string, Recipe<unknown>>();
  for (const stage of resume ? [] : config.stages) {
    if (!needsEarlier(stage)) made.set(stage.name, await stageRecipe(stage, { ...shared, results: {} }));
  }
  await using run = await RunFolder.open(at(config.run), config, { resume, keepCheckpoints: config.keepCheckpoints });
  const stages = config.stages.map((stage) => ({
    name: stage.name,
    make: async (results: StageResults) =>
      made.get(stage.name) ?? stageRecipe(stage, { ...shared, results, pool: run.samples }),
  }));
  const budget = config.budgetSeconds === undefined ? {} : { budgetSeconds: config.budgetSeconds };
  const resumeLine = `npx gavel train ${shellQuote(path)} --resume${options.set.map((set) => ` --set ${shellQuote(set)}`).join('')}`;
  try {
    const job = train(opened.policy, pipeline(stages, budget), { run, signal: interrupts.signal, stage: '(run)' });
    interrupts.watch(job);
    for await (const event of job) {
      if (json) print(JSON.stringify(withoutMarks(event)));
      else progress.show(event);
    }
    progress.clear();
    const result = await job.result;
    if (result.stopped) {
      progress.line(`Stopped; the checkpoint is ${result.checkpoint}. To continue: ${resumeLine}`);
      return exitCodes.interrupted;
    }
    const finalFolder = join(run.path, 'final');
    if (config.exportFinal) await opened.model.exportHf(finalFolder);
    if (json)
      print(JSON.stringify({ type: 'run-result', run: run.path, final: config.exportFinal ? finalFolder : null }));
    else print(config.exportFinal ? `Final weights: ${finalFolder}` : `Run: ${run.path}`);
    return exitCodes.ok;
  } catch (error) {
    progress.clear();
    if (interrupts.interrupted)
      progress.line(`Ended without a new checkpoint. To continue at the last one: ${resumeLine}`);
    throw error;
  } finally {
    interrupts.release();
  }
}

/** A path is relative to the configuration; what does not exist there and looks like a hub id is one. */
const modelName = (path: string, at: (path: string) => string): string =>
  existsSync(at(path)) || parseHubId(path) === undefined ? at(path) : path;

/** `hardOf` names a rejection stage before the stage, `pairsOf` an r3v stage. */
function checkStages({ stages }: RunConfig): void {
  for (const [i, stage] of stages.entries()) {
    if (stage.recipe === 'grpo') checkReference(stages, i, 'hardOf', stage.hardOf, 'rejection');
    if (stage.recipe === 'dpo') checkReference(stages, i, 'pairsOf', stage.pairsOf, 'r3v');
  }
}

function checkReference(
  stages: RunConfig['stages'],
  index: number,
  key: string,
  name: string | undefined,
  recipe: 'rejection' | 'r3v',
): void {
  const before = stages.slice(0, index).filter((stage) => stage.recipe === recipe);
  if (name === undefined || before.some((stage) => stage.name === name)) return;
  const names = before.map((stage) => stage.name).join(', ');
  const wanted =
    before.length === 0 ? `${recipe === 'r3v' ? 'an' : 'a'} ${recipe} stage before this one` : `one of ${names}`;
  throw expected('invalid_config', `stages.${index}.${key}`, wanted, name);
}

function freezeVision(model: Model): void {
  const tensors = model.tensors().filter(({ name, trainable }) => trainable && !isVision(name));
  model.setTrainable(tensors.map(({ name }) => name));
}
