/**
 * Supervised fine-tuning: negative log-likelihood of completion tokens. Cold start, rejection sampling's second half and
 * perception pre-training are this loop on different rows.
 */
import { z } from 'zod';
import type { Cursor } from '../data/shuffle.js';
import type { Dataset } from '../data/dataset.js';
import { parseOptions } from '../engine/parse-options.js';
import { expected, GavelError } from '../errors.js';
import type { RecipeContext } from './context.js';
import { encodedBatches, type EncodedBatch } from './encoded-batches.js';
import { evaluateNow, type EvaluationResult, type Evaluator } from './evaluate.js';
import type { Recipe } from './job.js';
import { microBatchSchema, microBatchTokens, optimizerOptions, optimizerSchema } from './optimizer-options.js';
import { packedTokens } from './packed-tokens.js';
import { supervisedGroup } from './policy.js';
import { scheduleFactor, scheduleSchema } from './schedules.js';
import { decideSearch, searchSchema, settleSearch, type SearchPoint } from './search.js';
import type { StepClock } from './step-clock.js';
import { stepLoop, type StepPlan } from './step-loop.js';
import { StepReporter } from './step-report.js';

export const sftOptionsSchema = z
  .strictObject({
    learningRate: z.number().positive().default(2.5e-6).describe('Peak learning rate.'),
    schedule: scheduleSchema.prefault({}),
    epochs: z.number().positive().default(3).describe('Passes over the data; `steps` wins.'),
    steps: z.number().int().min(1).optional().describe('Optimizer steps.'),
    batchSize: z.number().int().min(1).default(128).describe('Rows of one optimizer step.'),
    normalization: z
      .enum(['tokens', 'completions', 'sum'])
      .default('tokens')
      .describe('Mean over the tokens of the step, mean over completions of their token means, or sum.'),
    optimizer: optimizerSchema.prefault({}),
    microBatch: microBatchSchema.prefault({}),
    seed: z.number().int().min(0).default(0).describe('Key of the order of the rows.'),
    evaluateEvery: z.number().int().min(1).optional().describe('Steps between validations, each with a checkpoint.'),
    evaluateFrom: z.number().int().min(0).default(0).describe('No validation before this step.'),
    checkpointEvery: z
      .number()
      .int()
      .min(1)
      .default(200)
      .describe('Steps between checkpoints where none is evaluated.'),
    search: searchSchema.optional().describe('Stop where accuracy has left chance but is not saturated.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound; the plan is shortened to fit it.'),
  })
  .describe('Supervised fine-tuning on completion tokens.');

export type SftOptions = z.input<typeof sftOptionsSchema>;
type ResolvedOptions = z.output<typeof sftOptionsSchema>;

export interface SftParts {
  data: Dataset;
  /** Runs every `evaluateEvery` steps and at the end. */
  validation?: Evaluator;
  options?: SftOptions;
}

export interface SftResult {
  /** Steps in the weights that were kept. */
  steps: number;
  loss: number | null;
  /** Validation of the kept weights. */
  validation: Omit<EvaluationResult, 'marks'> | null;
}

interface Point extends SearchPoint {
  cursor?: Cursor;
  validation?: Omit<EvaluationResult, 'marks'>;
}

interface Progress extends StepPlan {
  /** Validations are `every` steps apart, from step `from` on. */
  every: number | undefined;
  from: number;
  cursor?: Cursor;
  points: Point[];
  loss: number | null;
  /** The search has taken its checkpoint. */
  accepted?: boolean;
}

export function sft(parts: SftParts): Recipe<SftResult> {
  const options = parseOptions(sftOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'sft',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runSft(context, parts, options),
  };
}

async function runSft(context: RecipeContext, parts: SftParts, options: ResolvedOptions): Promise<SftResult> {
  if (options.search !== undefined && (context.run === undefined || parts.validation === undefined)) {
    throw expected(
      'invalid_config',
      'search',
      'a run folder and a validation set',
      context.run === undefined ? 'no run folder' : 'no validation set',
      'The search goes back to checkpoints by their validation accuracy.',
    );
  }
  if (options.search !== undefined && options.evaluateEvery === undefined) {
    throw expected(
      'invalid_config',
      'evaluateEvery',
      'a number of steps',
      undefined,
      'A search decides at evaluations.',
    );
  }
  const planned = options.steps ?? Math.ceil((options.epochs * parts.data.size) / options.batchSize);
  let progress = context.progress<Progress>();
  if (progress === undefined) {
    await context.policy.model.resetOptimizer();
    progress = {
      step: 0,
      totalSteps: planned,
      every: options.evaluateEvery,
      from: options.evaluateFrom,
      points: [],
      loss: null,
    };
    // A search may have to come back to the very start.
    if (options.search !== undefined) await context.checkpoint(0, progress, { pin: true });
  }
  for (;;) {
    const rewound = await trainUntilDone(context, parts, options, progress);
    if (!rewound) break;
  }
  await settle(context, parts, options, progress);
  const kept = progress.points.findLast(({ step }) => step === progress.step);
  return { steps: progress.step, loss: progress.loss, validation: kept?.validation ?? null };
}

/** Trains from where `progress` stands. True when the search went back and training has to be entered again. */
async function trainUntilDone(
  context: RecipeContext,
  parts: SftParts,
  options: ResolvedOptions,
  progress: Progress,
): Promise<boolean> {
  const { signal } = context;
  const reporter = new StepReporter(context);
  const { batchSize, seed } = options;
  const source = encodedBatches(context.policy, parts.data, {
    batchSize,
    seed,
    signal,
    ...(progress.cursor === undefined ? {} : { cursor: progress.cursor }),
  });
  let rewound = false;
  try {
    await stepLoop(context, progress, progress.every, async (clock) => {
      const { value: batch } = await source.next();
      await trainStep(context, options, progress, clock, reporter, batch!);
      if (!isEvaluationDue(parts, progress)) {
        if (progress.step % options.checkpointEvery === 0) await context.checkpoint(progress.step, progress);
        return 'continue';
      }
      const decision = await evaluatePoint(context, parts.validation!, options, progress);
      rewound = decision === 'rewound';
      return decision === 'continue' ? 'continue' : 'leave';
    });
  } finally {
    await source.return();
  }
  return rewound;
}

function isEvaluationDue(parts: SftParts, { step, every, from }: Progress): boolean {
  return parts.validation !== undefined && every !== undefined && step >= from && step % every === 0;
}

async function trainStep(
  context: RecipeContext,
  options: ResolvedOptions,
  progress: Progress,
  clock: StepClock,
  reporter: StepReporter,
  batch: EncodedBatch,
): Promise<void> {
  const { model } = context.policy;
  const startedMs = performance.now();
  const untrainable = batch.encoded.find(({ completionTokens }) => completionTokens === undefined);
  if (untrainable !== undefined) {
    throw new GavelError(
      'bad_data',
      `Expected a completion to train on in row "${untrainable.id}" but received none. Add it or leave the row out.`,
      { fields: { id: untrainable.id } },
    );
  }
  const groups = batch.encoded.map(supervisedGroup);
  const learningRate = options.learningRate * scheduleFactor(options.schedule, progress.step, clock.totalSteps);
  const result = await model.forwardBackward(
    groups,
    [{ kind: 'nll', weight: 1, normalization: options.normalization }],
    {
      maxTokensPerMicroBatch: microBatchTokens(options.microBatch, packedTokens(groups)),
      activationCheckpointing: options.microBatch.activationCheckpointing,
      signal: context.signal,
    },
  );
  const update = await model.optimizerStep(optimizerOptions(options.optimizer, learningRate));
  progress.step++;
  progress.cursor = batch.cursor;
  progress.loss = result.loss;
  const { loss, packedTokens: tokens, metrics } = result;
  await reporter.report({
    step: progress.step,
    clock,
    startedMs,
    loss,
    reward: null,
    learningRate,
    update,
    tokens,
    metrics,
  });
}

/** Validates, checkpoints, and lets the search decide. */
async function evaluatePoint(
  context: RecipeContext,
  validation: Evaluator,
  options: ResolvedOptions,
  progress: Progress,
): Promise<'continue' | 'rewound' | 'accepted'> {
  const { step } = progress;
  const { marks: _marks, ...result } = await evaluateNow(context, validation, step);
  const count = result.count + result.unseenCount;
  progress.points.push({
    step,
    accuracy: result.accuracy ?? result.unseenAccuracy ?? 0,
    count,
    formatRate: result.formatRate,
    validation: result,
    ...(progress.cursor === undefined ? {} : { cursor: progress.cursor }),
  });
  await context.checkpoint(step, progress, { pin: options.search !== undefined });
  if (options.search === undefined) return 'continue';
  const decision = decideSearch(progress.points, progress.every!, options.search);
  if (decision.action === 'continue') return 'continue';
  const accuracyAt = (at: number): number | null =>
    progress.points.find((point) => point.step === at)?.accuracy ?? null;
  if (decision.action === 'accept') {
    const message =
      decision.reason === 'found' ? 'The search took' : 'Accuracy jumped over the whole band; the search took';
    context.note(`${message} step ${decision.step}.`, { step: decision.step, accuracy: accuracyAt(decision.step) });
    await goBack(context, progress, decision.step);
    progress.accepted = true;
    return 'accepted';
  }
  context.note(`The search went back to step ${decision.step} to look every ${decision.every} steps.`, {
    step: decision.step,
    every: decision.every,
  });
  await goBack(context, progress, decision.step);
  progress.every = decision.every;
  progress.from = decision.step;
  await context.checkpoint(progress.step, progress, { pin: true });
  return 'rewound';
}

async function goBack(context: RecipeContext, progress: Progress, step: number): Promise<void> {
  if (step === progress.step) return;
  await context.stepBack(step);
  progress.points = progress.points.filter((point) => point.step <= step);
  progress.step = step;
  const cursor = progress.points.findLast((point) => point.step === step)?.cursor;
  if (cursor === undefined) delete progress.cursor;
  else progress.cursor = cursor;
}

/** At the end of steps or time: the last validation, and the best point when a search found none. */
async function settle(
  context: RecipeContext,
  parts: SftParts,
  options: ResolvedOptions,
  progress: Progress,
): Promise<void> {
  const isEvaluated = progress.points.some(({ step }) => step === progress.step);
  if (parts.validation !== undefined && !isEvaluated) {
    const found = await evaluatePoint(context, parts.validation, { ...options, search: undefined }, progress);
    if (found !== 'continue') return;
  }
  if (options.search === undefined || progress.accepted === true) return;
  const best = settleSearch(progress.points, options.search);
  if (best !== undefined && best.step !== progress.step) {
    context.note(`Steps or time ran out; the search took step ${best.step}.`, {
      step: best.step,
      accuracy: best.accuracy,
    });
    await goBack(context, progress, best.step);
  }
}
