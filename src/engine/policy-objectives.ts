/** Options of the policy and preference objectives of forwardBackward(); the native side has the formulas and papers. */
import { z } from 'zod';

const lossTypes = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'cispo', 'sapo', 'luspo', 'vespo'] as const;
const clipping: readonly string[] = ['grpo', 'bnpo', 'dr_grpo', 'dapo', 'luspo'];

const weight = z.number().default(1).describe('Factor of this objective; 0 leaves it out.');

/** How the loss of the GRPO family is made of ratios, the KL and the filters; defaults are TRL's. */
export const grpoLossShape = {
  lossType: z.enum(lossTypes).default('dapo').describe('Form and normalisation of the loss.'),
  importanceSampling: z
    .enum(['token', 'sequence'])
    .default('token')
    .describe('Ratio by token, or of the sequence (GSPO).'),
  epsilonLow: z.number().min(0).default(0.2).describe('Ratios are clipped to 1 - epsilonLow ...'),
  epsilonHigh: z
    .number()
    .min(0)
    .optional()
    .describe('... and 1 + epsilonHigh. Default: epsilonLow; cispo needs its own, a raw cap.'),
  delta: z.number().min(0).default(0).describe('Upper bound of the ratio before clipping; 0 is off.'),
  dualClip: z
    .number()
    .min(0)
    .default(0)
    .refine((bound) => bound === 0 || bound > 1, { error: 'Expected 0, which is off, or a number > 1' })
    .describe('Where the advantage A is negative the loss is at most dualClip |A| (dual-clip PPO); 0 is off.'),
  beta: z.number().min(0).default(0).describe('Weight of the KL to the reference; needs referenceLogprobs when not 0.'),
  klEstimator: z
    .enum(['k1', 'k2', 'k3'])
    .default('k3')
    .describe('Of the KL, d = reference - logprob: k1 is -d, k2 d^2 / 2, k3 exp(d) - d - 1.'),
  klBiasCorrection: z.boolean().default(true).describe('Multiply the KL by the ratio.'),
  klClamp: z.number().min(0).default(10).describe('Clamp of the log-prob difference in the KL; 0 is off.'),
  maxCompletionLength: z.number().int().min(0).default(0).describe('Longest completion: the denominator of dr_grpo.'),
  entropyCoef: z
    .number()
    .default(0)
    .describe('Weight of the mean entropy, in nats, which is subtracted from the loss.'),
  topEntropyQuantile: z
    .number()
    .gt(0)
    .max(1)
    .default(1)
    .describe('Share of the active tokens of the whole step that is trained, those of highest entropy; 1 is all.'),
  entropyThreshold: z
    .number()
    .optional()
    .describe('Tokens of lower entropy, in nats, are not trained: for a step of several calls. Default: off.'),
  offPolicyThreshold: z
    .number()
    .min(0)
    .optional()
    .describe(
      'Sequences of negative advantage whose mean (sampling - logprob) is above it are left out. Default: off.',
    ),
  sapoTemperaturePositive: z.number().positive().default(1).describe('sapo: temperature of positive advantages.'),
  sapoTemperatureNegative: z.number().positive().default(1.05).describe('sapo: temperature of negative advantages.'),
  vespoKPositive: z.number().min(0).default(2).describe('vespo: k of positive advantages.'),
  vespoLambdaPositive: z.number().min(0).default(3).describe('vespo: lambda of positive advantages.'),
  vespoKNegative: z.number().min(0).default(3).describe('vespo: k of negative advantages.'),
  vespoLambdaNegative: z.number().min(0).default(2).describe('vespo: lambda of negative advantages.'),
};

export const grpoObjectiveSchema = z
  .strictObject({ kind: z.literal('grpo'), weight, ...grpoLossShape })
  .refine(({ lossType, epsilonHigh }) => lossType !== 'cispo' || epsilonHigh !== undefined, {
    path: ['epsilonHigh'],
    error: 'cispo needs an explicit raw cap, for example 5: with 0.2 every gradient would be scaled by 0.2',
  })
  .refine(({ lossType, maxCompletionLength }) => lossType !== 'dr_grpo' || maxCompletionLength > 0, {
    path: ['maxCompletionLength'],
    error: 'dr_grpo divides by it: give the longest completion that was allowed',
  })
  .refine(({ lossType, dualClip }) => dualClip === 0 || clipping.includes(lossType), {
    path: ['dualClip'],
    error: 'only loss types that clip the ratio have it: grpo, bnpo, dr_grpo, dapo and luspo',
  })
  .refine(({ topEntropyQuantile, entropyThreshold }) => topEntropyQuantile === 1 || entropyThreshold === undefined, {
    path: ['entropyThreshold'],
    error: 'the threshold is either given or found with `topEntropyQuantile`',
  })
  .transform(({ epsilonHigh, entropyThreshold, offPolicyThreshold, ...rest }) => ({
    ...rest,
    epsilonHigh: epsilonHigh ?? rest.epsilonLow,
    ...(entropyThreshold === undefined ? {} : { entropyThreshold }),
    ...(offPolicyThreshold === undefined ? {} : { offPolicyThreshold }),
  }))
  .describe('Group relative policy optimization.');

const completions = z.custom<Int32Array>((value) => value instanceof Int32Array, {
  error: 'Expected an Int32Array of completions of the call',
});

export const dpoObjectiveSchema = z
  .strictObject({
    kind: z.literal('dpo'),
    weight,
    loss: z.enum(['sigmoid', 'ipo']).default('sigmoid').describe('DPO, or IPO on mean log-ratios a token.'),
    beta: z.number().positive().default(0.1).describe('Strength of the leash to the reference.'),
    labelSmoothing: z
      .number()
      .min(0)
      .lt(0.5)
      .default(0)
      .describe("Share of preferences that are the wrong way round (conservative DPO); 'sigmoid' alone."),
    pairs: z
      .strictObject({
        chosen: completions.describe('Int32Array: the better completion of each pair.'),
        rejected: completions.describe('Int32Array: the worse one.'),
      })
      .describe('Completions of the call, counted over its groups in order; both need referenceLogprobs.'),
    stepPairs: z.number().positive().optional().describe('Pairs of the whole optimizer step. Default: those given.'),
  })
  .refine(({ loss, labelSmoothing }) => loss === 'sigmoid' || labelSmoothing === 0, {
    path: ['labelSmoothing'],
    error: "IPO has no label smoothing: leave it 0, or use the loss 'sigmoid'",
  })
  .transform(({ stepPairs, ...rest }) => ({ ...rest, ...(stepPairs === undefined ? {} : { stepPairs }) }))
  .describe('Direct preference optimization.');
