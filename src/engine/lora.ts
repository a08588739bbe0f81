/**
 * Low-rank adapters: which linear layers get one, and how. LoRA (Hu et al. 2021), rsLoRA (Kalajdzievski 2023); names and
 * meanings are those of PEFT.
 */
import { z } from 'zod';
import type { NativeModel, NativeTensorInfo } from '../binding/contract.js';
import { expected, GavelError } from '../errors.js';
import { partOf } from './tensor-parts.js';
import { canonicalName } from './tensor-names.js';

export const loraOptionsSchema = z
  .strictObject({
    rank: z.number().int().min(0).max(4096).default(16).describe('Width r of A and B; 0 trains tokens alone.'),
    alpha: z.number().positive().optional().describe('The product is scaled by alpha / rank. Default: 2 * rank.'),
    rankStabilized: z.boolean().default(false).describe('Scale by alpha / sqrt(rank) instead (rsLoRA).'),
    dropout: z.number().min(0).lt(1).default(0).describe('Dropout of the input of A, in supervised training alone.'),
    targets: z
      .union([z.literal('all-linear'), z.array(z.string().min(1)).min(1)])
      .default('all-linear')
      .describe(
        "Layers that get an adapter: 'all-linear' is every linear layer but the head; else patterns, each a dotted part of a name ('q_proj', 'layers.0.mlp', 'visual'), '*' for one part.",
      ),
    vision: z.boolean().default(true).describe('Whether layers of the vision tower and projector may get one.'),
    exclude: z.array(z.string().min(1)).default([]).describe('Patterns of layers that get none.'),
    trainableTokens: z
      .array(z.number().int().min(0))
      .default([])
      .describe('Rows of the embedding that train as well, for example of a reward token.'),
    seed: z.number().int().min(0).default(0).describe('Key of the first weights and of dropout.'),
  })
  .refine(({ rank, trainableTokens }) => rank > 0 || trainableTokens.length > 0, {
    path: ['rank'],
    error: 'rank 0 trains `trainableTokens` alone, and none are named: nothing would train',
  })
  .describe('A low-rank adapter: the base model is frozen, and is its own reference policy with the adapter off.');

export type LoraOptions = z.input<typeof loraOptionsSchema>;
export type ResolvedLora = z.output<typeof loraOptionsSchema>;

/** Whether a dotted pattern is a run of whole parts of `name`; '*' stands for one part. */
export function matchesPattern(name: string, pattern: string): boolean {
  const parts = name.split('.');
  const wanted = pattern.split('.');
  return parts.some(
    (_, start) =>
      start + wanted.length <= parts.length && wanted.every((part, i) => part === '*' || part === parts[start + i]),
  );
}

/** The weights of linear layers that may have an adapter: every matrix but the head and the patch embedding. */
export function linearWeights(tensors: readonly NativeTensorInfo[]): string[] {
  return tensors
    .filter(
      ({ name, kind, adapter, rewardHead }) => kind === 'matrix' && !adapter && !rewardHead && name.endsWith('.weight'),
    )
    .map(({ name }) => name)
    .filter((name) => !/(^|\.)(lm_head|patch_embed|patch_embedding)\./.test(name));
}

/** Whether a tensor belongs to the vision tower or its projector. */
export const isVision = (name: string): boolean => {
  const part = partOf(name);
  return part === 'vision' || part === 'projector';
};

/** Tensors that `patterns` name. Errors: 'invalid_argument' for a pattern that names none. */
export function namesMatching(names: readonly string[], patterns: readonly string[], option: string): string[] {
  const matches = (name: string, pattern: string): boolean =>
    matchesPattern(name, pattern) || matchesPattern(canonicalName(name), pattern);
  for (const pattern of patterns) {
    if (names.some((name) => matches(name, pattern))) continue;
    const examples = names.slice(0, 3).join(', ');
    throw expected(
      'invalid_argument',
      option,
      `patterns of this model's tensors (${examples} ...)`,
      pattern,
      'Name a dotted part of one: `gavel inspect` lists them.',
    );
  }
  return names.filter((name) => patterns.some((pattern) => matches(name, pattern)));
}

/** The weights that `lora` adapts. */
export function adapterTargets(tensors: readonly NativeTensorInfo[], lora: ResolvedLora): string[] {
  if (lora.rank === 0) return [];
  const all = linearWeights(tensors).filter((name) => lora.vision || !isVision(name));
  const layers = (names: readonly string[]): string[] => names.map((name) => name.slice(0, -'.weight'.length));
  const chosen = lora.targets === 'all-linear' ? layers(all) : namesMatching(layers(all), lora.targets, 'lora.targets');
  const excluded = new Set(lora.exclude.length === 0 ? [] : namesMatching(layers(all), lora.exclude, 'lora.exclude'));
  const kept = chosen.filter((name) => !excluded.has(name)).map((name) => `${name}.weight`);
  if (kept.length === 0) {
    throw new GavelError(
      'invalid_argument',
      'Expected `lora.targets` to leave at least one layer but `lora.exclude` names them all.',
    );
  }
  return kept;
}

/** An adapted layer: the name of its weight, its rank, and its alpha. */
export interface AdapterLayer {
  weight: string;
  rank: number;
  alpha: number;
}

/** The adapter of a model. */
export interface Adapter {
  layers: AdapterLayer[];
  rankStabilized: boolean;
  dropout: number;
  seed: number;
  /** Ascending. */
  trainableTokens: number[];
}

/** The adapter that `lora` asks for. Errors: 'invalid_argument' for patterns that name nothing. */
export function adapterOf(tensors: readonly NativeTensorInfo[], lora: ResolvedLora): Adapter {
  const { rank, alpha = 2 * rank, rankStabilized, dropout, seed, trainableTokens } = lora;
  const layers = adapterTargets(tensors, lora).map((weight) => ({ weight, rank, alpha }));
  return { layers, rankStabilized, dropout, seed, trainableTokens: [...trainableTokens].sort((a, b) => a - b) };
}

/** Adds a fresh adapter, whose product is 0, to a model; the base is frozen from then on. */
export async function attachAdapter(native: NativeModel, adapter: Adapter): Promise<Adapter> {
  const { layers, rankStabilized, dropout, seed, trainableTokens } = adapter;
  await native.attachAdapter({
    targets: layers.map(({ weight, rank, alpha }) => ({
      name: weight,
      rank,
      scale: alpha / (rankStabilized ? Math.sqrt(rank) : rank),
    })),
    dropout,
    seed,
    trainableTokens: Int32Array.from(trainableTokens),
  });
  return adapter;
}
