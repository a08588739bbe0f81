/**
 * JSON.parse keeps the last of two equal keys without a word; formats that forbid duplicates need to see them.
 */

/** The first key that stands twice in one object of `json`, at any depth, or undefined. `json` must already parse. */
export function findDuplicateKey(json: string): string | undefined {
  const scopes: (Set<string> | null)[] = [];
  let expectKey = false;
  for (let at = 0; at < json.length; at++) {
    switch (json.charCodeAt(at)) {
      case 0x7b: // {
        scopes.push(new Set());
        expectKey = true;
        break;
      case 0x5b: // [
        scopes.push(null);
        expectKey = false;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        scopes.pop();
        expectKey = false;
        break;
      case 0x2c: // ,
        expectKey = scopes.at(-1) != null;
        break;
      case 0x22: {
        const start = at;
        for (at++; json.charCodeAt(at) !== 0x22; at++) if (json.charCodeAt(at) === 0x5c) at++;
        if (!expectKey) break;
        expectKey = false;
        const key = JSON.parse(json.slice(start, at + 1)) as string;
        const scope = scopes.at(-1);
        if (scope?.has(key)) return key;
        scope?.add(key);
        break;
      }
    }
  }
  return undefined;
}
