/**
 * Rewards to advantages, in double. Rules: A = (r - mean) / (std + 1e-4) with std over n-1, by group or over the batch; none
 * leaves out the division; leave-one-out; normalize_then_sum (GDPO). A missing reward is left out of every statistic.
 */
import { expected } from '../errors.js';

const eps = 1e-4;

export interface AdvantageOptions {
  /** Completions per group, all groups alike; or `groupOffsets`, the first row of each group and at the end the number of rows. */
  groupSize?: number;
  groupOffsets?: readonly number[];
  /** One weight per reward function; all 1 by default. */
  weights?: readonly number[];
  /** What the difference is divided by: 'group' (default) or 'batch' standard deviation, or 'none'. */
  scaleRewards?: 'group' | 'batch' | 'none';
  /** What is subtracted: the 'group_mean' (default), or the mean of the others in the group ('leave_one_out', RLOO). */
  baseline?: 'group_mean' | 'leave_one_out';
  /** 'sum_then_normalize' (default); 'normalize_then_sum' scores each function within the group first, and sets the rest. */
  aggregation?: 'sum_then_normalize' | 'normalize_then_sum';
}

/** One number per row, and what the metrics report. */
export interface Advantages {
  /** [rows]; 0 for a row without any reward. */
  advantages: Float64Array;
  /** Weighted sum of each row's rewards [rows]; NaN for a row without any. */
  rewards: Float64Array;
  /** Mean and standard deviation of the rewards of each group [groups]; NaN where too few are present. */
  groupMeans: Float64Array;
  groupStds: Float64Array;
  /** Share of rows whose group has a standard deviation of 0 (within 1e-8): such rows teach nothing. */
  fracRewardZeroStd: number;
}

/** Computes advantages from `table` [rows][functions], where null is missing. Errors: 'invalid_argument'. */
export function computeAdvantages(
  table: readonly (readonly (number | null)[])[],
  options: AdvantageOptions,
): Advantages {
  const { scaleRewards = 'group', baseline = 'group_mean', aggregation = 'sum_then_normalize' } = options;
  const offsets = groupOffsets(table.length, options);
  const weights = options.weights ?? table[0]!.map(() => 1);
  checkTable(table, weights);
  const rewards = Float64Array.from(table, (row) => weightedSum(row, weights));
  const groups = offsets.slice(1).map((end, group) => rewards.subarray(offsets[group], end));
  const groupMeans = Float64Array.from(groups, mean);
  const groupStds = Float64Array.from(groups, deviation);
  let advantages: Float64Array;
  if (aggregation === 'normalize_then_sum') {
    if (options.scaleRewards !== undefined || options.baseline !== undefined) {
      throw expected(
        'invalid_argument',
        'aggregation',
        'normalize_then_sum without scaleRewards and baseline',
        'both',
        'It sets its own.',
      );
    }
    advantages = normalizeThenSum(table, weights, rewards, offsets);
  } else {
    const batchStd = deviation(rewards);
    advantages = new Float64Array(rewards.length);
    groups.forEach((group, g) => {
      const scale = scaleRewards === 'none' ? 1 : (scaleRewards === 'batch' ? batchStd : groupStds[g]!) + eps;
      group.forEach((reward, i) => {
        const center = baseline === 'leave_one_out' ? meanOfOthers(group, i) : groupMeans[g]!;
        advantages[offsets[g]! + i] = (reward - center) / scale;
      });
    });
  }
  // Rows without a reward, and groups too small for a statistic, have no opinion.
  for (let i = 0; i < advantages.length; i++) if (Number.isNaN(advantages[i]!)) advantages[i] = 0;
  return {
    advantages,
    rewards,
    groupMeans,
    groupStds,
    fracRewardZeroStd: zeroStdShare(groups, groupStds, rewards.length),
  };
}

function normalizeThenSum(
  table: readonly (readonly (number | null)[])[],
  weights: readonly number[],
  rewards: Float64Array,
  offsets: readonly number[],
): Float64Array {
  const sums = new Float64Array(table.length);
  for (const [k, weight] of weights.entries()) {
    const column = Float64Array.from(table, (row) => row[k] ?? NaN);
    for (let g = 0; g + 1 < offsets.length; g++) {
      const group = column.subarray(offsets[g], offsets[g + 1]);
      const center = mean(group);
      const scale = deviation(group) + eps;
      group.forEach((value, i) => {
        const score = (value - center) / scale;
        if (!Number.isNaN(score)) sums[offsets[g]! + i]! += weight * score;
      });
    }
  }
  for (let i = 0; i < sums.length; i++) if (Number.isNaN(rewards[i]!)) sums[i] = NaN;
  const center = mean(sums);
  const scale = deviation(sums) + eps;
  return sums.map((sum) => (sum - center) / scale);
}

function groupOffsets(numRows: number, { groupSize, groupOffsets: given }: AdvantageOptions): readonly number[] {
  if (numRows === 0) throw expected('invalid_argument', 'rewards', 'at least one row', 0);
  if ((groupSize === undefined) === (given === undefined)) {
    throw expected(
      'invalid_argument',
      'groupSize',
      'either groupSize or groupOffsets',
      groupSize === undefined ? 'neither' : 'both',
    );
  }
  if (given !== undefined) {
    const rising = given.every(
      (offset, i) => Number.isInteger(offset) && (i === 0 ? offset === 0 : offset > given[i - 1]!),
    );
    if (rising && given.length > 1 && given.at(-1) === numRows) return given;
    throw expected('invalid_argument', 'groupOffsets', `rising offsets from 0 to ${numRows}`, `[${given.join(', ')}]`);
  }
  if (!Number.isInteger(groupSize) || groupSize! < 2) {
    throw expected(
      'invalid_argument',
      'groupSize',
      'an integer >= 2',
      groupSize,
      'A group of one has no relative advantage.',
    );
  }
  if (numRows % groupSize! !== 0) {
    throw expected(
      'invalid_argument',
      'rewards',
      `a multiple of groupSize ${groupSize} rows`,
      numRows,
      'Pass whole groups.',
    );
  }
  return Array.from({ length: numRows / groupSize! + 1 }, (_, group) => group * groupSize!);
}

function checkTable(table: readonly (readonly (number | null)[])[], weights: readonly number[]): void {
  for (const [i, row] of table.entries()) {
    if (row.length !== weights.length) {
      throw expected('invalid_argument', `rewards[${i}]`, `${weights.length} rewards, one a weight`, row.length);
    }
    const bad = row.find((value) => value !== null && !Number.isFinite(value));
    if (bad !== undefined)
      throw expected('non_finite', `rewards[${i}]`, 'finite numbers or null', bad, 'Use null for missing.');
  }
}

function weightedSum(row: readonly (number | null)[], weights: readonly number[]): number {
  let sum = 0;
  let present = false;
  for (const [k, value] of row.entries()) {
    if (value === null) continue;
    sum += value * weights[k]!;
    present = true;
  }
  return present ? sum : NaN;
}

function mean(values: Float64Array): number {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    sum += value;
    count++;
  }
  return sum / count;
}

function deviation(values: Float64Array): number {
  const center = mean(values);
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    sum += (value - center) ** 2;
    count++;
  }
  return count < 2 ? NaN : Math.sqrt(sum / (count - 1));
}

function meanOfOthers(group: Float64Array, index: number): number {
  return mean(group.filter((_, i) => i !== index));
}

function zeroStdShare(groups: readonly Float64Array[], stds: Float64Array, numRows: number): number {
  let rows = 0;
  groups.forEach((group, g) => {
    if (stds[g]! <= 1e-8) rows += group.length;
  });
  return rows / numRows;
}
