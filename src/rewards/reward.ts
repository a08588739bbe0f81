/**
 * Reward functions: what they get, what they may return, and how a list of them is evaluated. A reward that is not a finite
 * number stops the run with the function and the item named: it is never turned into a zero.
 */
import type { Row } from '../data/rows.js';
import { GavelError, expected } from '../errors.js';

/** One completion to be judged. `tokens` are the sampled ids, `completion` their text without special tokens. */
export interface RewardInput {
  row: Row;
  completion: string;
  tokens: Int32Array;
  /** Why sampling ended, for example "stop" or "length". */
  finishReason: string;
}

/** A finite number, or null where the function has no opinion (the reward is then missing, not zero). */
export type RewardFunction = (input: RewardInput) => number | null | Promise<number | null>;

/** A reward function with the name it has in metrics and its weight in the sum. */
export interface NamedReward {
  name: string;
  reward: RewardFunction;
  /** 1 by default. */
  weight?: number;
}

/** Rewards by completion, then by function; null is missing. */
export interface RewardTable {
  names: string[];
  weights: number[];
  values: (number | null)[][];
}

/** Throws 'invalid_config' for no function, two of one name, or a weight that is not finite. */
export function checkRewards(rewards: readonly NamedReward[]): void {
  const names = rewards.map(({ name }) => name);
  if (rewards.length === 0) throw expected('invalid_config', 'rewards', 'at least one reward function', 'none');
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw expected('invalid_config', 'rewards', 'distinct names', twice, 'Rename one of the functions.');
  for (const { name, weight = 1 } of rewards) {
    if (!Number.isFinite(weight)) throw expected('invalid_config', `rewards.${name}.weight`, 'a finite number', weight);
  }
}

/**
 * Applies every function to every completion; asynchronous functions run side by side. NaN, an infinity or a non-number
 * throws 'non_finite', naming the function and the item; what a function itself throws passes through.
 */
export async function evaluateRewards(
  rewards: readonly NamedReward[],
  inputs: readonly RewardInput[],
): Promise<RewardTable> {
  checkRewards(rewards);
  const values = await Promise.all(
    inputs.map((input) =>
      Promise.all(rewards.map(async ({ name, reward }) => checkReward(name, input, await reward(input)))),
    ),
  );
  return { names: rewards.map(({ name }) => name), weights: rewards.map(({ weight = 1 }) => weight), values };
}

function checkReward(name: string, input: RewardInput, value: unknown): number | null {
  if (value === null || (typeof value === 'number' && Number.isFinite(value))) return value;
  const received = typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? typeof value);
  throw new GavelError(
    'non_finite',
    `Expected a finite number or null from reward function "${name}" for item "${input.row.id}" but received ${received}. ` +
      'Return null where there is no reward.',
    { fields: { reward: name, id: input.row.id, received } },
  );
}
