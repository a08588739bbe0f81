/**
 * Rejection sampling: draw k completions an item, mark them, keep one correct completion an item for supervised training,
 * hand the items that were not all right to reinforcement learning. The weights are fixed while it samples, so a killed run
 * continues from its pool and never samples an item twice.
 */
import { z } from 'zod';
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import type { GavelError } from '../errors.js';
import { expected } from '../errors.js';
import { SamplePool, type MarkedSample } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import type { Evaluator } from './evaluate.js';
import type { Recipe } from './job.js';
import { defaultJudge, rewardTable, verdictOf, type Judge } from './judge.js';
import { Pace } from './pace.js';
import type { DrawnCompletion } from './policy.js';
import { routeSamples, type RoutedItem, type Routing } from './route.js';
import { sft, sftOptionsSchema, type SftResult } from './sft.js';

export const rejectionOptionsSchema = z
  .strictObject({
    samples: z.number().int().min(1).default(4).describe('Completions of each item (k).'),
    temperature: z.number().positive().default(1).describe('Sampling temperature.'),
    topK: z.number().int().min(1).optional().describe('Draw among the k likeliest tokens.'),
    topP: z.number().gt(0).max(1).optional().describe('Draw among the likeliest tokens of this mass.'),
    minP: z.number().min(0).max(1).optional().describe('Draw among tokens of at least this share of the likeliest.'),
    maxNewTokens: z.number().int().min(1).default(2048).describe('Longest completion, in tokens.'),
    chunkItems: z.number().int().min(1).default(128).describe('Items sampled at once; each chunk is kept when killed.'),
    seed: z.number().int().min(0).default(0).describe('Key of sampling and of the choice among correct samples.'),
    samplingBudgetSeconds: z
      .number()
      .positive()
      .optional()
      .describe('Sampling stops after this; items not reached are left out.'),
    sft: sftOptionsSchema.prefault({}),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound of the stage.'),
  })
  .describe('Rejection sampling and training on what it keeps.');

export type RejectionOptions = z.input<typeof rejectionOptionsSchema>;
type ResolvedOptions = z.output<typeof rejectionOptionsSchema>;

export interface RejectionParts {
  data: Dataset;
  judge?: Judge;
  /** Which correct samples are sound enough to train on, such as those that do not contradict themselves. Default: all. */
  isSound?: (completion: string, row: Row) => boolean;
  /** Validation while training on the kept samples. */
  validation?: Evaluator;
  /** Rows trained beside the kept ones, such as direct answers. `kept` are the data set indices that gave a sample. */
  alsoTrain?: (kept: readonly number[]) => Promise<Row[]>;
  options?: RejectionOptions;
}

export interface RejectionResult extends Omit<Routing, 'kept'> {
  /** Items sampled, and those that gave a training row. */
  items: number;
  kept: number;
  training: SftResult | null;
}

interface Progress {
  /** Name of the weights that sampled. */
  weights: string;
  routing?: Routing;
  items: number;
}

export function rejection(parts: RejectionParts): Recipe<RejectionResult> {
  const options = parseOptions(rejectionOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'rejection',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runRejection(context, parts, options),
  };
}

async function runRejection(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
): Promise<RejectionResult> {
  const progress = context.progress<Progress>() ?? { weights: context.weightsName, items: 0 };
  const pool = context.run?.samples ?? SamplePool.inMemory();
  if (progress.routing === undefined) {
    const items = await samplePool(context, parts, options, pool, progress.weights);
    progress.items = items.length;
    progress.routing = routeSamples(items, options.seed);
    await context.checkpoint(1, progress);
  }
  const { kept, ...routing } = progress.routing;
  context.note(
    `Rejection sampling kept ${kept.length} of ${progress.items} items; ${routing.hard.length} go on, ${routing.allWrong} all wrong.`,
    { kept: kept.length, items: progress.items, hard: routing.hard.length, allWrong: routing.allWrong },
  );
  const training = kept.length === 0 ? null : await trainOnKept(context, parts, options, pool, progress);
  return { ...routing, items: progress.items, kept: kept.length, training };
}

/** Draws and marks what the pool does not hold yet; returns every item that is whole. */
async function samplePool(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
  pool: SamplePool,
  weights: string,
): Promise<RoutedItem[]> {
  const { data, judge = defaultJudge } = parts;
  const { samples, chunkItems, samplingBudgetSeconds = Infinity } = options;
  const startedMs = performance.now();
  const items: RoutedItem[] = [];
  const pace = new Pace();
  let tokens = 0;
  let right = 0;
  for (let start = 0; start < data.size; start += chunkItems) {
    const stop = Math.min(data.size, start + chunkItems);
    const indices = Array.from({ length: stop - start }, (_, offset) => start + offset);
    const rows = await Promise.all(indices.map((index) => data.row(index)));
    const isMissing = (row: Row): boolean => pool.entries(weights, row.id).length < samples;
    const missing = rows.filter(isMissing);
    if (missing.length > 0) tokens += await drawMarked(context, judge, options, pool, weights, missing);
    for (const [offset, row] of rows.entries()) {
      const correct = pool.entries(weights, row.id).map((entry) => entry.correct);
      right += correct.filter(Boolean).length;
      const { isSound } = parts;
      const sound =
        isSound === undefined
          ? undefined
          : await Promise.all(
              pool
                .entries(weights, row.id)
                .map(async (entry) => entry.correct && isSound((await pool.read(entry)).text, row)),
            );
      items.push({ index: start + offset, id: row.id, correct, ...(sound && { sound }) });
      await pace.breathe();
    }
    const seconds = (performance.now() - startedMs) / 1000;
    context.emit({
      type: 'sampling-progress',
      stage: context.stage,
      purpose: data.name,
      done: stop,
      total: data.size,
      accuracy: right / (items.length * samples),
      tokensPerSecond: tokens / seconds,
      secondsLeft: (seconds / stop) * (data.size - stop),
    });
    await context.leaveIfStopped(0, () => ({ weights, items: 0 }) satisfies Progress);
    if (stop < data.size && Math.min(samplingBudgetSeconds - seconds, context.secondsLeft) <= 0) {
      context.note(`Sampling stopped after ${stop} of ${data.size} items to keep its time budget.`, { items: stop });
      break;
    }
  }
  return items;
}

/** Samples whole items, so that what the pool holds of an item is all or nothing. Returns the tokens drawn. */
async function drawMarked(
  context: RecipeContext,
  judge: Judge,
  options: ResolvedOptions,
  pool: SamplePool,
  weights: string,
  rows: readonly Row[],
): Promise<number> {
  const { samples, seed, temperature, topK, topP, minP, maxNewTokens } = options;
  const { signal } = context;
  const encoded = await context.policy.encode(rows, signal);
  const drawn: DrawnCompletion[] = [];
  const draw = { count: samples, seed, temperature, topK, topP, minP, maxNewTokens, signal };
  const stats = await context.policy.draw(encoded, draw, (completion) => drawn.push(completion));
  drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
  const table = await rewardTable(judge, rows, drawn);
  const pace = new Pace();
  for (const row of rows) context.run?.items.add(row);
  for (const [i, { item, sample, text, tokens, finishReason }] of drawn.entries()) {
    const row = rows[item]!;
    const { correct, answer } = verdictOf(judge, row, text);
    const rewards = Object.fromEntries(table.names.map((name, k) => [name, table.values[i]![k] ?? null]));
    pool.add({
      item: row.id,
      checkpoint: weights,
      sample,
      stage: context.stage,
      seed,
      temperature,
      recency: 0,
      text,
      numTokens: tokens.length,
      finishReason,
      rewards,
      answer,
      correct,
    } satisfies MarkedSample);
    await pace.breathe();
  }
  await pool.sync();
  context.countTokens(stats.completionTokens);
  return stats.completionTokens;
}

async function trainOnKept(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
  pool: SamplePool,
  progress: Progress,
): Promise<SftResult> {
  const kept = progress.routing!.kept;
  const rows = await Promise.all(kept.map(({ index }) => parts.data.row(index)));
  const texts: string[] = [];
  const pace = new Pace();
  for (const [i, { sample }] of kept.entries()) {
    const { id } = rows[i]!;
    const entry = pool.entries(progress.weights, id).find((candidate) => candidate.sample === sample);
    if (entry === undefined) throw lostSample(id, sample);
    texts.push((await pool.read(entry)).text);
    await pace.breathe();
  }
  const also = (await parts.alsoTrain?.(kept.map(({ index }) => index))) ?? [];
  const data = generatedDataset({
    name: `${parts.data.name} kept`,
    size: kept.length + also.length,
    // Pictures are covered by the fingerprint of the data they come from; hashing them again would hold the event loop.
    key: JSON.stringify([parts.data.fingerprint, progress.weights, kept, texts, also.map(({ id }) => id)]),
    make: (index) =>
      index < kept.length ? { ...rows[index]!, completion: texts[index]! } : also[index - kept.length]!,
  });
  const recipe = sft({
    data,
    options: options.sft,
    ...(parts.validation === undefined ? {} : { validation: parts.validation }),
  });
  return context.runStage(`${context.stage}/train`, recipe);
}

function lostSample(item: string, sample: number): GavelError {
  return expected(
    'bad_data',
    'samples',
    `sample ${sample} of item "${item}" in the pool`,
    'none',
    'The samples folder was changed since the checkpoint; restore it or start a new run.',
  );
}
