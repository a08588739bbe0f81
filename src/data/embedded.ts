/**
 * Pictures inside a record: importers know paths only, so the bytes travel beside the record and a token stands for them. The
 * token holds a NUL, which no path has; one that names no picture of its own record is refused.
 */
const prefix = '\0embedded:';

/** The token of the index-th picture of a record. */
export const embeddedToken = (index: number): string => `${prefix}${index}`;

/** Which picture a token stands for; undefined for a path. */
export function embeddedIndex(text: string): number | undefined {
  if (!text.startsWith(prefix)) return undefined;
  const index = Number(text.slice(prefix.length));
  return Number.isSafeInteger(index) && index >= 0 ? index : Infinity;
}

/** True when a token stands somewhere in plain data: then bytes lie where text belongs. */
export const holdsToken = (value: unknown): boolean =>
  typeof value === 'string'
    ? value.startsWith(prefix)
    : typeof value === 'object' && value !== null && Object.values(value).some(holdsToken);

/** Plain data with the bytes in place of their tokens. */
export function withBytes<T>(value: T, embedded: readonly Uint8Array[]): T {
  if (typeof value === 'string') return (embedded[embeddedIndex(value) ?? Infinity] ?? value) as T;
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map((item: unknown) => withBytes(item, embedded)) as T;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withBytes(item, embedded)])) as T;
}
