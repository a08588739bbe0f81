/**
 * Group relative policy optimization (Shao et al. 2024) and its relatives: groups of completions a prompt, rewards to
 * advantages within the group, clipped steps with a KL leash to the weights the stage began with. Log-probs stored while
 * sampling are the old ones of every update, so on-policy ratios are 1.
 */
import type { Dataset } from '../data/dataset.js';
import type { Cursor } from '../data/shuffle.js';
import { parseOptions } from '../engine/parse-options.js';
import { GavelError } from '../errors.js';
import type { RecipeContext } from './context.js';
import { evaluateNow, stoppingLike, type EvaluationResult, type Evaluator } from './evaluate.js';
import { passGate } from './gate.js';
import { groupAdvantages, sampledKl, type SampledKl } from './grpo-advantages.js';
import { rolloutMetrics } from './grpo-metrics.js';
import { grpoOptionsSchema, validationNeed, type GrpoOptions, type GrpoSettings } from './grpo-options.js';
import { nativeGroup, updateBatches, type UpdateBatch } from './grpo-pack.js';
import { drawRollout, keepRollout, rewardsOf, type Rollout } from './grpo-rollout.js';
import { updatePolicy } from './grpo-update.js';
import type { Recipe } from './job.js';
import { defaultJudge, type Judge } from './judge.js';
import { microBatchTokens } from './optimizer-options.js';
import { packedTokens } from './packed-tokens.js';
import { PromptStream } from './prompt-stream.js';
import { Reference } from './reference.js';
import { scheduleFactor } from './schedules.js';
import type { StepClock } from './step-clock.js';
import { stepLoop, type StepPlan } from './step-loop.js';
import { StepReporter } from './step-report.js';
import { checkRewards } from '../rewards/reward.js';

export { grpoOptionsSchema, type GrpoOptions } from './grpo-options.js';

export interface GrpoParts {
  data: Dataset;
  /** Rewards of your own stand here; they may be asynchronous and may have no opinion (null). */
  judge?: Judge;
  /** Decides whether training may start, and measures on the way. Needed by the gate and by `evaluateEvery`. */
  validation?: Evaluator;
  options?: GrpoOptions;
}

export interface GrpoResult {
  steps: number;
  /** Mean reward of the last rollout; null when no function had an opinion. */
  reward: number | null;
  /** Validation before the first step; null without one. */
  before: Omit<EvaluationResult, 'marks'> | null;
}

interface Progress extends StepPlan {
  cursor?: Cursor;
  reward: number | null;
  before: Omit<EvaluationResult, 'marks'> | null;
}

/** What every step of a stage works with. */
interface Stage {
  context: RecipeContext;
  options: GrpoSettings;
  judge: Judge;
  prompts: PromptStream;
  reporter: StepReporter;
  /** Present when there is a KL. */
  reference: Reference | undefined;
}

/**
 * The GRPO recipe. Errors: 'invalid_argument' for options, 'invalid_config' for rewards without or with equal names and for a missing validation, now;
 * while it runs 'gate_refused', 'bad_data' (a row without a solution), 'non_finite' (a reward or loss). What a reward
 * function throws ends the run unchanged; the weights are then those of the last whole step.
 */
export function grpo(parts: GrpoParts): Recipe<GrpoResult> {
  const options = parseOptions(grpoOptionsSchema, parts.options ?? {}, 'options');
  checkRewards(rewardsOf(parts.judge ?? defaultJudge, options));
  const need = parts.validation === undefined ? validationNeed(options) : undefined;
  if (need !== undefined)
    throw new GavelError('invalid_config', need, {
      fields: { name: 'validation' },
    });
  // What stops a completion that trains stops one that is measured.
  const validation = parts.validation && stoppingLike(parts.validation, options.stopStrings);
  return {
    kind: 'grpo',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runGrpo(context, { ...parts, ...(validation && { validation }) }, options),
  };
}

async function runGrpo(context: RecipeContext, parts: GrpoParts, options: GrpoSettings): Promise<GrpoResult> {
  const progress = context.progress<Progress>() ?? (await begin(context, parts, options));
  const reference = options.beta > 0 ? await Reference.open(context) : undefined;
  const { promptsPerStep: batchSize, seed } = options;
  const { policy, signal } = context;
  const prompts = new PromptStream(policy, parts.data, { batchSize, seed, cursor: progress.cursor, signal });
  const reporter = new StepReporter(context);
  const stage: Stage = { context, options, judge: parts.judge ?? defaultJudge, prompts, reporter, reference };
  try {
    await stepLoop(context, progress, options.evaluateEvery, async (clock) => {
      await rolloutStep(stage, progress, clock);
      const { step } = progress;
      if (parts.validation !== undefined && options.evaluateEvery !== undefined && step % options.evaluateEvery === 0) {
        await evaluateNow(context, parts.validation, step);
      }
      if (step % options.checkpointEvery === 0) await context.checkpoint(step, progress);
      return 'continue';
    });
  } finally {
    await prompts.close();
    await reference?.[Symbol.asyncDispose]();
  }
  return { steps: progress.step, reward: progress.reward, before: progress.before };
}

/** The gate, a new optimizer, and a checkpoint that keeps the reference weights for a resumed run. */
async function begin(context: RecipeContext, parts: GrpoParts, options: GrpoSettings): Promise<Progress> {
  const before = parts.validation === undefined ? null : await measureAndPass(context, parts.validation, options);
  await context.policy.model.resetOptimizer();
  const totalSteps = options.steps ?? Math.ceil((options.epochs * parts.data.size) / options.promptsPerStep);
  const progress: Progress = { step: 0, totalSteps, reward: null, before };
  await context.checkpoint(0, progress, { pin: true });
  return progress;
}

async function measureAndPass(
  context: RecipeContext,
  validation: Evaluator,
  { gate }: GrpoSettings,
): Promise<Omit<EvaluationResult, 'marks'>> {
  const { marks, ...before } = await evaluateNow(context, validation);
  const judged = Object.values(marks);
  passGate(
    judged.reduce((sum, mark) => sum + mark, 0),
    judged.length,
    gate,
  );
  return before;
}

/** One step of the algorithm: sample and mark, advantages, reference, updates. */
async function rolloutStep(stage: Stage, progress: Progress, clock: StepClock): Promise<void> {
  const { context, options, judge, prompts, reporter } = stage;
  const startedMs = performance.now();
  const rollout = await drawRollout(context, prompts, judge, options, progress.step);
  const sampleSeconds = (performance.now() - startedMs) / 1000;

  const kl = options.klIn === 'reward' ? await rewardKl(stage, rollout) : undefined;
  const { advantages } = groupAdvantages(rollout.groups, rollout, options, kl);
  await keepRollout(context, options, rollout, advantages, progress.step);
  const batches = updateBatches(rollout, advantages, options);
  if (options.klIn === 'loss') await addReference(stage, batches);
  const learningRate = options.learningRate * scheduleFactor(options.schedule, progress.step, clock.totalSteps);
  const update = await updatePolicy(context.policy.model, batches, options, learningRate, context.signal);

  const metrics = rolloutMetrics(rollout, judge.hasFormat);
  const drawnTokens = rollout.drawn.flatMap(({ completions }) => completions.map(({ tokens }) => tokens.length));
  progress.step++;
  progress.cursor = rollout.drawn.at(-1)!.prompt.cursor;
  progress.reward = metrics['reward'] ?? null;
  await reporter.report({
    step: progress.step,
    clock,
    startedMs,
    loss: update.loss,
    reward: progress.reward,
    learningRate,
    update,
    tokens: drawnTokens.reduce((sum, length) => sum + length, update.tokens),
    metrics: {
      ...update.metrics,
      ...update.sampling,
      ...metrics,
      ...(kl === undefined ? {} : { kl: kl.mean }),
      updates: update.count,
      sample_time: sampleSeconds,
    },
  });
}

/** The KL of each completion of the step, which its reward will be charged with. */
async function rewardKl({ context, options, reference }: Stage, { groups }: Rollout): Promise<SampledKl> {
  const scored = await reference!.score(
    groups.map((group) => nativeGroup(group, options)),
    scoringOptions(context, options, packedTokens(groups.map((group) => nativeGroup(group, options)))),
  );
  return sampledKl(scored, options);
}

/** Reference log-probs for the KL in the loss, of what is trained alone. */
async function addReference({ context, options, reference }: Stage, batches: UpdateBatch[]): Promise<void> {
  if (reference === undefined) return;
  const groups = batches.flatMap((batch) => batch.groups);
  const scored = await reference.score(groups, scoringOptions(context, options, packedTokens(groups)));
  for (const batch of batches) batch.groups = scored.splice(0, batch.groups.length);
}

function scoringOptions(
  { signal }: RecipeContext,
  { microBatch }: GrpoSettings,
  tokens: number,
): Parameters<Reference['score']>[1] {
  const { activationCheckpointing } = microBatch;
  return { maxTokensPerMicroBatch: microBatchTokens(microBatch, tokens), activationCheckpointing, signal };
}
