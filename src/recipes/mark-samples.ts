/**
 * The primitive under rejection sampling, R3V's bootstrap and test-time selection: draw with fixed weights what the marked
 * pool does not hold yet, mark it, keep it. The pool is keyed (weights, item, sample) and every chunk of items is kept, so
 * that a killed run samples nothing twice.
 */
import { z } from 'zod';
import type { Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { expected } from '../errors.js';
import type { MarkedSample, SampleEntry, SamplePool } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import { drawSettingsOf, drawShape, type DrawSettings } from './draw-options.js';
import { rewardTable, verdictOf, type Judge } from './judge.js';
import { Pace } from '../pace.js';
import type { DrawnCompletion } from './policy.js';

/** How samples are drawn; recipes set the defaults of their papers. */
export const drawSchema = z.strictObject({
  samples: z.number().int().min(1).default(4).describe('Completions of each item (k).'),
  ...drawShape,
  maxNewTokens: z.number().int().min(1).default(2048).describe('Longest completion, in tokens.'),
  chunkItems: z.number().int().min(1).default(128).describe('Items sampled at once; each chunk is kept when killed.'),
});

export interface MarkOptions extends DrawSettings {
  data: Dataset;
  judge: Judge;
  pool: SamplePool;
  /** Name of the weights that draw: `context.weightsName` at the time they were checkpointed. */
  weights: string;
  /** Samples that the pool shall hold of each item. */
  samples: number;
  seed: number;
  maxNewTokens: number;
  /** Items sampled at once. */
  chunkItems: number;
  /** Kept with each sample; higher is newer. Default: 0. */
  recency?: number;
  /** Seconds after which no further chunk is begun. Default: as long as it takes. */
  budgetSeconds?: number | undefined;
  /** Go on past every time budget: part of an evaluation is no evaluation. Default: false. */
  whole?: boolean;
  /** What a checkpoint records when a graceful stop falls between two chunks. Default: the weights' name alone. */
  progress?: () => unknown;
}

/** An item whose samples are all in the pool. */
export interface MarkedItem {
  /** Index in the data set. */
  index: number;
  id: string;
  /** By sample index, `samples` of them. */
  samples: readonly SampleEntry[];
}

export interface MarkResult {
  /** Items visited: all of the data set unless time ran out. */
  items: number;
  /** Share of correct samples, and of items with at least one. */
  accuracy: number;
  passAtK: number;
}

/**
 * Draws and marks what is missing, and calls `visit` for every item in order, with its row, once its samples are there.
 * Errors: 'invalid_config' for a pool whose samples of these weights were drawn with another seed or temperature.
 */
export async function markSamples(
  context: RecipeContext,
  options: MarkOptions,
  visit: (item: MarkedItem, row: Row) => void | Promise<void> = () => undefined,
): Promise<MarkResult> {
  const { data, pool, weights, samples, chunkItems, budgetSeconds = Infinity } = options;
  const { progress = () => ({ weights, items: 0 }) } = options;
  const startedMs = performance.now();
  const pace = new Pace();
  let [items, right, solved, tokens] = [0, 0, 0, 0];
  for (let start = 0; start < data.size; start += chunkItems) {
    const stop = Math.min(data.size, start + chunkItems);
    const indices = Array.from({ length: stop - start }, (_, offset) => start + offset);
    const rows = await Promise.all(indices.map((index) => data.row(index)));
    tokens += await drawMissing(context, options, rows);
    for (const [offset, row] of rows.entries()) {
      const held = pool.entries(weights, row.id).slice(0, samples);
      const correct = held.filter((entry) => entry.correct).length;
      right += correct;
      solved += Number(correct > 0);
      items++;
      await visit({ index: start + offset, id: row.id, samples: held }, row);
      await pace.breathe();
    }
    const seconds = (performance.now() - startedMs) / 1000;
    context.emit({
      type: 'sampling-progress',
      stage: context.stage,
      purpose: data.name,
      done: stop,
      total: data.size,
      accuracy: right / (items * samples),
      tokensPerSecond: tokens / seconds,
      secondsLeft: (seconds / stop) * (data.size - stop),
    });
    await context.leaveIfStopped(0, progress);
    if (options.whole !== true && stop < data.size && Math.min(budgetSeconds - seconds, context.secondsLeft) <= 0) {
      context.note(`Sampling stopped after ${stop} of ${data.size} items to keep its time budget.`, { items: stop });
      break;
    }
  }
  return { items, accuracy: right / (items * samples), passAtK: solved / items };
}

/** Rows by the first sample index that the pool lacks: an item keeps what it has and gets the rest. Returns tokens drawn. */
async function drawMissing(context: RecipeContext, options: MarkOptions, rows: readonly Row[]): Promise<number> {
  const missing = new Map<number, Row[]>();
  for (const row of rows) {
    const first = firstMissing(options, row);
    if (first < options.samples) missing.set(first, [...(missing.get(first) ?? []), row]);
  }
  let tokens = 0;
  for (const [first, some] of missing) tokens += await drawMarked(context, options, some, first);
  return tokens;
}

function firstMissing({ pool, weights, seed, temperature, samples }: MarkOptions, row: Row): number {
  const held = pool.entries(weights, row.id).slice(0, samples);
  const other = held.find((entry) => entry.seed !== seed || entry.temperature !== temperature);
  if (other !== undefined) {
    throw expected(
      'invalid_config',
      'weights',
      `samples of seed ${seed} and temperature ${temperature} in the pool for item "${row.id}" under ${weights}`,
      `seed ${other.seed} and temperature ${other.temperature}`,
      'Give the second way of sampling another name of the weights or other item ids.',
    );
  }
  const gap = held.findIndex(({ sample }, i) => sample !== i);
  return gap < 0 ? held.length : gap;
}

async function drawMarked(
  context: RecipeContext,
  options: MarkOptions,
  rows: readonly Row[],
  firstSample: number,
): Promise<number> {
  const { judge, pool, weights: checkpoint, seed, temperature, maxNewTokens, recency = 0 } = options;
  const { signal } = context;
  const encoded = await context.policy.encode(rows, signal);
  const drawn: DrawnCompletion[] = [];
  const count = options.samples - firstSample;
  const draw = { ...drawSettingsOf(options), count, firstSample, seed, maxNewTokens, signal };
  const stats = await context.policy.draw(encoded, draw, (completion) => drawn.push(completion));
  drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
  const table = judge.rewards.length === 0 ? undefined : await rewardTable(judge, rows, drawn);
  const pace = new Pace();
  for (const row of rows) context.run?.items.add(row);
  for (const [i, { item, sample, text, tokens, finishReason }] of drawn.entries()) {
    const row = rows[item]!;
    const { correct, answer } = verdictOf(judge, row, text);
    const rewards = Object.fromEntries(table?.names.map((name, k) => [name, table.values[i]![k] ?? null]) ?? []);
    pool.add({
      item: row.id,
      checkpoint,
      sample,
      stage: context.stage,
      seed,
      temperature,
      recency,
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
