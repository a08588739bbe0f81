/**
 * Evaluation of a judge: greedy or sampled, both orders, with and without chain of thought, an unseen sub-set apart. The
 * interval is Wilson's over items: the two orders of one item are not two observations.
 */
import { z } from 'zod';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import type { RecipeContext } from './context.js';
import { wilsonInterval } from '../evaluation/interval.js';
import type { Recipe } from './job.js';
import { defaultJudge, verdictOf, type Judge } from './judge.js';
import { Pace } from './pace.js';

/** One test item: as it is, in the other order, and asked without chain of thought. */
export interface EvaluationItem {
  row: Row;
  swapped?: Row;
  direct?: Row;
  /** Belongs to the unseen sub-set. */
  unseen: boolean;
}

export interface EvaluationSet {
  readonly name: string;
  readonly size: number;
  item(index: number): Promise<EvaluationItem>;
}

const evaluateOptions = z
  .strictObject({
    temperature: z.number().min(0).default(0).describe('0 is greedy.'),
    samples: z
      .number()
      .int()
      .min(1)
      .default(1)
      .describe('Completions of each prompt; more than 1 needs a temperature.'),
    seed: z.number().int().min(0).default(0).describe('Key of the sampling.'),
    maxNewTokens: z.number().int().min(1).default(2048).describe('Longest completion, in tokens.'),
    chunkItems: z.number().int().min(1).default(32).describe('Items sampled at once.'),
  })
  .describe('How a judge is evaluated.');

/** Several greedy completions would be one completion counted several times. */
export const samplesNeedTemperature = <T extends z.ZodType<{ samples: number; temperature: number }>>(schema: T): T =>
  schema.refine(({ samples, temperature }) => samples === 1 || temperature > 0, {
    path: ['samples'],
    error: 'Expected 1 with temperature 0, where every completion of a prompt is the same; or set a temperature.',
  });

export const evaluateOptionsSchema = samplesNeedTemperature(evaluateOptions);

export type EvaluateOptions = z.input<typeof evaluateOptionsSchema>;

export interface EvaluationResult {
  name: string;
  /** Items outside and inside the unseen sub-set. */
  count: number;
  unseenCount: number;
  /** Mean over items and orders outside the unseen sub-set, with its 95 % interval; null without such items. */
  accuracy: number | null;
  accuracyLow: number | null;
  accuracyHigh: number | null;
  unseenAccuracy: number | null;
  unseenAccuracyLow: number | null;
  unseenAccuracyHigh: number | null;
  /** Accuracy when asked without chain of thought; null when no item asks so. */
  directAccuracy: number | null;
  unseenDirectAccuracy: number | null;
  formatRate: number;
  unparsedRate: number;
  truncatedRate: number;
  /** Share of items whose two orders name the same candidate; null when no item has both. */
  orderConsistency: number | null;
  meanLength: number;
  /** Means of what `inspect` returned, by name. */
  extras: Record<string, number>;
  seconds: number;
  tokensPerSecond: number;
  /** Mark of each item, mean over orders, by id: for paired tests. */
  marks: Record<string, number>;
}

export interface Evaluator {
  set: EvaluationSet;
  judge?: Judge;
  options?: EvaluateOptions;
  /** Further shares of a completion (null where they do not apply), averaged into `extras`. Not called for direct rows. */
  inspect?: (text: string, row: Row) => Record<string, number | null>;
}

type Role = 'row' | 'swapped' | 'direct';

/** Runs an evaluation inside a recipe, telling its progress; emits 'evaluation-end'. `onChunk` runs after each chunk. */
export async function evaluateNow(
  context: RecipeContext,
  evaluator: Evaluator,
  step = 0,
  onChunk?: () => Promise<void>,
): Promise<EvaluationResult> {
  const { set, judge = defaultJudge, inspect } = evaluator;
  const options = parseOptions(evaluateOptionsSchema, evaluator.options ?? {}, 'options');
  const startedMs = performance.now();
  const tally = new Tally();
  const pace = new Pace();
  for (let start = 0; start < set.size; start += options.chunkItems) {
    const stop = Math.min(set.size, start + options.chunkItems);
    const asked: { row: Row; role: Role; item: number; unseen: boolean }[] = [];
    const indices = Array.from({ length: stop - start }, (_, offset) => start + offset);
    const items = await Promise.all(indices.map((index) => set.item(index)));
    for (const [offset, { row, swapped, direct, unseen }] of items.entries()) {
      const index = start + offset;
      asked.push({ row, role: 'row', item: index, unseen });
      if (swapped !== undefined) asked.push({ row: swapped, role: 'swapped', item: index, unseen });
      if (direct !== undefined) asked.push({ row: direct, role: 'direct', item: index, unseen });
      tally.addItem(index, row.id, unseen);
    }
    const rows = await context.policy.encode(
      asked.map(({ row }) => row),
      context.signal,
    );
    const { samples, seed, temperature, maxNewTokens } = options;
    const stats = await context.policy.draw(
      rows,
      { count: samples, seed, temperature, maxNewTokens, signal: context.signal },
      ({ item: position, text, tokens, finishReason }) => {
        const { row, role, item } = asked[position]!;
        const { correct, answer } = verdictOf(judge, row, text);
        if (role === 'direct') return tally.addDirect(item, correct);
        tally.addJudgement(item, role, {
          correct,
          answer,
          hasFormat: judge.hasFormat(text),
          truncated: finishReason === 'length',
          length: tokens.length,
          extras: inspect?.(text, row) ?? {},
        });
      },
    );
    context.countTokens(stats.completionTokens);
    tally.tokens += stats.completionTokens;
    const seconds = (performance.now() - startedMs) / 1000;
    context.emit({
      type: 'sampling-progress',
      stage: context.stage,
      purpose: set.name,
      done: stop,
      total: set.size,
      accuracy: tally.accuracySoFar,
      tokensPerSecond: tally.tokens / seconds,
      secondsLeft: (seconds / stop) * (set.size - stop),
    });
    await onChunk?.();
    await pace.breathe();
  }
  const result = tally.result(set.name, (performance.now() - startedMs) / 1000);
  context.emit({ type: 'evaluation-end', stage: context.stage, name: set.name, step, result });
  return result;
}

/** The evaluation as a recipe of its own. */
export function evaluate(evaluator: Evaluator): Recipe<EvaluationResult> {
  return {
    kind: 'evaluate',
    config: { set: evaluator.set.name, ...parseOptions(evaluateOptionsSchema, evaluator.options ?? {}, 'options') },
    run: (context) => evaluateNow(context, evaluator, 0, () => context.leaveIfStopped(0, () => null)),
  };
}

interface Judgement {
  correct: boolean;
  answer: string | null;
  hasFormat: boolean;
  truncated: boolean;
  length: number;
  extras: Record<string, number | null>;
}

interface ItemTally {
  id: string;
  unseen: boolean;
  row: Judgement[];
  swapped: Judgement[];
  direct: boolean[];
}

const mean = (values: readonly number[]): number | null =>
  values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;

/** Collects judgements item by item and turns them into rates. */
class Tally {
  readonly #items = new Map<number, ItemTally>();
  #correct = 0;
  #judged = 0;
  tokens = 0;

  addItem(index: number, id: string, unseen: boolean): void {
    this.#items.set(index, { id, unseen, row: [], swapped: [], direct: [] });
  }

  addJudgement(index: number, role: 'row' | 'swapped', judgement: Judgement): void {
    this.#items.get(index)![role].push(judgement);
    this.#judged++;
    if (judgement.correct) this.#correct++;
  }

  addDirect(index: number, correct: boolean): void {
    this.#items.get(index)!.direct.push(correct);
  }

  get accuracySoFar(): number {
    return this.#judged === 0 ? 0 : this.#correct / this.#judged;
  }

  result(name: string, seconds: number): EvaluationResult {
    const items = [...this.#items.values()];
    const all = items.flatMap(({ row, swapped }) => [...row, ...swapped]);
    const seen = accuracyOf(items.filter(({ unseen }) => !unseen));
    const unseen = accuracyOf(items.filter((item) => item.unseen));
    // Which order is which is known by the gold answer, so "names the same candidate" is "both right or both wrong",
    // and an order without an answer names none.
    const pairs = items.filter(({ row, swapped }) => row.length > 0 && swapped.length > 0);
    const consistent = pairs.map(({ row, swapped }) => {
      const [a, b] = [row[0]!, swapped[0]!];
      return Number(a.answer !== null && b.answer !== null && a.correct === b.correct);
    });
    return {
      name,
      count: seen.count,
      unseenCount: unseen.count,
      accuracy: seen.accuracy,
      accuracyLow: seen.low,
      accuracyHigh: seen.high,
      unseenAccuracy: unseen.accuracy,
      unseenAccuracyLow: unseen.low,
      unseenAccuracyHigh: unseen.high,
      directAccuracy: seen.direct,
      unseenDirectAccuracy: unseen.direct,
      formatRate: mean(all.map(({ hasFormat }) => Number(hasFormat))) ?? 0,
      unparsedRate: mean(all.map(({ answer }) => Number(answer === null))) ?? 0,
      truncatedRate: mean(all.map(({ truncated }) => Number(truncated))) ?? 0,
      orderConsistency: mean(consistent),
      meanLength: mean(all.map(({ length }) => length)) ?? 0,
      extras: meanExtras(all),
      seconds,
      tokensPerSecond: this.tokens / seconds,
      marks: Object.fromEntries(items.map((item) => [item.id, markOf(item)])),
    };
  }
}

const markOf = ({ row, swapped }: ItemTally): number =>
  mean([...row, ...swapped].map(({ correct }) => Number(correct))) ?? 0;

function accuracyOf(items: readonly ItemTally[]): {
  count: number;
  accuracy: number | null;
  low: number | null;
  high: number | null;
  direct: number | null;
} {
  const accuracy = mean(items.map(markOf));
  const interval = accuracy === null ? null : wilsonInterval(accuracy * items.length, items.length);
  const direct = mean(items.flatMap((item) => item.direct.map(Number)));
  return { count: items.length, accuracy, low: interval?.low ?? null, high: interval?.high ?? null, direct };
}

function meanExtras(judgements: readonly Judgement[]): Record<string, number> {
  const sums = new Map<string, { sum: number; count: number }>();
  for (const { extras } of judgements) {
    for (const [name, value] of Object.entries(extras)) {
      if (value === null) continue;
      const entry = sums.get(name) ?? { sum: 0, count: 0 };
      entry.sum += value;
      entry.count++;
      sums.set(name, entry);
    }
  }
  return Object.fromEntries([...sums].map(([name, { sum, count }]) => [name, sum / count]));
}
