/** The soft penalty of overlong completions (DAPO, Yu et al. 2025, equation 13): cutting off alone is a noisy signal. */
import { expected } from '../errors.js';
import type { RewardFunction } from './reward.js';

/**
 * A reward in [-1, 0] by the length L of a completion in tokens, with M = `maxCompletionLength` and B = `buffer`:
 * 0 where L <= M - B, (M - B - L) / B where M - B < L <= M, and -1 beyond. Give it the limit that sampling has: a truncated
 * completion then gets -1. Errors: 'invalid_argument' unless both are integers and 1 <= buffer <= maxCompletionLength.
 */
export function overlongPenalty(options: { maxCompletionLength: number; buffer: number }): RewardFunction {
  const { maxCompletionLength, buffer } = options;
  if (!Number.isSafeInteger(maxCompletionLength) || maxCompletionLength < 1) {
    throw expected('invalid_argument', 'maxCompletionLength', 'an integer >= 1', maxCompletionLength);
  }
  if (!Number.isSafeInteger(buffer) || buffer < 1 || buffer > maxCompletionLength) {
    throw expected('invalid_argument', 'buffer', `an integer from 1 to ${maxCompletionLength}`, buffer);
  }
  const free = maxCompletionLength - buffer;
  return ({ tokens }) => {
    if (tokens.length <= free) return 0;
    return Math.max(-1, (free - tokens.length) / buffer);
  };
}
