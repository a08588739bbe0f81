/**
 * Reward heads: H perceptrons over the hidden state of one reward token, each giving (mu, log sigma). Options, what a model
 * tells of its head, and the files it is kept in: reward_head.safetensors and reward_head.json beside a model or adapter.
 */
import { access } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { NativeModel, NativeTensorSource } from '../binding/contract.js';
import { expected, GavelError } from '../errors.js';
import { corruptFile, readOptionalJson } from './checkpoint-files.js';
import { writeSynced } from './folder.js';
import { readSafetensorsHeader } from './safetensors.js';
import { readTensors, writeTensors, type PlannedTensor, type StoredModel } from './write-tensors.js';

export const rewardHeadConfigFile = 'reward_head.json';
export const rewardHeadWeightsFile = 'reward_head.safetensors';

const count = z.number().int().min(1);
const distinct = (names: readonly string[]): boolean => new Set(names).size === names.length;
const fusion = z.enum(['mean', 'min', 'sum']);
const hiddenSizes = z.array(count.max(1 << 20)).max(8);
const dimensionNames = z.array(z.string().min(1)).min(1).max(1024);

export const rewardHeadOptionsSchema = z
  .strictObject({
    heads: count.max(1024).optional().describe('Heads (H). Default: one, or one for each of `names`.'),
    names: dimensionNames
      .refine(distinct, { error: 'two dimensions have the same name' })
      .optional()
      .describe("What each head judges, e.g. 'instruction following'. Default: 'overall', or 'head_0', 'head_1' ..."),
    token: z
      .union([z.string().min(1), z.number().int().min(0)])
      .default('<|reward|>')
      .describe('Token whose hidden state is read. A text unknown to the tokenizer is added to it; or a token id.'),
    hiddenSizes: hiddenSizes
      .default([1024, 16])
      .describe("Widths of the layers between the model's hidden size and (mu, log sigma); [] is one linear layer."),
    fusion: fusion
      .default('mean')
      .describe('How heads become one scalar: mean or sum of independent Gaussians, or the head of least mu.'),
    seed: z.number().int().min(0).default(0).describe('Key of the first weights.'),
  })
  .refine(({ heads, names }) => heads === undefined || names === undefined || heads === names.length, {
    path: ['heads'],
    error: 'there are as many heads as `names`: give one of the two',
  })
  .describe('A reward head beside the language head.');

export type RewardHeadOptions = z.input<typeof rewardHeadOptionsSchema>;
export type ResolvedRewardHead = z.output<typeof rewardHeadOptionsSchema>;
export type HeadFusion = z.output<typeof fusion>;

/** A model's reward head. */
export interface RewardHead {
  /** What each head judges. */
  readonly names: readonly string[];
  /** Heads (H). */
  readonly heads: number;
  readonly fusion: HeadFusion;
  /** Text of the reward token; undefined when it was given as an id. */
  readonly token: string | undefined;
  /** Id of the reward token: put it into promptTokens after the instruction. */
  readonly tokenId: number;
  readonly hiddenSizes: readonly number[];
  /** Key of the first weights. */
  readonly seed: number;
}

/** The head that options ask for, its token found. */
export function rewardHeadOf(options: ResolvedRewardHead, tokenId: number): RewardHead {
  const { heads = options.names?.length ?? 1, hiddenSizes: sizes, token, seed } = options;
  const unnamed = heads === 1 ? ['overall'] : Array.from({ length: heads }, (_, i) => `head_${i}`);
  return {
    names: options.names ?? unnamed,
    heads,
    fusion: options.fusion,
    token: typeof token === 'string' ? token : undefined,
    tokenId,
    hiddenSizes: sizes,
    seed,
  };
}

/** Adds the head, with its first weights, to a model. After an adapter, so that it trains beside it. */
export async function attachRewardHead(native: NativeModel, head: RewardHead): Promise<void> {
  const { heads, tokenId, hiddenSizes: sizes, seed } = head;
  await native.attachRewardHead({ heads, token: tokenId, hiddenSizes: sizes, seed });
}

const configSchema = z.looseObject({
  dimensions: dimensionNames.refine(distinct),
  fusion,
  token: z.string().min(1).nullable(),
  token_id: z.number().int().min(0),
  hidden_sizes: hiddenSizes,
  seed: z.number().int().min(0).default(0),
});

/** The head that lies in a folder; undefined when none does. Errors: 'corrupt_checkpoint'. */
export async function readRewardHead(folder: string): Promise<RewardHead | undefined> {
  const config = await readOptionalJson(folder, rewardHeadConfigFile);
  if (config === undefined) return undefined;
  const path = join(folder, rewardHeadConfigFile);
  const parsed = configSchema.safeParse(config);
  if (!parsed.success) throw corruptFile(path, z.prettifyError(parsed.error).replaceAll('\n', '; '));
  const { dimensions, token, token_id: tokenId, hidden_sizes: sizes, seed } = parsed.data;
  return {
    names: dimensions,
    heads: dimensions.length,
    fusion: parsed.data.fusion,
    token: token ?? undefined,
    tokenId,
    hiddenSizes: sizes,
    seed,
  };
}

/** Writes the head's two files; its weights are fp32 whatever the model's dtype. */
export async function saveRewardHead(model: StoredModel, head: RewardHead, folder: string): Promise<void> {
  const { names, fusion: fused, token, tokenId, hiddenSizes: sizes, seed } = head;
  const config = {
    dimensions: names,
    fusion: fused,
    token: token ?? null,
    token_id: tokenId,
    hidden_sizes: sizes,
    seed,
  };
  await writeSynced(join(folder, rewardHeadConfigFile), `${JSON.stringify(config, null, 2)}\n`);
  const tensors = model.native
    .tensors()
    .filter(({ rewardHead }) => rewardHead)
    .map(({ name, shape }): PlannedTensor => ({ name, stored: name, kind: 'value', dtype: 'F32', shape }));
  await writeTensors(model, join(folder, rewardHeadWeightsFile), tensors, { format: 'pt' });
}

/**
 * Where the head's weights lie in a folder.
 * Errors: 'corrupt_checkpoint' for a file that is missing, or tensors that are missing, unexpected or of another shape.
 */
export async function rewardHeadSources(native: NativeModel, folder: string): Promise<NativeTensorSource[]> {
  const path = join(folder, rewardHeadWeightsFile);
  await access(path).catch((cause: unknown) => {
    throw corruptFile(path, 'it is missing, and the model has a reward head', cause);
  });
  const left = new Map((await readSafetensorsHeader(path)).tensors);
  const sources = native
    .tensors()
    .filter(({ rewardHead }) => rewardHead)
    .map(({ name, shape }): NativeTensorSource => {
      const entry = left.get(name);
      left.delete(name);
      if (entry === undefined) throw corruptFile(path, `"${name}" is missing`);
      const { dtype, offset, sizeBytes } = entry;
      if (dtype !== 'F32' || entry.shape.join() !== shape.join()) {
        throw corruptFile(
          path,
          `"${name}" is ${dtype} [${entry.shape.join(', ')}], not F32 [${shape.join(', ')}]: the head of another model`,
        );
      }
      return { name, kind: 'value', path: entry.path, offset, sizeBytes, dtype };
    });
  if (left.size > 0) throw corruptFile(path, `unexpected tensors: ${[...left.keys()].join(', ')}`);
  return sources;
}

export async function loadRewardHead(model: StoredModel, folder: string): Promise<void> {
  await readTensors(model, await rewardHeadSources(model.native, folder));
}

/**
 * That `folder` may be loaded into a model with `head`, or without one.
 * Errors: 'invalid_argument' when one of the two has a head and the other none, or another token.
 */
export async function checkStoredHead(head: RewardHead | undefined, folder: string): Promise<void> {
  const stored = await readRewardHead(folder);
  if (stored === undefined && head === undefined) return;
  if (stored === undefined || head === undefined) {
    throw new GavelError(
      'invalid_argument',
      `Expected a checkpoint ${head === undefined ? 'without' : 'with'} a reward head in "${folder}", as this model is, ` +
        'but received another. Load the folder with engine.loadModel().',
      { fields: { folder } },
    );
  }
  if (stored.tokenId === head.tokenId && stored.names.join('\n') === head.names.join('\n')) return;
  throw expected(
    'invalid_argument',
    rewardHeadConfigFile,
    `dimensions ${head.names.join(', ')} on token ${head.tokenId} in "${folder}"`,
    `${stored.names.join(', ')} on ${stored.tokenId}`,
    'Load the folder with engine.loadModel().',
    { folder },
  );
}
