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
