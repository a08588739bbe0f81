/**
 * JRM: joint discriminative and generative reward modelling. One backbone, two heads: a reward head at a learnable token
 * between prompt and rationale, and the language head on the rationale. L = (1 - alpha) L_rank + alpha L_LM, both in ONE
 * forward and backward of the same packed rows. To score, the language head and the rationale are left away.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { PairDataset, PairRow, Preference } from '../data/pairs.js';
import type { Cursor } from '../data/shuffle.js';
import type { Objective } from '../engine/options.js';
import { parseOptions } from '../engine/parse-options.js';
import type { RewardHead } from '../engine/reward-head.js';
import { GavelError } from '../errors.js';
import type { RecipeContext } from './context.js';
import { encodedPairBatches, type EncodedPair, type EncodedPairBatch } from './encoded-pairs.js';
import { evaluateScorer, type ScorerResult } from './evaluate-scorer.js';
import type { Recipe } from './job.js';
import { jointOptionsSchema, type JointOptions, type ResolvedJointOptions } from './joint-options.js';
import { microBatchTokens, optimizerOptions } from './optimizer-options.js';
import { scheduleFactor } from './schedules.js';
import { rewardHeadOf, scoredGroup } from './score-rows.js';
import type { StepClock } from './step-clock.js';
import { stepLoop } from './step-loop.js';
import { StepReporter } from './step-report.js';

export interface JointParts {
  /** Pairs of candidates; a candidate's completion is its rationale, trained by the language loss. */
  data: PairDataset;
  /** Scored every `evaluateEvery` steps and at the end. */
  validation?: PairDataset;
  options?: JointOptions;
}

export interface JointResult {
  steps: number;
  loss: number | null;
  validation: Omit<ScorerResult, 'scores'> | null;
}

interface Progress {
  step: number;
  totalSteps: number;
  cursor?: Cursor;
  loss: number | null;
}

/** Errors: 'invalid_argument' for a model without a reward head, 'bad_data' for pairs that lack what the labels ask for. */
export function joint(parts: JointParts): Recipe<JointResult> {
  const options = parseOptions(jointOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'joint',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runJoint(context, parts, options),
  };
}

async function runJoint(
  context: RecipeContext,
  parts: JointParts,
  options: ResolvedJointOptions,
): Promise<JointResult> {
  const { data, validation } = parts;
  const head = rewardHeadOf(context.policy.model);
  const planned = options.steps ?? Math.ceil((options.epochs * data.size) / options.batchSize);
  let progress = context.progress<Progress>();
  if (progress === undefined) {
    await context.policy.model.resetOptimizer();
    progress = { step: 0, totalSteps: planned, loss: null };
  }
  const state = progress;
  const reporter = new StepReporter(context);
  const source = encodedPairBatches(context.policy, data, {
    batchSize: Math.min(options.batchSize, data.size),
    seed: options.seed,
    signal: context.signal,
    ...(state.cursor === undefined ? {} : { cursor: state.cursor }),
  });
  try {
    await stepLoop(context, state, options.evaluateEvery, async (clock) => {
      const { value: batch } = await source.next();
      await jointStep(context, head, options, state, clock, reporter, batch!);
      const { step } = state;
      const isLast = step >= clock.totalSteps;
      if (validation !== undefined && options.evaluateEvery !== undefined && !isLast) {
        if (step % options.evaluateEvery === 0) await evaluateScorer(context, validation, step);
      }
      if (step % options.checkpointEvery === 0) await context.checkpoint(step, state);
      return 'continue';
    });
  } finally {
    await source.return();
  }
  if (validation === undefined) return { steps: state.step, loss: state.loss, validation: null };
  const { scores: _scores, ...result } = await evaluateScorer(context, validation, state.step);
  return { steps: state.step, loss: state.loss, validation: result };
}

/** One optimizer step: both candidates of every pair packed, both losses over the same rows. */
async function jointStep(
  context: RecipeContext,
  head: RewardHead,
  options: ResolvedJointOptions,
  progress: Progress,
  clock: StepClock,
  reporter: StepReporter,
  batch: EncodedPairBatch,
): Promise<void> {
  const { model } = context.policy;
  const startedMs = performance.now();
  const groups = packPairs(batch.encoded, head.tokenId);
  const stepTokens = groups.reduce(
    (sum, { promptTokens, completions }) => sum + promptTokens.length + (completions[0]?.tokens.length ?? 0),
    0,
  );
  const learningRate = options.learningRate * scheduleFactor(options.schedule, progress.step, clock.totalSteps);
  const result = await model.forwardBackward(groups, jointObjectives(batch.pairs, head, options), {
    maxTokensPerMicroBatch: microBatchTokens(options.microBatch, stepTokens),
    activationCheckpointing: options.microBatch.activationCheckpointing,
    signal: context.signal,
  });
  const update = await model.optimizerStep(optimizerOptions(options.optimizer, learningRate));
  progress.step++;
  progress.cursor = batch.cursor;
  progress.loss = result.loss;
  await reporter.report({
    step: progress.step,
    clock,
    startedMs,
    loss: result.loss,
    reward: null,
    learningRate,
    update,
    tokens: result.packedTokens,
    metrics: result.metrics,
  });
}

/** First and second candidate of each pair: the scores of pair i are 2 i and 2 i + 1. */
export function packPairs(pairs: readonly EncodedPair[], tokenId: number): NativeGroup[] {
  return pairs.flatMap(({ first, second }) => [scoredGroup(first, tokenId, true), scoredGroup(second, tokenId, true)]);
}

/** The two losses with their weights; one of weight 0 is not computed at all, and with `alpha` 1 no label is read. */
export function jointObjectives(
  pairs: readonly PairRow[],
  head: RewardHead,
  options: Pick<ResolvedJointOptions, 'alpha' | 'ranking' | 'labels'>,
): Objective[] {
  const { alpha, ranking, labels } = options;
  const language: Objective = { kind: 'nll', weight: alpha, normalization: 'tokens' };
  if (alpha === 1) return [language];
  const canTie = ranking.loss === 'bradley_terry_ties';
  const objective: Objective = {
    kind: 'ranking',
    weight: 1 - alpha,
    ...ranking,
    fusion: head.fusion,
    ...(ranking.loss === 'regression'
      ? { targets: targetsOf(pairs, head) }
      : { pairs: labels === 'overall' ? preferencesOf(pairs, canTie) : labelsOf(pairs, head, canTie) }),
  };
  return [objective, language];
}

const sign: Readonly<Record<Preference, number>> = { first: 1, second: -1, tie: 0 };
const noLabel = 2;

/** The preferred candidate of each pair is the chosen one; a tie keeps its order. */
function preferencesOf(
  pairs: readonly PairRow[],
  canTie: boolean,
): {
  chosen: Int32Array;
  rejected: Int32Array;
  ties: Uint8Array;
} {
  const tie = pairs.find(({ preference }) => preference === 'tie');
  if (tie !== undefined && !canTie) throw tied(tie, 'preference');
  const firstWins = pairs.map(({ preference }) => preference !== 'second');
  return {
    chosen: Int32Array.from(firstWins, (first, i) => 2 * i + (first ? 0 : 1)),
    rejected: Int32Array.from(firstWins, (first, i) => 2 * i + (first ? 1 : 0)),
    ties: Uint8Array.from(pairs, ({ preference }) => Number(preference === 'tie')),
  };
}

/** Per head the preference in its dimension; the overall one for a dimension called "overall". */
function labelsOf(
  pairs: readonly PairRow[],
  { names }: RewardHead,
  canTie: boolean,
): { chosen: Int32Array; rejected: Int32Array; labels: Int32Array } {
  const labels = pairs.flatMap((pair) => {
    const own = names.map((name) => pair.dimensions?.[name] ?? (name === 'overall' ? pair.preference : undefined));
    if (own.every((label) => label === undefined)) throw lacks(pair, `a preference in one of ${names.join(', ')}`);
    const tie = own.indexOf('tie');
    if (tie >= 0 && !canTie) throw tied(pair, names[tie]!);
    return own.map((label) => (label === undefined ? noLabel : sign[label]));
  });
  return {
    chosen: Int32Array.from(pairs, (_, i) => 2 * i),
    rejected: Int32Array.from(pairs, (_, i) => 2 * i + 1),
    labels: Int32Array.from(labels),
  };
}

/** Gold scores of both candidates by dimension; NaN where the data have none. */
function targetsOf(pairs: readonly PairRow[], { names }: RewardHead): Float32Array {
  return Float32Array.from(
    pairs.flatMap((pair) => {
      const { scores } = pair;
      if (scores === undefined) throw lacks(pair, '`scores` of both candidates');
      return [scores.first, scores.second].flatMap((own) => names.map((name) => own[name] ?? NaN));
    }),
  );
}

function tied({ id }: PairRow, name: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected a preference for first or second in \`${name}\` of pair "${id}" but received a tie. Leave the pair out, or ` +
      'choose the ranking loss `bradley_terry_ties`.',
    { fields: { id, name } },
  );
}

function lacks(pair: PairRow, what: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected ${what} in pair "${pair.id}" but received none. Add it, leave the pair out, or choose other labels.`,
    { fields: { id: pair.id } },
  );
}
