/** A seeded generator of numbers in [0, 1) for bulk data; fast-check draws the structure. Numerical Recipes' congruence. */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 4294967296;
  };
}
