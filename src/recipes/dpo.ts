/**
 * Direct preference optimization (Rafailov et al. 2023): of two completions of one prompt the chosen one is to gain more than
 * the rejected one over the reference, the weights the stage began with. IPO: Azar et al. 2023; label smoothing: Mitchell 2023.
 */
import { z } from 'zod';
import type { PairDataset } from '../data/pairs.js';
import type { Cursor } from '../data/shuffle.js';
import type { Objective } from '../engine/options.js';
import { parseOptions } from '../engine/parse-options.js';
import type { RecipeContext } from './context.js';
import { evaluateNow, type EvaluationResult, type Evaluator } from './evaluate.js';
import type { Recipe } from './job.js';
import { microBatchSchema, microBatchTokens, optimizerOptions, optimizerSchema } from './optimizer-options.js';
import { packedTokens } from './packed-tokens.js';
import { PairReferences } from './pair-references.js';
import { preferenceBatches, type PreferenceBatch } from './preference-pairs.js';
import { Reference } from './reference.js';
import { scheduleFactor, scheduleSchema } from './schedules.js';
import type { StepClock } from './step-clock.js';
import { stepLoop, type StepPlan } from './step-loop.js';
import { StepReporter } from './step-report.js';

export const dpoOptionsSchema = z
  .strictObject({
    loss: z
      .enum(['sigmoid', 'ipo'])
      .default('sigmoid')
      .describe('sigmoid: -log sigmoid(beta margin) (DPO); ipo: (margin a token - 1 / (2 beta))^2.'),
    beta: z
      .number()
      .positive()
      .default(0.1)
      .describe('Strength of the leash to the reference; a larger one stays nearer.'),
    labelSmoothing: z
      .number()
      .min(0)
      .lt(0.5)
      .default(0)
      .describe('Share of preferences taken to be the wrong way round; sigmoid only.'),
    ties: z
      .enum(['fail', 'skip'])
      .default('fail')
      .describe('What happens at a pair without a preference; skipped ones are counted.'),
    learningRate: z.number().positive().default(1e-5).describe('Peak learning rate; whole models want about a tenth.'),
    schedule: scheduleSchema.prefault({}),
    epochs: z.number().positive().default(1).describe('Passes over the pairs; `steps` wins.'),
    steps: z.number().int().min(1).optional().describe('Optimizer steps.'),
    batchSize: z.number().int().min(1).default(64).describe('Pairs of one optimizer step.'),
    optimizer: optimizerSchema.prefault({}),
    microBatch: microBatchSchema.prefault({}),
    seed: z.number().int().min(0).default(0).describe('Key of the order of the pairs.'),
    evaluateEvery: z.number().int().min(1).optional().describe('Steps between validations.'),
    checkpointEvery: z.number().int().min(1).default(200).describe('Steps between checkpoints.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound; the plan is shortened to fit it.'),
  })
  .refine(({ loss, labelSmoothing }) => loss === 'sigmoid' || labelSmoothing === 0, {
    path: ['labelSmoothing'],
    error: 'ipo has none. Leave it 0, or use the loss sigmoid.',
  })
  .describe('Direct preference optimization on pairs.');

export type DpoOptions = z.input<typeof dpoOptionsSchema>;
type ResolvedOptions = z.output<typeof dpoOptionsSchema>;

export interface DpoParts {
  /** Both candidates of a pair have the same prompt and pictures; their completions are compared. */
  data: PairDataset;
  /** Runs every `evaluateEvery` steps and at the end. */
  validation?: Evaluator;
  options?: DpoOptions;
}

export interface DpoResult {
  steps: number;
  /** Of the last step; null before the first. */
  loss: number | null;
  /** Share of its pairs whose chosen completion gained more. */
  accuracy: number | null;
  /** Ties met and left out, over all epochs. */
  ties: number;
  validation: Omit<EvaluationResult, 'marks'> | null;
}

interface Progress extends StepPlan {
  cursor?: Cursor;
  loss: number | null;
  accuracy: number | null;
  ties: number;
  /** The newest validation, and the step it was at. */
  validation?: { step: number; result: Omit<EvaluationResult, 'marks'> };
}

/** What every step of a stage works with. */
interface Stage {
  context: RecipeContext;
  options: ResolvedOptions;
  references: PairReferences;
  reporter: StepReporter;
}

/**
 * The DPO recipe. The reference is the model with its adapter switched off, or a frozen copy. Errors: 'invalid_argument' for
 * options, now; while it runs 'bad_data' naming the pair, and 'non_finite'.
 */
export function dpo(parts: DpoParts): Recipe<DpoResult> {
  const options = parseOptions(dpoOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'dpo',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runDpo(context, parts, options),
  };
}

async function runDpo(context: RecipeContext, parts: DpoParts, options: ResolvedOptions): Promise<DpoResult> {
  const { data, validation } = parts;
  const progress = context.progress<Progress>() ?? (await begin(context, data, options));
  const { batchSize, seed, ties } = options;
  const { policy, signal } = context;
  const order = { batchSize, seed, ties, signal, ...(progress.cursor && { cursor: progress.cursor }) };
  const references = new PairReferences(await Reference.open(context), data.size);
  const source = preferenceBatches(policy, data, order);
  const stage: Stage = { context, options, references, reporter: new StepReporter(context) };
  try {
    await stepLoop(context, progress, options.evaluateEvery, async (clock) => {
      const { value: batch } = await source.next();
      await preferenceStep(stage, progress, clock, batch!);
      const { step } = progress;
      if (options.evaluateEvery !== undefined && step % options.evaluateEvery === 0) {
        await validate(context, validation, progress);
      }
      if (step % options.checkpointEvery === 0) await context.checkpoint(step, progress);
      return 'continue';
    });
  } finally {
    await source.return();
    await references[Symbol.asyncDispose]();
  }
  await validate(context, validation, progress);
  const { step: steps, loss, accuracy, ties: numTies } = progress;
  return { steps, loss, accuracy, ties: numTies, validation: progress.validation?.result ?? null };
}

/** A new optimizer, and a checkpoint that keeps the reference weights for a resumed run. */
async function begin(context: RecipeContext, data: PairDataset, options: ResolvedOptions): Promise<Progress> {
  const totalSteps = options.steps ?? Math.ceil((options.epochs * data.size) / options.batchSize);
  const progress: Progress = { step: 0, totalSteps, loss: null, accuracy: null, ties: 0 };
  await context.policy.model.resetOptimizer();
  await context.checkpoint(0, progress, { pin: true });
  return progress;
}

async function validate(context: RecipeContext, validation: Evaluator | undefined, progress: Progress): Promise<void> {
  const { step } = progress;
  if (validation === undefined || progress.validation?.step === step) return;
  const { marks: _marks, ...result } = await evaluateNow(context, validation, step);
  progress.validation = { step, result };
}

async function preferenceStep(
  { context, options, references, reporter }: Stage,
  progress: Progress,
  clock: StepClock,
  { pairs, ties, cursor }: PreferenceBatch,
): Promise<void> {
  const startedMs = performance.now();
  const { model } = context.policy;
  const { microBatch, schedule } = options;
  const stepOptions = {
    maxTokensPerMicroBatch: microBatchTokens(microBatch, packedTokens(pairs.map(({ group }) => group))),
    activationCheckpointing: microBatch.activationCheckpointing,
    signal: context.signal,
  };
  const learningRate = options.learningRate * scheduleFactor(schedule, progress.step, clock.totalSteps);
  const groups = await references.score(pairs, ties, stepOptions);
  let loss = 0;
  let metrics: Record<string, number> = {};
  let update = { gradNorm: 0, applied: true };
  let tokens = 0;
  // Of nothing but ties there is no step: the weights would move by the optimizer's momentum alone.
  if (groups.length > 0) {
    ({
      loss,
      metrics,
      packedTokens: tokens,
    } = await model.forwardBackward(groups, [objectiveOf(options, groups)], stepOptions));
    update = await model.optimizerStep(optimizerOptions(options.optimizer, learningRate));
    progress.loss = loss;
    progress.accuracy = metrics['rewards/accuracies'] ?? null;
  }
  progress.step++;
  progress.cursor = cursor;
  progress.ties += ties.length;
  await reporter.report({
    step: progress.step,
    clock,
    startedMs,
    loss,
    reward: null,
    learningRate,
    update,
    tokens,
    metrics: { ...metrics, pairs: pairs.length, ties: ties.length, pairs_scored: references.numScored },
  });
}

/** Each group holds its pair: the chosen completion, then the rejected one. */
function objectiveOf({ loss, beta, labelSmoothing }: ResolvedOptions, groups: readonly unknown[]): Objective {
  const chosen = Int32Array.from(groups, (_group, i) => 2 * i);
  const pairs = { chosen, rejected: chosen.map((index) => index + 1) };
  return { kind: 'dpo', loss, beta, labelSmoothing, pairs };
}
