/**
 * A keyed permutation of indices by a Feistel network that walks its cycles until it is back below `size` (Black and Rogaway,
 * 2002): the order of an epoch in O(1) memory.
 */
import { expected } from '../errors.js';

const rounds = 8;

// The finaliser of MurmurHash3: every input bit reaches every output bit.
function mix(value: number): number {
  let h = value | 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function roundKeys(seed: number, epoch: number): Uint32Array {
  const keys = new Uint32Array(rounds);
  let state = mix((seed >>> 0) ^ 0x9e3779b9);
  state = mix(state ^ Math.floor(seed / 2 ** 32));
  state = mix(state ^ Math.imul(epoch, 0x27d4eb2f));
  for (let round = 0; round < rounds; round++) keys[round] = state = mix(state + 0x9e3779b9 + round);
  return keys;
}

/** Where index `position` of epoch `epoch` points: a permutation of 0..size-1 for every seed and epoch. */
export function permutedIndex(position: number, size: number, seed: number, epoch = 0): number {
  return permutation(size, seed, epoch)(position);
}

/**
 * The permutation of one epoch as a function. `size` from 1 to 2^40, `seed` and `epoch` integers >= 0; others throw
 * 'invalid_argument'.
 */
export function permutation(size: number, seed: number, epoch = 0): (position: number) => number {
  for (const [name, value, least] of [
    ['size', size, 1],
    ['seed', seed, 0],
    ['epoch', epoch, 0],
  ] as const) {
    if (!Number.isSafeInteger(value) || value < least)
      throw expected('invalid_argument', name, `an integer >= ${least}`, value);
  }
  if (size > 2 ** 40) throw expected('invalid_argument', 'size', 'at most 2^40', size, 'Split the data set.');
  const halfBits = Math.max(1, Math.ceil(Math.log2(size) / 2));
  const half = 2 ** halfBits;
  const keys = roundKeys(seed, epoch);
  return (position) => {
    if (!Number.isInteger(position) || position < 0 || position >= size) {
      throw expected('invalid_argument', 'position', `an integer from 0 to ${size - 1}`, position);
    }
    let value = position;
    do {
      let left = Math.floor(value / half);
      let right = value % half;
      for (const key of keys) [left, right] = [right, left ^ (mix(right ^ key) & (half - 1))];
      value = left * half + right;
    } while (value >= size);
    return value;
  };
}
