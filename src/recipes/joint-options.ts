/** Options of joint training: the weight of reasons beside ranking, the ranking loss, and the plan. */
import { z } from 'zod';
import { rankingLoss, rankingLossShape } from '../engine/ranking-objective.js';
import { microBatchSchema, optimizerSchema } from './optimizer-options.js';
import { scheduleSchema } from './schedules.js';

export const jointOptionsSchema = z
  .strictObject({
    alpha: z
      .number()
      .min(0)
      .max(1)
      .default(0.7)
      .describe('Weight of the language loss; 1 - alpha is that of ranking. 0 is the pure reward model, 1 pure SFT.'),
    ranking: z
      .strictObject({ loss: rankingLoss.default('uncertainty'), ...rankingLossShape })
      .prefault({})
      .describe('The ranking loss.'),
    labels: z
      .enum(['overall', 'dimensions'])
      .default('overall')
      .describe(
        "'overall' ranks the fused score by the preference; 'dimensions' each head by the preference in its own dimension.",
      ),
    epochs: z.number().positive().default(10).describe('Passes over the pairs; `steps` wins.'),
    steps: z.number().int().min(1).optional().describe('Optimizer steps.'),
    batchSize: z.number().int().min(1).default(64).describe('Pairs of one optimizer step.'),
    learningRate: z.number().positive().default(2e-6).describe('Peak learning rate.'),
    schedule: scheduleSchema.prefault({ kind: 'cosine', warmupRatio: 0.05 }),
    optimizer: optimizerSchema.prefault({ beta2: 0.95 }),
    microBatch: microBatchSchema.prefault({}),
    seed: z.number().int().min(0).default(0).describe('Key of the order of the pairs.'),
    evaluateEvery: z.number().int().min(1).optional().describe('Steps between validations.'),
    checkpointEvery: z.number().int().min(1).default(200).describe('Steps between checkpoints.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound; the plan is shortened to fit it.'),
  })
  .describe('Joint ranking and language training (JRM).');

export type JointOptions = z.input<typeof jointOptionsSchema>;
export type ResolvedJointOptions = z.output<typeof jointOptionsSchema>;
