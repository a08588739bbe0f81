/**
 * Scores of rows without generation: the reward token stands behind the prompt, and one forward reads its head. Many rows go
 * in packed batches; a score is the same bit for bit in any batch.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { EncodedRow } from '../data/processor.js';
import { rowsSchema, type Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import type { RewardHead } from '../engine/reward-head.js';
import type { Model } from '../engine/model.js';
import { GavelError } from '../errors.js';
import type { Policy } from './policy.js';

/** The score of one row. */
export interface RowScore {
  /** Mean and standard deviation of each head, in the order of `model.rewardHead.names`. */
  mu: number[];
  sigma: number[];
  /** The heads as one score. */
  fused: { mu: number; sigma: number };
}

/** The reward head of a model. Errors: 'invalid_argument' for a model without one. */
export function rewardHeadOf(model: Model): RewardHead {
  if (model.rewardHead !== undefined) return model.rewardHead;
  throw new GavelError(
    'invalid_argument',
    'Expected a model with a reward head but this one has none. Load a checkpoint that was saved with one, or give the option ' +
      '`rewardHead` (in run.yaml `model.rewardHead`) and train it by the recipe `joint` (docs/training.md).',
  );
}

/**
 * A row as the group that a scorer reads and joint training trains: prompt, reward token, then the rationale when there is
 * one. The causal mask keeps the reward token from seeing it.
 */
export function scoredGroup(row: EncodedRow, tokenId: number, withCompletion: boolean): NativeGroup {
  const promptTokens = new Int32Array(row.promptTokens.length + 1);
  promptTokens.set(row.promptTokens);
  promptTokens[row.promptTokens.length] = tokenId;
  const tokens = withCompletion ? row.completionTokens : undefined;
  return {
    promptTokens,
    images: row.images,
    completions: tokens === undefined || tokens.length === 0 ? [] : [{ tokens }],
  };
}

export interface ScoreRowsOptions {
  signal: AbortSignal;
  /** Gets the hidden states at the reward token, [rows, hidden]. */
  states?: (states: Float32Array) => void;
}

/** Scores rows in their order. Errors: those of encoding and of `model.score`. */
export async function scoreRows(
  policy: Policy,
  rows: readonly Row[],
  options: Partial<ScoreRowsOptions> = {},
): Promise<RowScore[]> {
  parseOptions(rowsSchema, rows, 'rows');
  const { signal = new AbortController().signal, ...rest } = options;
  return scoreEncoded(policy, await encodeScored(policy, rows, signal), { signal, ...rest });
}

/** Rows as `scoreEncoded` takes them: without their completions, which a score never reads. */
export function encodeScored(policy: Policy, rows: readonly Row[], signal: AbortSignal): Promise<EncodedRow[]> {
  return policy.encode(
    rows.map(({ completion: _completion, ...row }) => row),
    signal,
  );
}

/** The same of rows that are encoded already. */
export async function scoreEncoded(
  policy: Policy,
  encoded: readonly EncodedRow[],
  { signal, states }: ScoreRowsOptions,
): Promise<RowScore[]> {
  const head = rewardHeadOf(policy.model);
  const groups = encoded.map((row) => scoredGroup(row, head.tokenId, false));
  const scores = await policy.model.score(groups, { states: states !== undefined, signal });
  if (states !== undefined) states(scores.states);
  const heads = scores.heads;
  return encoded.map((_, i) => {
    const mu = [...scores.mu.subarray(i * heads, (i + 1) * heads)];
    const sigma = [...scores.logSigma.subarray(i * heads, (i + 1) * heads)].map(Math.exp);
    return { mu, sigma, fused: fuseHeads(mu, sigma, head.fusion) };
  });
}

/**
 * Several heads as one Gaussian score: the mean or the sum of independent ones, or the head of the least mean.
 */
export function fuseHeads(
  mu: readonly number[],
  sigma: readonly number[],
  fusion: RewardHead['fusion'],
): { mu: number; sigma: number } {
  const sum = mu.reduce((total, one) => total + one, 0);
  const spread = Math.hypot(...sigma);
  if (fusion === 'sum') return { mu: sum, sigma: spread };
  if (fusion === 'mean') return { mu: sum / mu.length, sigma: spread / mu.length };
  const least = mu.indexOf(Math.min(...mu));
  return { mu: mu[least]!, sigma: sigma[least]! };
}
