/**
 * The ranking objective: which scores of a call compete, and how. Scores are the call's reward tokens, counted from 0 in
 * order of groups, a prompt before its completions.
 */
import { z } from 'zod';
import type { NativeRankingObjective } from '../binding/contract-objectives.js';

const int32s = z.custom<Int32Array>((value) => value instanceof Int32Array);
const uint8s = z.custom<Uint8Array>((value) => value instanceof Uint8Array);
const float32s = z.custom<Float32Array>((value) => value instanceof Float32Array);
const integers = z
  .union([int32s, z.array(z.int32())], { error: 'must be whole numbers: an Int32Array or an array' })
  .transform((values) => Int32Array.from(values));
const flags = z
  .union([uint8s, z.array(z.number().int().min(0).max(1))], { error: 'must be 0 or 1: a Uint8Array or an array' })
  .transform((values) => Uint8Array.from(values));
const reals = z
  .union([float32s, z.array(z.number())], { error: 'must be numbers: a Float32Array or an array' })
  .transform((values) => Float32Array.from(values));
/** A number that may be missing. */
export const realOrGap = z.union([z.number(), z.nan(), z.null()]);
const realsWithGaps = z
  .union([float32s, z.array(realOrGap)], { error: 'must be numbers or null: a Float32Array or an array' })
  .transform((values) => Float32Array.from(values, (value: number | null) => value ?? NaN));

/** Of [P] pairs of scores. */
export const rankingPairShape = {
  chosen: integers.describe('[P] score that is better; with `labels`, the first of the pair.'),
  rejected: integers.describe('[P] score that is worse; with `labels`, the second.'),
  ties: flags.optional().describe('[P] 1 where neither is better.'),
  labels: integers
    .optional()
    .describe('[P x H] preference of each head: 1 chosen, -1 rejected, 0 tie, 2 none. Without it heads are fused.'),
};
export const pairMargins = '[P] margin of each pair, added to `margin`.';

const pairsSchema = z
  .strictObject({ ...rankingPairShape, margins: reals.optional().describe(pairMargins) })
  .describe('Which scores compete.');

export const rankingLoss = z
  .enum(['bradley_terry', 'bradley_terry_ties', 'regression', 'uncertainty'])
  .describe('Of r_w - r_l, of it with ties, of given scores, or of r ~ N(mu, sigma^2).');

/** How a loss compares scores, whatever it compares. */
export const rankingLossShape = {
  margin: z.number().default(0).describe('r_w must exceed r_l by it: bradley_terry and uncertainty.'),
  tieRatio: z.number().gt(1).default(5).describe('k of bradley_terry_ties: P(i over j) = e^ri / (e^ri + k e^rj).'),
  estimator: z
    .enum(['quadrature', 'probit', 'monte_carlo'])
    .default('quadrature')
    .describe('Of the expectation over z ~ N(m, s^2): Gauss-Hermite, sigmoid(m / sqrt(1 + pi s^2 / 8)), or draws.'),
  form: z
    .enum(['log_expectation', 'expectation_log'])
    .default('log_expectation')
    .describe('-log E[sigmoid(z)], or its upper bound E[-log sigmoid(z)].'),
  nodes: z.number().int().min(1).max(128).default(64).describe('Of the quadrature.'),
  samples: z
    .number()
    .int()
    .min(1)
    .max(1 << 20)
    .default(256)
    .describe('Of monte_carlo, for each pair.'),
  seed: z.number().int().min(0).default(0).describe('Key of the draws of monte_carlo.'),
  logSigmaMin: z.number().min(-50).max(50).default(-5).describe('log sigma is clamped from below, without gradient.'),
  logSigmaMax: z.number().min(-50).max(50).default(2).describe('log sigma is clamped from above, without gradient.'),
  centring: z.number().min(0).default(0).describe('Adds this times the mean of (r_w + r_l)^2.'),
};

export const headFusion = z.enum(['mean', 'min', 'sum']);
export const headWeights = z
  .array(z.number().min(0))
  .min(1)
  .optional()
  .describe('[H] weights of `labels` or `targets`.');
export const stepCount = z
  .number()
  .positive()
  .optional()
  .describe('Labelled pairs (regression: scores with a target) of the whole optimizer step. Default: of this call.');

interface Comparison {
  loss: z.output<typeof rankingLoss>;
  margin: number;
  estimator: string;
  form: string;
  logSigmaMin: number;
  logSigmaMax: number;
  headWeights?: readonly number[] | undefined;
  pairs?: { margins?: unknown; ties?: unknown; labels?: unknown } | undefined;
  targets?: unknown;
}

/** What of a comparison does not go together: where, and why. */
export function faultsOf(given: Comparison): { path: string[]; message: string }[] {
  const { loss, margin, estimator, form, pairs, targets } = given;
  const hasMargins = loss === 'bradley_terry' || loss === 'uncertainty';
  const faults: { broken: boolean; path: string[]; message: string }[] = [
    {
      broken: loss !== 'regression' && pairs === undefined,
      path: ['pairs'],
      message: 'is needed by every loss but regression',
    },
    {
      broken: (loss === 'regression') !== (targets !== undefined),
      path: ['targets'],
      message: loss === 'regression' ? 'is needed by the loss regression' : 'is read by the loss regression alone',
    },
    {
      broken: estimator === 'probit' && form !== 'log_expectation',
      path: ['form'],
      message: 'must be log_expectation with the estimator probit, which approximates nothing else',
    },
    {
      broken: !hasMargins && (margin !== 0 || pairs?.margins !== undefined),
      path: ['margin'],
      message: 'belongs to the losses bradley_terry and uncertainty',
    },
    {
      broken: given.logSigmaMin > given.logSigmaMax,
      path: ['logSigmaMin'],
      message: 'is above logSigmaMax',
    },
    {
      broken: pairs?.ties !== undefined && pairs.labels !== undefined,
      path: ['pairs', 'ties'],
      message: 'is not read beside labels: a tie is the label 0 there',
    },
    {
      broken: given.headWeights !== undefined && pairs?.labels === undefined && targets === undefined,
      path: ['headWeights'],
      message: 'has no labels or targets to weigh',
    },
  ];
  return faults.filter(({ broken }) => broken);
}

export const rankingObjectiveSchema = z
  .strictObject({
    kind: z.literal('ranking'),
    weight: z.number().default(1).describe('Factor of this objective; 0 leaves it out.'),
    loss: rankingLoss,
    pairs: pairsSchema.optional(),
    targets: realsWithGaps
      .optional()
      .describe('[S x H] scores to regress mu on; null or NaN where one is missing. For the loss regression.'),
    ...rankingLossShape,
    fusion: headFusion.optional().describe("Of heads to one scalar. Default: the reward head's."),
    headWeights,
    stepCount,
  })
  .superRefine((objective, context) => {
    for (const { path, message } of faultsOf(objective)) context.addIssue({ code: 'custom', path, message });
  })
  .describe('Comparison of reward-head scores.');

export type RankingObjective = z.input<typeof rankingObjectiveSchema>;
type Resolved = z.output<typeof rankingObjectiveSchema>;

/** As the native module takes it: the head's fusion where none is named, nothing undefined. */
export function nativeRanking(
  { fusion, ...rest }: Resolved,
  headFusion: 'mean' | 'min' | 'sum',
): NativeRankingObjective {
  const given = Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== undefined));
  return { ...given, fusion: fusion ?? headFusion } as NativeRankingObjective;
}
