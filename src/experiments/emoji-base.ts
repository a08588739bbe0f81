/**
 * The model an experiment begins with: a small Qwen2.5-VL that has learned to name what pictures of some artists show, and
 * whatever else the experiment wants of its base. The last artist, Noto, is in no training set of any experiment: the test
 * pictures are of an artist never seen.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { EmojiBank } from '../emoji-judge/bank.js';
import { questionWords } from '../emoji-judge/questions.js';
import { quickstartPlan } from '../emoji-judge/quickstart.js';
import type { RowRequest } from '../emoji-judge/row-maker.js';
import { RowSource } from '../emoji-judge/row-source.js';
import { scoreWord } from '../emoji-judge/scoring.js';
import { writeJudgeFolder } from '../emoji-judge/vocabulary.js';
import { readJson } from '../engine/checkpoint-files.js';
import type { Engine } from '../engine/engine.js';
import { train, type Recipe } from '../recipes/job.js';
import { Policy } from '../recipes/policy.js';
import { sft } from '../recipes/sft.js';
import { RunFolder } from '../runs/run-folder.js';
import type { SeedContext } from './experiment.js';

/** Makes `out/base` once, in `steps` steps over rows of `requestOf`. Returns its folder. */
export async function emojiBase(
  engine: Engine,
  bank: EmojiBank,
  context: SeedContext,
  steps: number,
  requestOf: (index: number) => RowRequest,
): Promise<string> {
  const { seed, out, signal, say } = context;
  const folder = join(out, 'base');
  if (existsSync(join(folder, 'model.safetensors'))) return folder;
  const made = join(out, 'model');
  const { shape, perception } = quickstartPlan;
  await writeJudgeFolder(made, bank.words, shape, [...questionWords, scoreWord]);
  const model = await engine.createModel(await readJson(made, 'config.json'), { seed, companions: made });
  await using policy = await Policy.open(model, made, { threads: 1 });
  await using source = new RowSource(bank, seed);
  const data = source.dataset('base', perception.items, requestOf);
  const { budgetSeconds: _none, ...options } = perception.options;
  const { loss } = await runRecipe(policy, sft({ data, options: { ...options, steps, seed } }), signal);
  say(`base: loss ${loss?.toFixed(3) ?? '-'} after ${steps} steps`);
  await model.exportHf(folder);
  await model.dispose();
  return folder;
}

/** Runs a recipe to its end, in `folder` when one is given; a run that is there is continued. */
export async function runRecipe<R>(
  policy: Policy,
  recipe: Recipe<R>,
  signal: AbortSignal,
  folder?: string,
): Promise<R> {
  const resume = folder !== undefined && existsSync(join(folder, 'config.json'));
  const run = folder === undefined ? undefined : await RunFolder.open(folder, recipe.config, { resume });
  try {
    const result = await train(policy, recipe, { signal, ...(run && { run }) }).result;
    if (result.stopped) throw new Error('nobody stops an experiment');
    return result.value;
  } finally {
    await run?.close();
  }
}
