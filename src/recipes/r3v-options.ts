/** Options of R3V. Defaults are the paper's; its ablations and baselines are options. */
import { z } from 'zod';
import { drawSchema } from './mark-samples.js';
import type { MixtureKind } from './r3v-mixture.js';
import { scheduleSchema } from './schedules.js';
import { sftOptionsSchema } from './sft.js';

/** How the paper draws: 3 solutions a question, warm. */
export const r3vDrawSchema = drawSchema.extend({
  samples: z.number().int().min(1).default(3).describe('Solutions of each question and iteration.'),
  temperature: z.number().positive().default(0.9).describe('Sampling temperature.'),
  topK: z.number().int().min(1).default(50).describe('Draw among the k likeliest tokens.'),
  topP: z.number().gt(0).max(1).default(0.95).describe('Draw among the likeliest tokens of this mass.'),
  maxNewTokens: z.number().int().min(1).default(384).describe('Longest solution, in tokens.'),
});

const trainingSchema = sftOptionsSchema
  .omit({ search: true })
  .extend({
    learningRate: z.number().positive().default(3e-5).describe('Peak learning rate.'),
    schedule: scheduleSchema.prefault({ kind: 'constant' }),
    batchSize: z.number().int().min(1).default(64).describe('Rows of one optimizer step.'),
  })
  .describe('Training of an iteration.');

const kindWeight = z.number().min(0).default(1);

export const r3vOptionsSchema = z
  .strictObject({
    iterations: z
      .number()
      .int()
      .min(0)
      .default(4)
      .describe('Rounds of self-training (T); 0 is the warm-up alone, the distilled baseline.'),
    ...r3vDrawSchema.shape,
    samplingBudgetSeconds: z
      .number()
      .positive()
      .optional()
      .describe('Each bootstrap stops after this; questions not reached give no samples.'),
    candidates: z.number().int().min(2).max(6).default(3).describe('Candidates of a select item (N).'),
    selectTarget: z
      .enum(['gold', 'sample'])
      .default('gold')
      .describe("What a select item is trained to say: the gold answer, or its chosen correct sample's answer."),
    refine: z.boolean().default(true).describe('Train on refine items.'),
    select: z.boolean().default(true).describe('Train on select items; without refine and select this is STaR.'),
    iterate: z
      .boolean()
      .default(true)
      .describe('False: one iteration with all samples, `samples` times `iterations` of each question.'),
    start: z
      .enum(['base', 'previous'])
      .default('base')
      .describe(
        'Weights that each iteration is trained from: those before the warm-up, or those of the iteration before.',
      ),
    direct: z.boolean().default(true).describe('Train on questions asked for their answer alone as well.'),
    weights: z
      .strictObject({
        direct: kindWeight.describe('Times each direct row stands in the mixture; 0.5 takes a seeded half.'),
        warmUp: kindWeight.describe('The same for warm-up rationales.'),
        selfCot: kindWeight.describe('The same for self-CoT items.'),
        refine: kindWeight.describe('The same for refine items.'),
        selectA: kindWeight.describe('The same for select items with one wrong candidate.'),
        selectB: kindWeight.describe('The same for select items with one correct candidate.'),
      } satisfies Record<MixtureKind, z.ZodType>)
      .prefault({})
      .describe('Weights of the parts of the mixture.'),
    patience: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('Stop after this many iterations without a better validation. Default: every iteration runs.'),
    keep: z
      .enum(['best', 'last'])
      .default('best')
      .describe('Weights at the end: of the best validation, or of the last iteration; without validation the last.'),
    seed: z.number().int().min(0).default(0).describe('Key of sampling, of the order of candidates and of shares.'),
    sft: trainingSchema.prefault({}),
    warmUp: trainingSchema.optional().describe('Training of the warm-up. Default: as `sft`.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound of the whole recipe.'),
  })
  .describe('R3V: self-training by reflecting on rationales.');

export type R3vOptions = z.input<typeof r3vOptionsSchema>;
export type ResolvedR3vOptions = z.output<typeof r3vOptionsSchema>;
