/** What a reward head says of the reward tokens of a call, and how its heads become one number. */
import type { NativeScores } from '../binding/contract.js';
import type { HeadFusion } from './reward-head.js';

/** [S] rewards: of each score the mean, the least or the sum of its heads' mu. */
export function fuseScores(
  { mu, heads, count }: Pick<NativeScores, 'mu' | 'heads' | 'count'>,
  fusion: HeadFusion,
): Float32Array {
  return Float32Array.from({ length: count }, (_, score) => {
    const own = mu.subarray(score * heads, (score + 1) * heads);
    if (fusion === 'min') return own.reduce((least, value) => (value < least ? value : least), own[0]!);
    const sum = own.reduce((total, value) => total + value, 0);
    return fusion === 'sum' ? sum : sum / heads;
  });
}

/** Scores of a call, by group, a prompt before its completions. S reward tokens, H heads. */
export interface Scores extends NativeScores {
  /** [S] heads fused as the model's reward head says. */
  rewards: Float32Array;
}
