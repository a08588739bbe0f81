/**
 * Group relative policy optimization: G completions a prompt, rewards to advantages within the group, a clipped step with a
 * KL leash to the weights the stage began with. Log-probs stored while sampling are the old ones, so on-policy ratios are 1.
 */
import { z } from 'zod';
import type { NativeGroup, NativeGrpoObjective, NativeStepResult } from '../binding/contract.js';
import type { Dataset } from '../data/dataset.js';
import type { Cursor } from '../data/shuffle.js';
import { parseOptions } from '../engine/parse-options.js';
import { computeAdvantages, type Advantages } from '../rewards/advantages.js';
import type { RewardTable } from '../rewards/reward.js';
import type { RecipeContext } from './context.js';
import { encodedBatches, type EncodedBatch } from './encoded-batches.js';
import { evaluateNow, type EvaluationResult, type Evaluator } from './evaluate.js';
import { gateSchema, passGate } from './gate.js';
import { rolloutMetrics } from './grpo-metrics.js';
import type { Recipe } from './job.js';
import { defaultJudge, rewardTable, verdictOf, type Judge } from './judge.js';
import { microBatchSchema, microBatchTokens, optimizerOptions, optimizerSchema } from './optimizer-options.js';
import type { Model } from '../engine/model.js';
import type { DrawnCompletion } from './policy.js';
import { scheduleFactor, scheduleSchema } from './schedules.js';
import { seededWord } from './seeded.js';
import { StepClock } from './step-clock.js';
import { StepReporter } from './step-report.js';

export const grpoOptionsSchema = z
  .strictObject({
    groupSize: z
      .number()
      .int()
      .min(2, { error: 'Expected an integer >= 2. A group of one has no relative advantage.' })
      .default(8)
      .describe('Completions of one prompt (G).'),
    promptsPerStep: z.number().int().min(1).default(16).describe('Prompts of one rollout.'),
    epochs: z.number().positive().default(3).describe('Passes over the prompts; `steps` wins.'),
    steps: z.number().int().min(1).optional().describe('Rollouts.'),
    updatesPerRollout: z.number().int().min(1).default(1).describe('Optimizer steps on one rollout.'),
    learningRate: z.number().positive().default(1e-6).describe('Peak learning rate.'),
    schedule: scheduleSchema.prefault({ kind: 'constant' }),
    optimizer: optimizerSchema.prefault({}),
    microBatch: microBatchSchema.prefault({}),
    temperature: z
      .number()
      .positive()
      .default(1)
      .describe('Sampling temperature; logits are divided by it everywhere.'),
    topK: z.number().int().min(1).optional().describe('Draw among the k likeliest tokens.'),
    topP: z.number().gt(0).max(1).optional().describe('Draw among the likeliest tokens of this mass.'),
    minP: z.number().min(0).max(1).optional().describe('Draw among tokens of at least this share of the likeliest.'),
    maxCompletionLength: z.number().int().min(1).default(2048).describe('Longest completion, in tokens.'),
    lossType: z.enum(['grpo', 'bnpo', 'dr_grpo', 'dapo']).default('grpo').describe('Normalisation of the loss.'),
    importanceSampling: z
      .enum(['token', 'sequence'])
      .default('token')
      .describe('Ratio by token, or of the sequence (GSPO).'),
    epsilon: z.number().positive().default(0.2).describe('Ratios are clipped to 1 - epsilon ...'),
    epsilonHigh: z.number().positive().optional().describe('... and 1 + epsilonHigh. Default: epsilon.'),
    delta: z.number().min(0).default(0).describe('Upper bound of the ratio before clipping; 0 is off.'),
    beta: z.number().min(0).default(0.04).describe('Weight of the KL to the reference; 0 loads no reference.'),
    klBiasCorrection: z.boolean().default(false).describe('Multiply the KL by the ratio.'),
    klClamp: z.number().min(0).default(10).describe('Clamp of the log-prob difference in the KL; 0 is off.'),
    scaleRewards: z.enum(['group', 'batch', 'none']).default('group').describe('What advantages are divided by.'),
    dropZeroVarianceGroups: z
      .boolean()
      .optional()
      .describe(
        'Leave out groups with equal rewards; they still count in denominators. Default: only where beta is 0, since they carry KL.',
      ),
    gate: gateSchema.prefault({}),
    evaluateEvery: z.number().int().min(1).optional().describe('Rollouts between validations.'),
    checkpointEvery: z.number().int().min(1).default(20).describe('Rollouts between checkpoints.'),
    seed: z.number().int().min(0).default(0).describe('Key of sampling and of the order of prompts.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound; the plan is shortened to fit it.'),
  })
  .describe('Group relative policy optimization.');

export type GrpoOptions = z.input<typeof grpoOptionsSchema>;
type ResolvedOptions = z.output<typeof grpoOptionsSchema>;

export interface GrpoParts {
  data: Dataset;
  judge?: Judge;
  /** Decides whether training may start, and measures on the way. */
  validation: Evaluator;
  options?: GrpoOptions;
}

export interface GrpoResult {
  steps: number;
  reward: number | null;
  /** Validation before the first step. */
  before: Omit<EvaluationResult, 'marks'>;
}

interface Progress {
  step: number;
  totalSteps: number;
  cursor?: Cursor;
  reward: number | null;
  before: Omit<EvaluationResult, 'marks'>;
}

export function grpo(parts: GrpoParts): Recipe<GrpoResult> {
  const options = parseOptions(grpoOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'grpo',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runGrpo(context, parts, options),
  };
}

async function runGrpo(context: RecipeContext, parts: GrpoParts, options: ResolvedOptions): Promise<GrpoResult> {
  const progress = context.progress<Progress>() ?? (await begin(context, parts, options));
  // The weights the stage began with, whether it begins now or is resumed.
  const { model } = context.policy;
  // An adapter switched off is its own reference; a full fine-tune needs a second model.
  const owned =
    options.beta > 0 && model.adapter === undefined ? await model.freeze(context.stageStartModel()) : undefined;
  try {
    await trainUntilDone(context, parts, options, progress, options.beta > 0 ? (owned ?? model) : undefined);
  } finally {
    await owned?.dispose();
  }
  return { steps: progress.step, reward: progress.reward, before: progress.before };
}

/** The gate, a new optimizer, and a checkpoint that keeps the reference weights for a resumed run. */
async function begin(context: RecipeContext, parts: GrpoParts, options: ResolvedOptions): Promise<Progress> {
  const { marks, ...before } = await evaluateNow(context, parts.validation);
  const judged = Object.values(marks);
  passGate(
    judged.reduce((sum, mark) => sum + mark, 0),
    judged.length,
    options.gate,
  );
  await context.policy.model.resetOptimizer();
  const totalSteps = options.steps ?? Math.ceil((options.epochs * parts.data.size) / options.promptsPerStep);
  const progress: Progress = {
    step: 0,
    totalSteps,
    reward: null,
    before,
  };
  await context.checkpoint(0, progress, { pin: true });
  return progress;
}

async function trainUntilDone(
  context: RecipeContext,
  parts: GrpoParts,
  options: ResolvedOptions,
  progress: Progress,
  reference: Model | undefined,
): Promise<void> {
  const { signal } = context;
  const reporter = new StepReporter(context);
  const clock = new StepClock(progress.totalSteps, options.evaluateEvery);
  if (progress.step >= clock.totalSteps) return;
  const source = encodedBatches(context.policy, parts.data, {
    batchSize: Math.min(options.promptsPerStep, parts.data.size),
    seed: options.seed,
    lastBatch: 'drop',
    signal,
    ...(progress.cursor === undefined ? {} : { cursor: progress.cursor }),
  });
  for await (const batch of source) {
    const startedMs = performance.now();
    await rolloutStep(context, parts, options, progress, clock, reporter, batch, reference);
    const { step } = progress;
    if (options.evaluateEvery !== undefined && step % options.evaluateEvery === 0) {
      await evaluateNow(context, parts.validation, step);
    }
    if (step % options.checkpointEvery === 0) await context.checkpoint(step, progress);
    await context.leaveIfStopped(step, () => progress);
    if (clock.record((performance.now() - startedMs) / 1000, step, context.secondsLeft)) {
      context.note(`The plan was shortened to ${clock.totalSteps} steps to fit its time budget.`, {
        steps: clock.totalSteps,
      });
    }
    progress.totalSteps = clock.totalSteps;
    if (step >= clock.totalSteps || context.secondsLeft < clock.stepSeconds) break;
  }
}

/** One rollout: sample, mark, advantages, reference log-probs, then the updates. */
async function rolloutStep(
  context: RecipeContext,
  parts: GrpoParts,
  options: ResolvedOptions,
  progress: Progress,
  clock: StepClock,
  reporter: StepReporter,
  batch: EncodedBatch,
  reference: Model | undefined,
): Promise<void> {
  const { judge = defaultJudge } = parts;
  const { model } = context.policy;
  const { signal } = context;
  const startedMs = performance.now();
  const drawn = await sampleGroups(context, options, batch, progress.step);
  const table = await rewardTable(judge, batch.rows, drawn);
  const advantages = computeAdvantages(table.values, {
    groupSize: options.groupSize,
    weights: table.weights,
    scaleRewards: options.scaleRewards,
  });
  keepSamples(context, judge, options, batch, drawn, table, advantages, progress.step);
  const groups = packGroups(options, batch, drawn, advantages);
  const sampleSeconds = (performance.now() - startedMs) / 1000;
  const packed = groups.reduce((sum, group) => sum + tokensOf(group), 0);
  const stepOptions = {
    maxTokensPerMicroBatch: microBatchTokens(options.microBatch, packed),
    activationCheckpointing: options.microBatch.activationCheckpointing,
    // Dropped groups count: the gradient must not depend on how many there are.
    stepCompletions: drawn.length,
    stepTokens: drawn.reduce((sum, { tokens }) => sum + tokens.length, 0),
    signal,
  };
  if (reference !== undefined && groups.length > 0) await fillReference(reference, groups, stepOptions);
  const learningRate = options.learningRate * scheduleFactor(options.schedule, progress.step, clock.totalSteps);
  let first: NativeStepResult | undefined;
  let tokens = drawn.reduce((sum, completion) => sum + completion.tokens.length, 0);
  let update = { gradNorm: 0, applied: true, step: progress.step };
  for (let u = 0; u < options.updatesPerRollout && groups.length > 0; u++) {
    const result = await model.forwardBackward(groups, [objectiveOf(options)], stepOptions);
    update = await model.optimizerStep(optimizerOptions(options.optimizer, learningRate));
    first ??= result;
    tokens += result.packedTokens;
  }
  progress.step++;
  progress.cursor = batch.cursor;
  progress.reward = meanOf(advantages.rewards);
  await reporter.report({
    step: progress.step,
    clock,
    startedMs,
    loss: first?.loss ?? 0,
    reward: progress.reward,
    learningRate,
    update,
    tokens,
    metrics: {
      ...first?.metrics,
      ...rolloutMetrics({ drawn, table, advantages, groups, trained: first, hasFormat: judge.hasFormat }),
      sample_time: sampleSeconds,
    },
  });
}

async function sampleGroups(
  context: RecipeContext,
  options: ResolvedOptions,
  batch: EncodedBatch,
  step: number,
): Promise<DrawnCompletion[]> {
  const { groupSize: count, temperature, topK, topP, minP, maxCompletionLength: maxNewTokens } = options;
  const drawn: DrawnCompletion[] = [];
  // A prompt that comes again in a later epoch must not see the same random numbers.
  const seed = seededWord(options.seed, step);
  const draw = { count, seed, temperature, topK, topP, minP, maxNewTokens, signal: context.signal };
  await context.policy.draw(batch.encoded, draw, (completion) => drawn.push(completion));
  return drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
}

/** The rollout joins the marked pool, under the name of the step that drew it. */
function keepSamples(
  context: RecipeContext,
  judge: Judge,
  options: ResolvedOptions,
  batch: EncodedBatch,
  drawn: readonly DrawnCompletion[],
  table: RewardTable,
  { advantages }: Advantages,
  step: number,
): void {
  for (const row of batch.rows) context.run?.items.add(row);
  for (const [i, { item, sample, text, tokens, finishReason }] of drawn.entries()) {
    const row = batch.rows[item]!;
    context.run?.samples.add({
      item: row.id,
      checkpoint: `${context.stage}@${step}`,
      sample,
      stage: context.stage,
      step,
      seed: options.seed,
      temperature: options.temperature,
      recency: step,
      text,
      numTokens: tokens.length,
      finishReason,
      rewards: Object.fromEntries(table.names.map((name, k) => [name, table.values[i]![k] ?? null])),
      advantage: advantages[i]!,
      ...verdictOf(judge, row, text),
    });
  }
}

/** Groups as the engine packs them; the prompt and its pictures stand once. */
function packGroups(
  options: ResolvedOptions,
  batch: EncodedBatch,
  drawn: readonly DrawnCompletion[],
  { advantages, groupStds }: Advantages,
): NativeGroup[] {
  const { groupSize, temperature, beta } = options;
  const drops = options.dropZeroVarianceGroups ?? beta === 0;
  return batch.encoded.flatMap((row, g) => {
    if (drops && !(groupStds[g]! > 1e-8)) return [];
    const completions = drawn.slice(g * groupSize, (g + 1) * groupSize).map(({ tokens, logprobs }, i) => ({
      tokens,
      temperature,
      advantage: advantages[g * groupSize + i]!,
      oldLogprobs: logprobs,
    }));
    return [{ promptTokens: row.promptTokens, images: row.images, completions }];
  });
}

async function fillReference(
  reference: Model,
  groups: NativeGroup[],
  options: Parameters<Model['logprobs']>[1],
): Promise<void> {
  const { logprobs } = await reference.logprobs(groups, { ...options, adapter: 'off' });
  let at = 0;
  for (const [g, group] of groups.entries()) {
    const completions = group.completions.map((completion) => {
      const referenceLogprobs = logprobs.subarray(at, (at += completion.tokens.length));
      return { ...completion, referenceLogprobs };
    });
    groups[g] = { ...group, completions };
  }
}

function objectiveOf(options: ResolvedOptions): NativeGrpoObjective {
  const { lossType, importanceSampling, epsilon, epsilonHigh, delta, beta, klBiasCorrection, klClamp } = options;
  return {
    kind: 'grpo',
    weight: 1,
    lossType,
    importanceSampling,
    epsilonLow: epsilon,
    epsilonHigh: epsilonHigh ?? epsilon,
    delta,
    beta,
    klBiasCorrection,
    klClamp,
    maxCompletionLength: options.maxCompletionLength,
  };
}

const tokensOf = ({ promptTokens, completions }: NativeGroup): number =>
  completions.reduce((sum, { tokens }) => sum + tokens.length, promptTokens.length);

function meanOf(values: Float64Array): number | null {
  const present = values.filter((value) => !Number.isNaN(value));
  return present.length === 0 ? null : present.reduce((sum, value) => sum + value, 0) / present.length;
}
