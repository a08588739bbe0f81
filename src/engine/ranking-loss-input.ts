/** What `rankingLoss` of gavel-rl/kernels takes: scores in double, and pairs and options as the ranking objective has them. */
import { z } from 'zod';
import type { NativeRankingLossInput } from '../binding/contract-kernels.js';
import {
  faultsOf,
  headFusion,
  headWeights,
  pairMargins,
  rankingLoss,
  rankingLossShape,
  rankingPairShape,
  realOrGap,
  stepCount,
} from './ranking-objective.js';

const floats = z.custom<Float32Array | Float64Array>(
  (value) => value instanceof Float32Array || value instanceof Float64Array,
);
const doubles = z
  .union([floats, z.array(z.number())], { error: 'must be numbers: a Float64Array, a Float32Array or an array' })
  .transform((values) => Float64Array.from(values));
const doublesWithGaps = z
  .union([floats, z.array(realOrGap)], {
    error: 'must be numbers or null: a Float64Array, a Float32Array or an array',
  })
  .transform((values) => Float64Array.from(values, (value: number | null) => value ?? NaN));

const optionsSchema = z
  .strictObject({
    loss: rankingLoss,
    ...rankingLossShape,
    fusion: headFusion.default('mean').describe('Of heads to one scalar.'),
    headWeights,
  })
  .describe('How scores are compared.');

export const rankingLossInputSchema = z
  .strictObject({
    heads: z.number().int().min(1).max(1024).describe('H: a row of `mu` has one value a head.'),
    mu: doubles.describe('[S x H] means of the scores.'),
    logSigma: doubles.optional().describe('[S x H] log of their standard deviations; needed by the loss uncertainty.'),
    pairs: z
      .strictObject({
        ...rankingPairShape,
        margins: doubles.optional().describe(pairMargins),
        ids: rankingPairShape.chosen
          .optional()
          .describe(
            '[P] keys of the draws of monte_carlo, so that a part of a step draws as the whole. Default: 0, 1, ...',
          ),
      })
      .optional()
      .describe('Which scores compete: rows of `mu`.'),
    targets: doublesWithGaps
      .optional()
      .describe('[S x H] scores to regress mu on; null or NaN where one is missing. For the loss regression.'),
    options: optionsSchema,
    stepCount,
  })
  .superRefine(({ options, pairs, targets, logSigma }, context) => {
    for (const { path, message } of faultsOf({ ...options, pairs, targets })) {
      const isData = path[0] === 'pairs' || path[0] === 'targets';
      context.addIssue({ code: 'custom', path: isData ? path : ['options', ...path], message });
    }
    if (options.loss === 'uncertainty' && logSigma === undefined)
      context.addIssue({ code: 'custom', path: ['logSigma'], message: 'is needed by the loss uncertainty' });
  })
  .describe('Scores to compare.');

export type RankingLossInput = z.input<typeof rankingLossInputSchema>;

/** As the native module takes it: nothing undefined. */
export function nativeRankingLoss(input: z.output<typeof rankingLossInputSchema>): NativeRankingLossInput {
  const given = <T extends object>(value: T): T =>
    Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;
  const { pairs, options } = input;
  return given({ ...input, pairs: pairs && given(pairs), options: given(options) }) as NativeRankingLossInput;
}
