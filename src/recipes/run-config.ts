/** The schema of `run.yaml`: model, run folder, stages. Every field is described; `gavel schema` prints it as JSON Schema. */
import { z } from 'zod';
import { promptLimitsSchema } from '../data/prompt-limits.js';
import { loraOptionsSchema } from '../engine/lora.js';
import { optimizerStateSchema } from '../engine/optimizer-state.js';
import { evaluateOptionsSchema, samplesNeedTemperature } from './evaluate.js';
import { grpoOptionsSchema } from './grpo.js';
import { rejectionOptionsSchema } from './rejection.js';
import { sftOptionsSchema } from './sft.js';

export const dataSchema = z
  .strictObject({
    path: z.string().min(1).describe('JSONL file or JSON array, relative to the configuration file.'),
    imageFolder: z.string().optional().describe("Where relative image paths start. Default: the data file's folder."),
    onBadRow: z.enum(['fail', 'skip']).default('fail').describe('What happens at a row that cannot be used.'),
  })
  .describe('A data set file.');

export const validationSchema = samplesNeedTemperature(
  dataSchema
    .extend({
      bothOrders: z.boolean().default(true).describe('Also ask with the two candidates exchanged.'),
      ...evaluateOptionsSchema.shape,
    })
    .describe('A validation set and how it is sampled.'),
);

export const modelSchema = z
  .strictObject({
    path: z
      .string()
      .min(1)
      .describe('Hugging Face folder, relative to the configuration file, or a hub id: org/name, org/name@revision.'),
    dtype: z.enum(['fp32', 'bf16']).default('fp32').describe('Type of weights and activations.'),
    trainable: z
      .enum(['all', 'language'])
      .default('language')
      .describe('language freezes the vision tower and projector, or leaves them out of the adapter.'),
    lora: loraOptionsSchema.optional().describe('Train a new low-rank adapter instead of the weights.'),
    adapter: z.string().min(1).optional().describe('Train on with a PEFT adapter: a folder or hub id.'),
    freeze: z
      .array(z.string().min(1))
      .default([])
      .describe("Patterns of tensors that do not train: 'merger', 'layers.0'."),
    optimizer: optimizerStateSchema.prefault({}),
    initializeSeed: z
      .number()
      .int()
      .min(0)
      .optional()
      .describe('Start from seeded random weights; no weights are read.'),
    ...promptLimitsSchema.shape,
  })
  .describe('What is trained.');

export const engineSchema = z
  .strictObject({
    device: z.string().default('auto').describe("'auto', 'cpu', 'cuda' or 'cuda:1'; a named device is a demand."),
    threads: z.number().int().min(1).optional().describe('Worker threads of the CPU engine. Default: one a core.'),
  })
  .describe('Where it runs.');

const stageName = z
  .string()
  .regex(/^[a-z][a-z0-9-]*$/, { error: 'Expected lower-case letters, digits and dashes.' })
  .describe('Name of the stage in logs and in the table.');
const stageBase = { name: stageName, data: dataSchema };

export const stageSchema = z
  .discriminatedUnion(
    'recipe',
    [
      z.strictObject({
        ...stageBase,
        recipe: z.literal('sft').describe('Supervised fine-tuning.'),
        validation: validationSchema.optional(),
        options: sftOptionsSchema.prefault({}),
      }),
      z.strictObject({
        ...stageBase,
        recipe: z.literal('rejection').describe('Sample, mark, keep one correct completion an item, train on it.'),
        verifier: z.enum(['strict', 'lenient']).default('strict').describe('What counts as correct.'),
        validation: validationSchema.optional(),
        options: rejectionOptionsSchema.prefault({}),
      }),
      z.strictObject({
        ...stageBase,
        recipe: z.literal('grpo').describe('Reinforcement learning on groups.'),
        verifier: z.enum(['strict', 'lenient']).default('strict').describe('What counts as correct.'),
        rewards: z
          .strictObject({
            format: z.number().default(1).describe('Weight of the format reward; 0 leaves it out.'),
            accuracy: z.number().default(1).describe('Weight of the accuracy reward.'),
          })
          .prefault({})
          .describe('Weights of the rewards.'),
        hardOf: stageName
          .optional()
          .describe('Train only on the items that this rejection stage did not get all right.'),
        validation: validationSchema,
        options: grpoOptionsSchema.prefault({}),
      }),
      z.strictObject({
        name: stageName,
        recipe: z.literal('evaluate').describe('Measure, train nothing.'),
        verifier: z.enum(['strict', 'lenient']).default('strict').describe('What counts as correct.'),
        data: validationSchema,
      }),
    ],
    {
      error: ({ code }) =>
        code === 'invalid_union' ? "Expected a recipe: 'sft', 'rejection', 'grpo' or 'evaluate'." : undefined,
    },
  )
  .describe('One stage.');

export const runConfigSchema = z
  .strictObject({
    run: z.string().min(1).describe('Run folder, relative to the configuration file.'),
    model: modelSchema,
    engine: engineSchema.prefault({}),
    stages: z.array(stageSchema).min(1).describe('Stages in order; each begins with the weights of the one before.'),
    keepCheckpoints: z.number().int().min(1).default(2).describe('Checkpoints kept beside those a stage needs.'),
    exportFinal: z.boolean().default(true).describe('Write the final weights as a Hugging Face folder `final`.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound of the whole run.'),
  })
  .describe('A training run.');

export type RunConfig = z.output<typeof runConfigSchema>;
export type RunStage = RunConfig['stages'][number];

/** Every schema `gavel schema` knows, by name. */
export const schemas = {
  run: runConfigSchema,
  sft: sftOptionsSchema,
  rejection: rejectionOptionsSchema,
  grpo: grpoOptionsSchema,
  evaluate: evaluateOptionsSchema,
} as const;

/** JSON Schema (draft 2020-12) of what a user may write. */
export function jsonSchemaOf(name: keyof typeof schemas): unknown {
  return z.toJSONSchema(schemas[name], { io: 'input' });
}
