/** The schema of `run.yaml`: model, run folder, stages. Every field is described; `gavel schema` prints it as JSON Schema. */
import { z } from 'zod';
import { dataConfigSchema, dataSourceSchema } from '../data/open-data.js';
import { promptLimitsSchema } from '../data/prompt-limits.js';
import { loraOptionsSchema } from '../engine/lora.js';
import { optimizerStateSchema } from '../engine/optimizer-state.js';
import { engineOptionsSchema, promptCacheBytesSchema } from '../engine/options.js';
import { rewardHeadOptionsSchema } from '../engine/reward-head.js';
import { answerForms } from '../rewards/answer-forms.js';
import { verifierNames } from '../rewards/verifier.js';
import { dpoOptionsSchema } from './dpo.js';
import { evaluateOptionsSchema, samplesNeedTemperature } from './evaluate.js';
import { grpoOptionsSchema, validationNeed } from './grpo-options.js';
import { jointOptionsSchema } from './joint-options.js';
import { r3vOptionsSchema } from './r3v-options.js';
import { rejectionOptionsSchema } from './rejection.js';
import { selectEvaluationOptionsSchema } from './select-evaluation.js';
import { sftOptionsSchema } from './sft.js';
import { unifiedRewardThinkOptionsSchema } from './unified-reward-think.js';

export const validationSchema = samplesNeedTemperature(
  dataSourceSchema
    .omit({ weight: true, seed: true })
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
    promptCacheBytes: promptCacheBytesSchema,
    rewardHead: rewardHeadOptionsSchema
      .optional()
      .describe('A new reward head, for joint training. One that lies in the folder is loaded without it.'),
    initializeSeed: z
      .number()
      .int()
      .min(0)
      .optional()
      .describe('Start from seeded random weights; no weights are read.'),
    ...promptLimitsSchema.shape,
  })
  .describe('What is trained.');

const stageName = z
  .string()
  .regex(/^[a-z][a-z0-9-]*$/, { error: 'Expected lower-case letters, digits and dashes.' })
  .describe('Name of the stage in logs and in the table.');
const stageBase = { name: stageName, data: dataConfigSchema };
const marked = {
  verifier: z.enum(verifierNames).default('strict').describe('What counts as correct.'),
  answer: z.enum(answerForms).default('tags').describe('Where the answer of a completion stands.'),
};
const pairData = dataConfigSchema.describe('Preference pairs: a source, or a list of several that are mixed.');

/** Every recipe a stage may name. */
export const recipeNames = [
  'sft',
  'rejection',
  'grpo',
  'unified-reward-think',
  'dpo',
  'joint',
  'r3v',
  'select-evaluation',
  'evaluate',
  'evaluate-scorer',
] as const;

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
        ...marked,
        validation: validationSchema.optional(),
        options: rejectionOptionsSchema.prefault({}),
      }),
      z
        .strictObject({
          ...stageBase,
          recipe: z.literal('grpo').describe('Reinforcement learning on groups.'),
          ...marked,
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
          validation: validationSchema
            .optional()
            .describe('Needed by the gate and by `evaluateEvery`; without both it may be left out.'),
          options: grpoOptionsSchema.prefault({}),
        })
        .check(({ value, issues }) => {
          const need = value.validation === undefined ? validationNeed(value.options) : undefined;
          if (need !== undefined)
            issues.push({ code: 'custom', path: ['validation'], message: need, input: undefined });
        }),
      z
        .strictObject({
          name: stageName,
          recipe: z
            .literal('unified-reward-think')
            .describe('Cold start, rejection sampling and GRPO, one after another.'),
          coldStart: dataConfigSchema.describe('Rows with distilled rationales.'),
          pool: dataConfigSchema.describe('Labelled rows that the later stages draw on.'),
          ...marked,
          validation: validationSchema.optional().describe('Needed: it ends the cold start and opens the gate.'),
          test: validationSchema.optional().describe('Measured after each of the three.'),
          options: unifiedRewardThinkOptionsSchema.prefault({}),
        })
        .check(({ value, issues }) => {
          const message =
            'Expected rows to validate on: the cold start looks for its end on them, and the gate of GRPO measures the policy.';
          if (value.validation === undefined)
            issues.push({ code: 'custom', path: ['validation'], message, input: undefined });
        }),
      z
        .strictObject({
          name: stageName,
          data: pairData.optional(),
          pairsOf: stageName
            .optional()
            .describe(
              'In place of `data`: this r3v stage. The most recent right solution of each of its questions is preferred to ' +
                'the most recent wrong one, and `validation` asks questions as that stage does.',
            ),
          recipe: z.literal('dpo').describe('Direct preference optimization on pairs of completions.'),
          ...marked,
          validation: validationSchema.optional(),
          options: dpoOptionsSchema.prefault({}),
        })
        .refine(({ data, pairsOf }) => (data === undefined) !== (pairsOf === undefined), {
          path: ['data'],
          error: 'Expected either `data`, with pairs, or `pairsOf`, with the name of an r3v stage.',
        }),
      z.strictObject({
        name: stageName,
        data: pairData,
        recipe: z.literal('joint').describe('JRM: a ranking head and rationales, trained together.'),
        validation: pairData.optional(),
        options: jointOptionsSchema.prefault({}),
      }),
      z.strictObject({
        ...stageBase,
        recipe: z.literal('r3v').describe('Self-training by reflecting on rationales.'),
        warmUp: dataConfigSchema.optional().describe('Questions with distilled rationales.'),
        ...marked,
        validation: validationSchema.optional(),
        options: r3vOptionsSchema.prefault({}),
      }),
      z.strictObject({
        ...stageBase,
        recipe: z.literal('select-evaluation').describe('Test-time selection against pass@1 and majority vote.'),
        ...marked,
        options: selectEvaluationOptionsSchema.prefault({}),
      }),
      z.strictObject({
        name: stageName,
        recipe: z.literal('evaluate').describe('Measure, train nothing.'),
        ...marked,
        ask: z
          .enum(['rationale', 'direct', 'both'])
          .optional()
          .describe(
            'Rows are questions, asked as R3V asks: for a rationale, for the answer alone (direct), or both; only the ' +
              'answer counts, and `bothOrders` says nothing. Default: rows are asked as they are.',
          ),
        data: validationSchema,
      }),
      z.strictObject({
        name: stageName,
        recipe: z.literal('evaluate-scorer').describe('Score pairs with the reward head, train nothing.'),
        data: pairData,
      }),
    ],
    {
      error: ({ code }) =>
        code === 'invalid_union'
          ? `Expected a recipe: ${recipeNames.map((name) => `'${name}'`).join(', ')}.`
          : undefined,
    },
  )
  .describe('One stage.');

export const runConfigSchema = z
  .strictObject({
    run: z.string().min(1).describe('Run folder, relative to the configuration file.'),
    model: modelSchema,
    engine: engineOptionsSchema.prefault({}),
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
  'unified-reward-think': unifiedRewardThinkOptionsSchema,
  dpo: dpoOptionsSchema,
  joint: jointOptionsSchema,
  r3v: r3vOptionsSchema,
  'select-evaluation': selectEvaluationOptionsSchema,
  evaluate: evaluateOptionsSchema,
} as const;

/** JSON Schema (draft 2020-12) of what a user may write. */
export function jsonSchemaOf(name: keyof typeof schemas): unknown {
  return z.toJSONSchema(schemas[name], { io: 'input' });
}
