/** Options of the verbs: strict schemas with defaults; `z.toJSONSchema` of each is exported as verbSchemas. */
import { z } from 'zod';
import type { NativeCompletion } from '../binding/contract.js';
import { dpoObjectiveSchema, grpoObjectiveSchema } from './policy-objectives.js';
import { hubOptionsSchema } from './hub-options.js';
import { loraOptionsSchema } from './lora.js';
import { optimizerStateSchema } from './optimizer-state.js';
import { rankingObjectiveSchema } from './ranking-objective.js';
import { rewardHeadOptionsSchema } from './reward-head.js';

const count = z.number().int().min(1);
/** The largest number that fp32 holds. */
const maxFloat = 2 ** 128 - 2 ** 104;
const tokenIdList = z.array(z.number().int().min(0));

export const deviceSchema = z
  .string()
  .regex(/^(auto|cpu|cuda(:\d+)?)$/, { error: "Expected 'auto', 'cpu', 'cuda' or 'cuda:N'" })
  .default('auto')
  .describe(
    "Where models live: 'cpu', 'cuda' or 'cuda:1'. 'auto' is the CPU, for CUDA has to be asked for; a named device is a demand.",
  );

export const exactnessSchema = z
  .enum(['bitwise', 'fastest'])
  .default('bitwise')
  .describe(
    "'bitwise': sampled and trained log-probs are equal bit for bit in any batch. 'fastest' (CUDA alone): sums may be cut where that fills the device, so they are equal but for rounding; the same batch has the same bits again.",
  );

export const engineOptionsSchema = z
  .strictObject({
    device: deviceSchema,
    threads: count.max(256).optional().describe('Threads that compute, the job thread included. Default: every core.'),
    pinThreads: z
      .union([z.boolean(), z.array(z.int().nonnegative()).min(1)])
      .default(false)
      .describe(
        'Keep every thread on a core of its own: true for the first cores there are, or the cores, of which `threads` is then the number by default. Linux only.',
      ),
    isa: z
      .enum(['auto', 'amx', 'avx512-bf16', 'avx512', 'avx2', 'generic'])
      .default('auto')
      .describe(
        "Instructions to compute with. 'auto': what the environment variable GAVEL_ISA names, else the best there are.",
      ),
    exactness: exactnessSchema,
  })
  .describe('How an engine is made.');

const dtype = z.enum(['fp32', 'bf16']);

export const promptCacheBytesSchema = z
  .number()
  .int()
  .min(0)
  .default(2 ** 28)
  .describe(
    "Most bytes of pictures' features and prompts' keys and values that are kept for later calls on the same weights; 0 keeps none. Results are the same bits.",
  );

const freeze = z
  .array(z.string().min(1))
  .default([])
  .describe("Patterns of tensors that do not train, each a dotted part of a name: 'visual', 'merger', 'layers.0'.");

export const loadModelOptionsSchema = z
  .strictObject({
    dtype: dtype.optional().describe('Weights and activations. Default: bf16 for a bfloat16 checkpoint, else fp32.'),
    hub: hubOptionsSchema.optional(),
    optimizer: optimizerStateSchema.prefault({}),
    lora: loraOptionsSchema.optional(),
    adapter: z.string().min(1).optional().describe('A PEFT adapter of this model: a folder or hub id. It trains on.'),
    rewardHead: rewardHeadOptionsSchema
      .optional()
      .describe('A new reward head. One that lies in the folder is loaded without it.'),
    freeze,
    promptCacheBytes: promptCacheBytesSchema,
  })
  .refine(({ lora, adapter }) => lora === undefined || adapter === undefined, {
    path: ['lora'],
    error: 'an adapter is either new (`lora`) or loaded (`adapter`)',
  })
  .refine(({ lora, adapter, freeze: frozen }) => frozen.length === 0 || (lora ?? adapter) === undefined, {
    path: ['freeze'],
    error: 'with an adapter the whole base is frozen; use `lora.exclude` to leave layers out',
  })
  .describe('How a checkpoint is loaded.');

export const createModelOptionsSchema = z
  .strictObject({
    dtype: dtype.default('fp32').describe('Weights and activations.'),
    seed: z.number().int().min(0).default(0).describe('Key of the random weights.'),
    std: z
      .number()
      .min(0)
      .optional()
      .describe("Standard deviation of matrices and embeddings. Default: the config's initializer_range, else 0.02."),
    optimizer: optimizerStateSchema.prefault({}),
    lora: loraOptionsSchema.optional(),
    rewardHead: rewardHeadOptionsSchema.optional(),
    freeze,
    promptCacheBytes: promptCacheBytesSchema,
    companions: z.string().optional().describe('Folder whose tokenizer and processor files are saved with the model.'),
  })
  .describe('How a model is made from nothing.');

/** What may also stand in a single request. */
const drawShape = {
  count: count.default(1).describe('Completions of each prompt (G).'),
  firstSample: z.number().int().min(0).default(0).describe('Index of the first one, to add samples later.'),
  maxNewTokens: count.default(512).describe('Longest completion, in tokens.'),
  seed: z.number().int().min(0).default(0).describe('Key of the random numbers, with request id and sample index.'),
  temperature: z.number().min(0).default(1).describe('Logits are divided by it; 0 is greedy.'),
  topK: z.number().int().min(0).default(0).describe('Draw among the k likeliest tokens; 0 is off.'),
  topP: z.number().gt(0).max(1).default(1).describe('Draw among the likeliest tokens of this mass; 1 is off.'),
  minP: z
    .number()
    .min(0)
    .max(1)
    .default(0)
    .describe('Draw among tokens of at least this share of the likeliest; 0 is off.'),
  stopStrings: z
    .array(z.string().min(1))
    .default([])
    .describe('Texts that end a completion when it contains them; they stay in it. Needs `tokenBytes`.'),
};

const isFunction = (value: unknown): boolean => typeof value === 'function';

/** A request: its own draw settings, in place of those of the call. Arrays are checked where they are read. */
export const sampleRequestSchema = z.strictObject({
  id: z.unknown(),
  promptTokens: z.unknown(),
  images: z.unknown().optional(),
  stopTokens: z.unknown().optional(),
  ...Object.fromEntries(Object.entries(drawShape).map(([name, setting]) => [name, setting.unwrap().optional()])),
});

/** The bytes that each token adds to a text. */
export const tokenBytesSchema = z
  .strictObject({ bytes: z.instanceof(Uint8Array), offsets: z.instanceof(Int32Array) })
  .refine(
    ({ bytes, offsets }) =>
      offsets.length > 1 &&
      offsets[0] === 0 &&
      offsets.at(-1) === bytes.length &&
      offsets.every((offset, i) => i === 0 || offset >= offsets[i - 1]!),
    { path: ['offsets'], error: 'Expected one more than there are tokens, ascending from 0 to the length of `bytes`.' },
  )
  .optional();

export const sampleOptionsSchema = z
  .strictObject({
    ...drawShape,
    stopTokens: tokenIdList
      .optional()
      .describe("Tokens that end a completion. Default: the checkpoint's eos_token_id."),
    bannedTokens: tokenIdList
      .optional()
      .describe("Tokens never drawn. Default: the config's image and video placeholders."),
    maxRows: count.default(256).describe('Completions decoded at once.'),
    adapter: z.enum(['on', 'off']).default('on').describe("'off' samples from the base model."),
  })
  .describe('How completions are drawn; a request may override what concerns itself.');

/** What a call of `sample` takes besides. */
export const sampleCallSchema = sampleOptionsSchema.extend({
  tokenBytes: tokenBytesSchema,
  onCompletions: z
    .custom<(completions: readonly NativeCompletion[]) => void>(isFunction, 'must be a function')
    .optional(),
});

/** Of a call that takes nothing but a signal. */
export const noOptionsSchema = z.strictObject({});

const adapter = z
  .enum(['on', 'off'])
  .default('on')
  .describe("'off' is the base model: the reference policy of an adapter run.");

export const stepOptionsSchema = z
  .strictObject({
    maxTokensPerMicroBatch: count
      .default(8192)
      .describe('Packed tokens of one micro-batch; a larger group is one of its own.'),
    activationCheckpointing: z
      .boolean()
      .default(false)
      .describe('Recompute each block in the backward pass: less memory, more time.'),
    stepCompletions: z
      .number()
      .positive()
      .optional()
      .describe('Completions of the whole optimizer step. Default: of this call.'),
    stepTokens: z
      .number()
      .positive()
      .optional()
      .describe('Trained tokens of the whole optimizer step. Default: of this call.'),
  })
  .describe('How a pack is cut and normalised.');

export const logprobsOptionsSchema = stepOptionsSchema.extend({
  entropy: z.boolean().default(false).describe('Entropies too, in nats.'),
  adapter,
});

export const logitsOptionsSchema = z.strictObject({ adapter });

export const scoreOptionsSchema = stepOptionsSchema
  .pick({ maxTokensPerMicroBatch: true })
  .extend({
    states: z.boolean().default(false).describe('The hidden states that the head read, too: [S, hidden size].'),
    adapter,
  })
  .describe('How reward tokens are scored.');

const nllObjectiveSchema = z
  .strictObject({
    kind: z.literal('nll'),
    weight: z.number().default(1).describe('Factor of this objective.'),
    normalization: z
      .enum(['tokens', 'completions', 'sum'])
      .default('tokens')
      .describe('Mean over the tokens of the step, mean over completions of their token means, or sum.'),
  })
  .describe('Negative log-likelihood of the completion tokens.');

export const objectiveSchema = z.discriminatedUnion(
  'kind',
  [nllObjectiveSchema, grpoObjectiveSchema, dpoObjectiveSchema, rankingObjectiveSchema],
  {
    error: ({ code }) =>
      code === 'invalid_union' ? "Expected an objective this engine has: 'nll', 'grpo', 'dpo' or 'ranking'" : undefined,
  },
);
export const objectivesSchema = z.array(objectiveSchema).min(1);

/** AdamW's numbers, each for itself. */
export const adamWSchema = z
  .strictObject({
    learningRate: z.number().min(0).max(maxFloat).default(1e-6).describe('Step size.'),
    beta1: z.number().min(0).lt(1).default(0.9).describe('Decay of the first moment.'),
    beta2: z.number().min(0).lt(1).default(0.999).describe('Decay of the second moment.'),
    eps: z.number().positive().default(1e-8).describe('Added to the root of the second moment.'),
    weightDecay: z.number().min(0).default(0).describe('Decoupled weight decay; times `learningRate` at most 1.'),
    decayParameters: z
      .enum(['matrices', 'all'])
      .default('matrices')
      .describe("'matrices' leaves norms, biases and embeddings undecayed."),
    maxGradNorm: z.number().min(0).default(1).describe('Global gradient norm is clipped to this; 0 is off.'),
  })
  .describe('One step of AdamW.');
export const optimizerStepOptionsSchema = adamWSchema.refine(
  ({ learningRate, weightDecay }) => learningRate * weightDecay <= 1,
  { path: ['weightDecay'], error: 'must be at most 1 / `learningRate`: a weight would change its sign' },
);

export const saveOptionsSchema = z
  .strictObject({
    optimizer: z.boolean().default(true).describe('Masters, moments and step too, so that training can go on.'),
  })
  .describe('What a saved folder holds.');

/** Typed arrays have no JSON form: what may stand there is said in words. */
const jsonSchema = (schema: z.ZodType): unknown => z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });

/** JSON Schema of every verb's options, by verb. */
export const verbSchemas = (): Record<string, unknown> => ({
  createEngine: jsonSchema(engineOptionsSchema),
  loadModel: jsonSchema(loadModelOptionsSchema),
  createModel: jsonSchema(createModelOptionsSchema),
  sample: jsonSchema(sampleOptionsSchema),
  logprobs: jsonSchema(logprobsOptionsSchema),
  score: jsonSchema(scoreOptionsSchema),
  forwardBackward: jsonSchema(stepOptionsSchema),
  objectives: jsonSchema(objectivesSchema),
  optimizerStep: jsonSchema(optimizerStepOptionsSchema),
  save: jsonSchema(saveOptionsSchema),
});

export type Exactness = z.output<typeof exactnessSchema>;
export type EngineOptions = z.input<typeof engineOptionsSchema>;
export type LoadModelOptions = z.input<typeof loadModelOptionsSchema>;
export type CreateModelOptions = z.input<typeof createModelOptionsSchema>;
export type SampleSettings = z.input<typeof sampleOptionsSchema>;
export type StepSettings = z.input<typeof stepOptionsSchema>;
export type LogprobsSettings = z.input<typeof logprobsOptionsSchema>;
export type ScoreSettings = z.input<typeof scoreOptionsSchema>;
export type Objective = z.input<typeof objectiveSchema>;
export type OptimizerStepOptions = z.input<typeof optimizerStepOptionsSchema>;
export type SaveOptions = z.input<typeof saveOptionsSchema>;
