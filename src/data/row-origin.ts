/**
 * Where the rows of files stand, kept beside them: recipes make new rows of a file's pictures, and an error at use must still
 * name file and line. Keyed by the pictures themselves, so it lasts as long as they do.
 */
import { placeOf, type BadRow } from './bad-row.js';
import type { PlainError } from './plain-error.js';
import type { Row } from './rows.js';

type Place = Omit<BadRow, 'reason'>;

const places = new WeakMap<object, Place>();

/** Notes that a row stands at `place`. */
export function setOrigin({ images, videos = [] }: Pick<Row, 'images' | 'videos'>, place: Place): void {
  for (const key of [images, ...images, ...videos]) places.set(key, place);
}

/** Where a row, or else its first picture that comes from a file of rows, stands. */
export function originOf({ images, videos = [] }: Pick<Row, 'images' | 'videos'>): Place | undefined {
  for (const key of [images, ...images, ...videos]) {
    const place = places.get(key);
    if (place !== undefined) return place;
  }
  return undefined;
}

/** The error of a row with the place it stands at, where that is known. */
export function withOrigin(error: PlainError, row: Pick<Row, 'images' | 'videos'>): PlainError {
  const place = originOf(row);
  if (place === undefined) return error;
  const { file, line, unit } = place;
  return {
    ...error,
    message: `${error.message} The row stands at ${placeOf(place)}.`,
    fields: { ...error.fields, file, [unit]: line },
  };
}
