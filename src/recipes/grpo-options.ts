/** Settings of the `grpo` recipe: rollout, rewards to advantages, loss, pace. TRL's names of them are in docs/training.md. */
import { z } from 'zod';
import { drawShape } from './draw-options.js';
import { gateSchema } from './gate.js';
import { microBatchSchema, optimizerSchema } from './optimizer-options.js';
import { scheduleSchema } from './schedules.js';

const count = z.number().int().min(1);
const factor = z.number().positive();

const rolloutShape = {
  groupSize: z
    .number()
    .int()
    .min(2, { error: 'Expected an integer >= 2. A group of one has no relative advantage.' })
    .default(8)
    .describe('Completions of one prompt (G).'),
  promptsPerStep: count.default(16).describe('Prompts of one rollout.'),
  ...drawShape,
  maxCompletionLength: count.default(2048).describe('Longest completion, in tokens.'),
  dynamicSamplingRounds: z
    .number()
    .int()
    .min(0)
    .default(0)
    .describe('Times that groups with equal rewards are replaced by groups of further prompts (DAPO); 0 is off.'),
};

const rewardShape = {
  scaleRewards: z
    .enum(['group', 'batch', 'none'])
    .optional()
    .describe('Standard deviation that advantages are divided by. Default: group.'),
  baseline: z
    .enum(['group_mean', 'leave_one_out'])
    .optional()
    .describe('What is subtracted from a reward; leave_one_out is the mean of the others (RLOO). Default: group_mean.'),
  aggregation: z
    .enum(['sum_then_normalize', 'normalize_then_sum'])
    .default('sum_then_normalize')
    .describe('Several rewards: their weighted sum is normalised, or the weighted sum of their z-scores (GDPO).'),
  overlongPenalty: z
    .strictObject({
      buffer: count.describe('Tokens before maxCompletionLength over which the reward falls from 0 to -1.'),
      weight: z.number().default(1).describe('Weight among the rewards.'),
    })
    .optional()
    .describe('A further reward `overlong`: the soft penalty of long completions (DAPO).'),
  maskTruncatedCompletions: z
    .boolean()
    .default(false)
    .describe('Completions that reached maxCompletionLength train nothing; their rewards still count.'),
  dropZeroVarianceGroups: z
    .boolean()
    .optional()
    .describe(
      'Leave out groups with equal rewards; they still count in denominators. Default: only where nothing but the ' +
        'advantage trains (no KL, entropy bonus or entropy filter).',
    ),
};

const lossShape = {
  lossType: z
    .enum(['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo'])
    .default('grpo')
    .describe('Form and normalisation of the loss.'),
  importanceSampling: z
    .enum(['token', 'sequence'])
    .default('token')
    .describe('Ratio by token, or of the sequence (GSPO).'),
  epsilon: z.number().positive().default(0.2).describe('Ratios are clipped to 1 - epsilon ...'),
  epsilonHigh: z
    .number()
    .positive()
    .optional()
    .describe('... and 1 + epsilonHigh. Default: epsilon; cispo needs its own, the cap of the ratio itself.'),
  delta: z.number().min(0).default(0).describe('Upper bound of the ratio before clipping; 0 is off.'),
  dualClip: z
    .number()
    .min(0)
    .refine((clip) => clip === 0 || clip > 1, { error: 'Expected 0 (off) or a number above 1.' })
    .default(0)
    .describe('Where A < 0, the loss of a token is at most dualClip * |A|; 0 is off.'),
  beta: z.number().min(0).default(0.04).describe('Weight of the KL to the reference; 0 loads no reference.'),
  klIn: z.enum(['loss', 'reward']).default('loss').describe('Where the KL stands: in the loss, or in each reward.'),
  klEstimator: z
    .enum(['k1', 'k2', 'k3'])
    .default('k3')
    .describe('Of the KL, with d = reference - policy log-prob: k1 -d, k2 d^2 / 2, k3 exp(d) - d - 1.'),
  klBiasCorrection: z.boolean().default(false).describe('Multiply the KL in the loss by the ratio.'),
  klClamp: z.number().min(0).default(10).describe('Clamp of the log-prob difference in the KL; 0 is off.'),
  entropyCoef: z.number().min(0).default(0).describe('Bonus on the mean entropy, in nats; 0 is off.'),
  topEntropyQuantile: z
    .number()
    .gt(0)
    .max(1)
    .default(1)
    .describe('Train only this share of the tokens, those of the highest entropy; 1 is all.'),
  offPolicyThreshold: z
    .number()
    .min(0)
    .optional()
    .describe('Leave out completions of A < 0 whose log-probs fell by more than this a token since sampling.'),
  sapoTemperaturePositive: factor.default(1).describe('Of sapo, where A > 0.'),
  sapoTemperatureNegative: factor.default(1.05).describe('Of sapo, elsewhere.'),
  vespoKPositive: factor.default(2).describe('Of vespo, where A >= 0: exponent of the weight.'),
  vespoLambdaPositive: factor.default(3).describe('Of vespo, where A >= 0: its decay.'),
  vespoKNegative: factor.default(3).describe('Of vespo, where A < 0: exponent of the weight.'),
  vespoLambdaNegative: factor.default(2).describe('Of vespo, where A < 0: its decay.'),
};

const paceShape = {
  epochs: z.number().positive().default(3).describe('Passes over the prompts; `steps` wins.'),
  steps: count.optional().describe('Rollouts.'),
  updatesPerRollout: count.default(1).describe('Passes over one rollout; the old log-probs stay those of sampling.'),
  updateBatches: count
    .default(1)
    .describe('Optimizer steps of one pass, each on its share of the prompts; promptsPerStep is a multiple of it.'),
  learningRate: z.number().positive().default(1e-6).describe('Peak learning rate.'),
  schedule: scheduleSchema.prefault({ kind: 'constant' }),
  optimizer: optimizerSchema.prefault({}),
  microBatch: microBatchSchema.prefault({}),
  gate: gateSchema.prefault({}),
  evaluateEvery: count.optional().describe('Rollouts between validations.'),
  checkpointEvery: count.default(20).describe('Rollouts between checkpoints.'),
  seed: z.number().int().min(0).default(0).describe('Key of sampling and of the order of prompts.'),
  budgetSeconds: z.number().positive().optional().describe('Wall-clock bound; the plan is shortened to fit it.'),
};

const clips = (lossType: string): boolean => !['cispo', 'sapo', 'vespo'].includes(lossType);

export const grpoOptionsSchema = z
  .strictObject({ ...rolloutShape, ...rewardShape, ...lossShape, ...paceShape })
  .refine(({ lossType, epsilonHigh }) => lossType !== 'cispo' || epsilonHigh !== undefined, {
    path: ['epsilonHigh'],
    error: 'cispo needs its own, the cap of the ratio, for example 5: with 0.2 every gradient would be scaled by 0.2.',
  })
  .refine(({ lossType, delta }) => delta === 0 || clips(lossType), {
    path: ['delta'],
    error: 'It bounds the ratio of losses that clip; cispo, sapo and vespo do not. Leave it out.',
  })
  .refine(({ lossType, dualClip }) => dualClip === 0 || clips(lossType), {
    path: ['dualClip'],
    error: 'It bounds losses that clip; cispo, sapo and vespo do not. Leave it out.',
  })
  .refine(({ klIn, beta }) => klIn === 'loss' || beta > 0, {
    path: ['beta'],
    error: 'A KL in the reward needs a weight above 0.',
  })
  .refine(({ klIn, klBiasCorrection }) => klIn === 'loss' || !klBiasCorrection, {
    path: ['klBiasCorrection'],
    error: 'It is for the KL in the loss; in the reward the ratio is 1. Leave it out.',
  })
  .refine(({ klIn, aggregation }) => klIn === 'loss' || aggregation === 'sum_then_normalize', {
    path: ['klIn'],
    error: 'normalize_then_sum would forget the size of a KL in the reward. Use klIn: loss, or sum_then_normalize.',
  })
  .refine(
    ({ aggregation, scaleRewards, baseline }) =>
      aggregation === 'sum_then_normalize' || (scaleRewards ?? baseline) === undefined,
    { path: ['aggregation'], error: 'normalize_then_sum sets its own scale and baseline. Leave those two out.' },
  )
  .refine(({ overlongPenalty, maxCompletionLength: most }) => (overlongPenalty?.buffer ?? 0) <= most, {
    path: ['overlongPenalty', 'buffer'],
    error: 'Expected at most maxCompletionLength.',
  })
  .refine(({ promptsPerStep, updateBatches }) => promptsPerStep % updateBatches === 0, {
    path: ['updateBatches'],
    error: 'Expected a divisor of promptsPerStep: every optimizer step gets as many prompts.',
  })
  .describe('Group relative policy optimization.');

export type GrpoOptions = z.input<typeof grpoOptionsSchema>;
export type GrpoSettings = z.output<typeof grpoOptionsSchema>;

/** What a stage without validation would lack; undefined where it needs none. */
export function validationNeed({ gate, evaluateEvery }: GrpoSettings): string | undefined {
  if (gate.enabled)
    return 'Expected rows to validate on: the gate measures the policy before the first step. `gate.enabled: false` does without, for a test of the plumbing.';
  if (evaluateEvery !== undefined)
    return 'Expected rows to validate on: `evaluateEvery` measures on the way. Leave it out to train without.';
  return undefined;
}

/** Whether groups with equal rewards are left out of the pack. */
export function dropsZeroVariance(options: GrpoSettings): boolean {
  const { beta, entropyCoef, topEntropyQuantile } = options;
  return options.dropZeroVarianceGroups ?? (beta === 0 && entropyCoef === 0 && topEntropyQuantile === 1);
}
