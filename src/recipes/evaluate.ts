/**
 * Evaluation of a judge: greedy or sampled, both orders, with and without chain of thought, an unseen sub-set apart. It only
 * samples and marks; the numbers follow from the judgements (src/evaluation).
 */
import { z } from 'zod';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import { otherOrder, readChoice, type Choice, type Judgement } from '../evaluation/judgement.js';
import { readTotals } from '../evaluation/totals.js';
import { goldAnswer } from '../rewards/accuracy.js';
import type { RecipeContext } from './context.js';
import { evaluationResult, type EvaluationResult } from '../evaluation/result.js';
import { drawKept, type AskedPrompt, type KeptSamples } from './evaluate-samples.js';
import { stopStringsSchema } from './draw-options.js';
import type { Recipe } from './job.js';
import { defaultJudge, verdictOf, type Judge } from './judge.js';
import { Pace } from '../pace.js';

export type { EvaluationResult } from '../evaluation/result.js';
export type { KeptSamples } from './evaluate-samples.js';

/** One test item: as it is, in the other order, and asked without chain of thought. */
export interface EvaluationItem {
  row: Row;
  swapped?: Row;
  direct?: Row;
  /** `direct` in the other order. */
  directSwapped?: Row;
  /** Belongs to the unseen sub-set. */
  unseen: boolean;
  /** Which candidate of `row` is better. Default: the one that `solution` names, if it names one. */
  goldChoice?: Choice;
  /** `row` shows the candidates in the other order than the data. */
  isSwapped?: boolean;
  /** Sub-sets, by name of the division. */
  subsets?: Record<string, string>;
  /** Items of one cluster count only when all are right. */
  cluster?: string;
}

export interface EvaluationSet {
  readonly name: string;
  readonly size: number;
  /** Equal for equal content; keeps samples of another content from being taken for these. */
  readonly fingerprint?: string;
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
    stopStrings: stopStringsSchema,
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

/** @internal An evaluator that stops where training does, unless it says itself where to. */
export const stoppingLike = (evaluator: Evaluator, stopStrings: readonly string[] | undefined): Evaluator =>
  stopStrings === undefined
    ? evaluator
    : {
        ...evaluator,
        options: { ...evaluator.options, stopStrings: evaluator.options?.stopStrings ?? [...stopStrings] },
      };

export const evaluateOptionsSchema = samplesNeedTemperature(evaluateOptions);

export type EvaluateOptions = z.input<typeof evaluateOptionsSchema>;

export interface Evaluator {
  set: EvaluationSet;
  judge?: Judge;
  options?: EvaluateOptions;
  /** Further shares of a completion (null where they do not apply), averaged into `extras`. Not called for direct rows. */
  inspect?: (text: string, row: Row) => Record<string, number | null>;
  /** The candidate that an answer names. Default: "Image 1", "Video 2", "Answer 1", or a tie. */
  readChoice?: (answer: string, row: Row) => Choice | null;
  /** The totals a rationale states for the two candidates. Default: UnifiedReward-Think's "Total score" lines. */
  readTotals?: (text: string, row: Row) => readonly [number, number] | null;
  /** Told of every judgement with its completion, in the order of the items. */
  onJudgement?: (judgement: Judgement) => void;
  /** Where completions are kept and read back. Default of the recipe: the pool of its run. */
  kept?: KeptSamples;
}

/** A prompt of an item. */
interface Asked extends AskedPrompt {
  item: EvaluationItem;
}

/** Runs an evaluation inside a recipe, telling its progress; emits 'evaluation-end'. `onChunk` runs after each chunk. */
export async function evaluateNow(
  context: RecipeContext,
  evaluator: Evaluator,
  step = 0,
  onChunk?: () => Promise<void>,
): Promise<EvaluationResult> {
  const { set, kept } = evaluator;
  const options = parseOptions(evaluateOptionsSchema, evaluator.options ?? {}, 'options');
  const content = [set.name, ...(set.fingerprint === undefined ? [] : [set.fingerprint])].join(' ');
  const startedMs = performance.now();
  const judgements: Judgement[] = [];
  const pace = new Pace();
  let drawn = 0;
  let judged = 0;
  let right = 0;
  for (let start = 0; start < set.size; start += options.chunkItems) {
    const stop = Math.min(set.size, start + options.chunkItems);
    const indices = Array.from({ length: stop - start }, (_, offset) => start + offset);
    const items = await Promise.all(indices.map((index) => set.item(index)));
    const asked = items.flatMap((item, offset) => promptsOf(item, start + offset));
    const { texts, tokens } = await drawKept(context, { name: set.name, content }, asked, options, kept);
    drawn += tokens;
    for (const [i, prompt] of asked.entries()) {
      for (const { sample, text, numTokens, finishReason } of texts[i]!) {
        const judgement = judge(evaluator, prompt, sample, text, numTokens, finishReason === 'length');
        judgements.push(judgement);
        evaluator.onJudgement?.({ ...judgement, text });
        judged += Number(!prompt.direct);
        right += Number(!prompt.direct && judgement.correct);
        await pace.breathe();
      }
    }
    const seconds = (performance.now() - startedMs) / 1000;
    context.emit({
      type: 'sampling-progress',
      stage: context.stage,
      purpose: set.name,
      done: stop,
      total: set.size,
      accuracy: judged === 0 ? 0 : right / judged,
      tokensPerSecond: drawn / seconds,
      secondsLeft: (seconds / stop) * (set.size - stop),
    });
    await onChunk?.();
    await pace.breathe();
  }
  const seconds = (performance.now() - startedMs) / 1000;
  const result = await evaluationResult(set.name, judgements, { seconds, tokens: drawn, seed: options.seed });
  context.emit({ type: 'evaluation-end', stage: context.stage, name: set.name, step, result });
  return result;
}

/** The evaluation as a recipe of its own. Its weights are fixed, so a killed one goes on where it was. */
export function evaluate(evaluator: Evaluator): Recipe<EvaluationResult> {
  return {
    kind: 'evaluate',
    config: { set: evaluator.set.name, ...parseOptions(evaluateOptionsSchema, evaluator.options ?? {}, 'options') },
    run: (context) => {
      const progress = context.progress<{ weights: string }>() ?? { weights: context.weightsName };
      const pool = context.run?.samples;
      const kept = evaluator.kept ?? (pool === undefined ? undefined : { pool, ...progress });
      const whole = kept === undefined ? evaluator : { ...evaluator, kept };
      return evaluateNow(context, whole, 0, () => context.leaveIfStopped(0, () => progress));
    },
  };
}

/** What is asked of an item, each prompt under its own key. */
function promptsOf(item: EvaluationItem, index: number): Asked[] {
  const { row, swapped, direct, directSwapped, isSwapped = false } = item;
  const [own, other] = isSwapped ? (['swapped', 'given'] as const) : (['given', 'swapped'] as const);
  const prompt = (name: string, of: Row | undefined, order: Judgement['order'], isDirect: boolean): Asked[] =>
    of === undefined ? [] : [{ row: of, key: `${index} ${name}`, item, order, direct: isDirect }];
  return [
    ...prompt('row', row, own, false),
    ...prompt('swapped', swapped, other, false),
    ...prompt('direct', direct, own, true),
    ...prompt('direct swapped', directSwapped, other, true),
  ];
}

function judge(
  evaluator: Evaluator,
  { row, item, order, direct }: Asked,
  sample: number,
  text: string,
  length: number,
  truncated: boolean,
): Judgement {
  const { judge: by = defaultJudge, inspect } = evaluator;
  const choose = evaluator.readChoice ?? readChoice;
  const { correct, answer } = verdictOf(by, row, text);
  const gold = goldAnswer(row);
  const goldChoice = goldChoiceOf(item, order, choose(gold, row));
  return {
    item: item.row.id,
    subsets: item.subsets ?? {},
    cluster: item.cluster ?? null,
    unseen: item.unseen,
    order,
    direct,
    sample,
    gold,
    goldChoice,
    answer,
    choice: goldChoice === null || answer === null ? null : choose(answer, row),
    correct,
    format: by.hasFormat(text),
    truncated,
    length,
    totals: goldChoice === null || direct ? null : copyOf((evaluator.readTotals ?? readTotals)(text, row)),
    extras: direct ? {} : (inspect?.(text, row) ?? {}),
  };
}

/** An answer such as "equal" is a tie only where the item says that it compares two candidates. */
function goldChoiceOf(item: EvaluationItem, order: Judgement['order'], named: Choice | null): Choice | null {
  if (item.goldChoice === undefined) return named === 'tie' ? null : named;
  return (order === 'swapped') === (item.isSwapped ?? false) ? item.goldChoice : otherOrder(item.goldChoice);
}

const copyOf = (totals: readonly [number, number] | null): [number, number] | null =>
  totals === null ? null : [...totals];
