/**
 * What training and sampling will take, before anything is taken: a model whose memory is reserved and never touched runs
 * the work with kernels that compute nothing, so every buffer has the size that it will have.
 */
import { availableParallelism } from 'node:os';
import { z } from 'zod';
import type { NativeEngine, NativeMemory, NativeModel, NativePlannedWork } from '../binding/contract.js';
import { deviceIndex } from './device.js';
import { adapterOf, attachAdapter, loraOptionsSchema, namesMatching } from './lora.js';
import { checkConfigObject, modelSpec, storedDtype, tokenIds, type JsonObject } from './model-config.js';
import { nativeModule } from './native-module.js';
import { checkOptimizerState, optimizerStateSchema } from './optimizer-state.js';
import { deviceSchema, exactnessSchema, promptCacheBytesSchema } from './options.js';
import { parseOptions } from './parse-options.js';
import { attachRewardHead, rewardHeadOf, rewardHeadOptionsSchema } from './reward-head.js';
import { vocabularySize } from './reward-token.js';

const count = z.number().int().min(1);

const plannedImageSchema = z
  .strictObject({
    grid: z.tuple([count, count, count]).describe('Patches in time, height and width, as the image processor says.'),
    kind: z.enum(['image', 'video']).default('image').describe('A video has placeholders of its own.'),
    size: z.tuple([count, count]).optional().describe('Height and width in pixels; LLaVA-OneVision needs it.'),
  })
  .describe('A picture or video of the prompt.');

export const estimateMemoryOptionsSchema = z
  .strictObject({
    dtype: z.enum(['fp32', 'bf16']).optional().describe("Weights and activations. Default: the config's."),
    optimizer: optimizerStateSchema.prefault({}),
    lora: loraOptionsSchema.optional(),
    rewardHead: rewardHeadOptionsSchema.optional(),
    freeze: z.array(z.string().min(1)).default([]).describe('Patterns of tensors that do not train.'),
    promptCacheBytes: promptCacheBytesSchema,
    device: deviceSchema,
    exactness: exactnessSchema,
    threads: count.max(256).optional().describe('Threads of the engine. Default: every core.'),
    promptTokens: count.default(1024).describe('Tokens of a prompt, those of its pictures included.'),
    images: z.array(plannedImageSchema).default([]).describe('Pictures of a prompt.'),
    prompts: count.default(1).describe('Prompts of one step, or of one sampling.'),
    training: z
      .strictObject({
        completions: count.default(1).describe('Completions of a prompt (G).'),
        completionTokens: count.default(512).describe('Tokens of a completion.'),
        maxTokensPerMicroBatch: count.default(8192).describe('Packed tokens of one micro-batch.'),
        activationCheckpointing: z.boolean().default(false).describe('Recompute each block in the backward pass.'),
        reference: z
          .boolean()
          .default(false)
          .describe('With a reference policy (beta > 0): a second model, or with an adapter the model itself.'),
      })
      .optional()
      .describe('A training step. Default: none.'),
    sampling: z
      .strictObject({
        completions: count.default(1).describe('Completions of a prompt (G).'),
        maxNewTokens: count.default(512).describe('Longest completion, in tokens.'),
        maxRows: count.default(256).describe('Completions decoded at once.'),
      })
      .optional()
      .describe('Sampling. Default: none.'),
  })
  .describe('The work whose memory is asked for.');

export type EstimateMemoryOptions = z.input<typeof estimateMemoryOptionsSchema>;
type Resolved = z.output<typeof estimateMemoryOptionsSchema>;

/** Bytes by purpose, as Model.memory() tells them once the work has run. */
export interface MemoryEstimate extends NativeMemory {
  /** The frozen second model of a full fine-tune with a reference policy, its activations included; else 0. */
  referenceBytes: number;
  /** The most at one time: of training's activations and what sampling takes, the larger counts. Node itself and the data set come on top. */
  totalBytes: number;
}

async function planningModel(engine: NativeEngine, config: JsonObject, options: Resolved): Promise<NativeModel> {
  const dtype = options.dtype ?? storedDtype(config);
  const state = checkOptimizerState(options.optimizer, dtype);
  const model = await engine.createModel({ ...modelSpec(config, dtype, state), planning: true });
  const { lora, freeze, rewardHead } = options;
  if (lora !== undefined) await attachAdapter(model, adapterOf(model.tensors(), lora));
  else if (freeze.length > 0) {
    const names = model.tensors().map(({ name }) => name);
    const frozen = new Set(namesMatching(names, freeze, 'freeze'));
    model.setTrainable(names.filter((name) => !frozen.has(name)));
  }
  // Which token it reads changes no size.
  if (rewardHead !== undefined) await attachRewardHead(model, rewardHeadOf(rewardHead, lastWord(config)));
  return model;
}

function lastWord(config: JsonObject): number {
  const names = ['image_token_id', 'video_token_id', 'image_token_index', 'video_token_index'];
  const taken = new Set(names.flatMap((name) => tokenIds(config, name)));
  let token = (vocabularySize(config) ?? 1) - 1;
  while (taken.has(token)) token -= 1;
  return token;
}

function plannedWork(options: Resolved): NativePlannedWork {
  const { promptTokens, images, prompts, promptCacheBytes, training, sampling } = options;
  const steps = training && {
    trains: true,
    scores: training.reference && options.lora !== undefined,
    completions: training.completions,
    completionTokens: training.completionTokens,
    options: {
      maxTokensPerMicroBatch: training.maxTokensPerMicroBatch,
      activationCheckpointing: training.activationCheckpointing,
    },
  };
  const draw = sampling && {
    count: sampling.completions,
    maxNewTokens: sampling.maxNewTokens,
    maxRows: sampling.maxRows,
  };
  return {
    promptTokens,
    images: images.map(({ grid, kind, size }) => ({ grid, kind, ...(size === undefined ? {} : { size }) })),
    groups: prompts,
    promptCacheBytes,
    ...(steps === undefined ? {} : { steps }),
    ...(draw === undefined ? {} : { sampling: draw }),
  };
}

/** Training gives its activations to sampling and gets them back: of the two, the larger counts. */
function peakOf(memory: NativeMemory): number {
  const { weightBytes, gradientBytes, optimizerBytes, activationBytes, kvBytes, samplingBytes, scratchBytes } = memory;
  const held = weightBytes + gradientBytes + optimizerBytes + memory.promptCacheBytes + scratchBytes;
  return held + Math.max(activationBytes, kvBytes + samplingBytes);
}

/**
 * The memory that a model of `config` (what config.json holds) will take for the given work. Nothing is loaded; it takes
 * a fraction of a second. Without `training` and `sampling`: the weights alone. On a CUDA device all but `promptCacheBytes` is the device's memory.
 * Errors: those of the work itself: 'invalid_config', 'unsupported', 'invalid_argument', 'prompt_too_long'; 'device_unavailable'.
 */
export async function estimateMemory(config: JsonObject, options: EstimateMemoryOptions = {}): Promise<MemoryEstimate> {
  const resolved = parseOptions(estimateMemoryOptionsSchema, options, 'options');
  checkConfigObject(config);
  const { threads = Math.min(256, availableParallelism()) } = resolved;
  const native = nativeModule();
  const index = deviceIndex(native, resolved.device);
  const engine = native.createEngine({
    threads,
    exactness: resolved.exactness,
    ...(index === undefined ? {} : { device: index }),
  });
  try {
    const work = plannedWork(resolved);
    const model = await planningModel(engine, config, resolved);
    const own = await model.planMemory(work);
    await model.dispose();
    let referenceBytes = 0;
    let { scratchBytes } = own;
    if (work.steps !== undefined && resolved.training?.reference === true && resolved.lora === undefined) {
      const reference = await planningModel(engine, config, resolved);
      const { sampling: _sampling, steps, ...rest } = work;
      const scored = await reference.planMemory({ ...rest, steps: { ...steps, trains: false, scores: true } });
      referenceBytes = peakOf(scored) - scored.scratchBytes;
      scratchBytes = Math.max(scratchBytes, scored.scratchBytes);
    }
    const memory = { ...own, scratchBytes };
    return { ...memory, referenceBytes, totalBytes: peakOf(memory) + referenceBytes };
  } finally {
    await engine.dispose();
  }
}
