/** The nearest valid name to a mistyped one, by edit distance. */

/** Levenshtein distance: insertions, deletions and substitutions cost 1. */
export function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substituted = previous[j - 1]! + Number(a[i - 1] !== b[j - 1]);
      current.push(Math.min(substituted, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}

/** The valid name closest to `name`, case ignored; undefined when none is within half its length. */
export function nearestName(name: string, valid: readonly string[]): string | undefined {
  let best: string | undefined;
  let distance = Math.max(1, Math.floor(name.length / 2)) + 1;
  for (const candidate of valid) {
    const found = editDistance(name.toLowerCase(), candidate.toLowerCase());
    if (found < distance) [best, distance] = [candidate, found];
  }
  return best;
}
