/**
 * Counter-based random numbers for the composed pictures: Philox 4x32-10 (Salmon et al., SC 2011).
 * A stream is named by (seed, split, index, purpose) and holds no hidden state, so any item of any split can be made
 * alone, in any order and on any thread, and is always the same item.
 */
const multiplier0 = 0xd2511f53;
const multiplier1 = 0xcd9e8d57;
const weyl0 = 0x9e3779b9;
const weyl1 = 0xbb67ae85;

/** High 32 bits of the product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carry = aLow * bHigh + (middle & 0xffff);
  return aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(carry / 0x10000);
}

/** One Philox 4x32-10 block: four unsigned 32-bit outputs of a 128-bit counter and a 64-bit key. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(multiplier0, c0);
    const low0 = Math.imul(multiplier0, c0) >>> 0;
    const high1 = multiplyHigh(multiplier1, c2);
    const low1 = Math.imul(multiplier1, c2) >>> 0;
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + weyl0) >>> 0;
    k1 = (k1 + weyl1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** FNV-1a, to turn the name of a split or purpose into one word of the counter. */
export function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** A stream of numbers that depends on its four names alone. */
export class CounterRandom {
  private readonly key: readonly [number, number];
  private readonly purpose: number;
  private block = 0;
  private words: readonly number[] = [];
  private position = 0;

  constructor(
    seed: number,
    split: string,
    private readonly index: number,
    purpose: string,
  ) {
    this.key = [seed >>> 0, hashName(split)];
    this.purpose = hashName(purpose);
  }

  /** The next unsigned 32-bit number. */
  word(): number {
    if (this.position === this.words.length) {
      this.words = philox4x32([this.block++, this.index >>> 0, this.purpose, 0], this.key);
      this.position = 0;
    }
    return this.words[this.position++] as number;
  }

  /** Uniform in [0, 1). */
  unit(): number {
    return this.word() / 0x100000000;
  }

  /** Uniform integer in [0, bound). */
  below(bound: number): number {
    return Math.floor(this.unit() * bound);
  }

  /** A uniformly drawn element; `list` is not empty. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)] as T;
  }

  /** `count` different elements in random order (Fisher-Yates on a copy). */
  sample<T>(list: readonly T[], count: number): T[] {
    const copy = [...list];
    for (let i = 0; i < count; i++) {
      const j = i + this.below(copy.length - i);
      [copy[i], copy[j]] = [copy[j] as T, copy[i] as T];
    }
    return copy.slice(0, count);
  }
}
