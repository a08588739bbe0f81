/**
 * Numbers that depend on their key alone (murmur3's 32-bit finaliser over the key's words), so that a choice never depends
 * on order, batch or thread. Good for choices and resampling; token sampling has its own generator in the engine.
 */

function mix(hash: number, word: number): number {
  let h = Math.imul(hash ^ word, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  h ^= h >>> 16;
  return (h + 0x9e3779b9) | 0;
}

/** FNV-1a of a name, as one key word. */
export function nameKey(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return hash >>> 0;
}

/** An unsigned 32-bit number of the key (seed, ...words). */
export function seededWord(seed: number, ...words: number[]): number {
  let hash = mix(0x27d4eb2f, seed | 0);
  for (const word of words) hash = mix(hash, word | 0);
  return mix(hash, words.length) >>> 0;
}

/** Uniform in [0, 1), of the key (seed, ...words). */
export function seededUnit(seed: number, ...words: number[]): number {
  return seededWord(seed, ...words) / 0x1_0000_0000;
}

/** `seededUnit(seed, word, i)` as a function of i, for long loops. */
export function seededUnits(seed: number, word: number): (i: number) => number {
  const hash = mix(mix(0x27d4eb2f, seed | 0), word | 0);
  return (i) => (mix(mix(hash, i | 0), 2) >>> 0) / 0x1_0000_0000;
}
