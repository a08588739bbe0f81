/** A checked pair of a file to a pair that recipes take. */
import type { BadRow } from './bad-row.js';
import { withBytes } from './embedded.js';
import type { Embedded, MediaFolder } from './media-folder.js';
import type { PairRow } from './pairs.js';
import type { CheckedRecord } from './read-record.js';

type CheckedPair = Extract<CheckedRecord, { pair: unknown }>['pair'];

export async function pairOf(
  { id, first, second, preference, dimensions, scores, meta }: CheckedPair,
  media: MediaFolder,
  place: Omit<BadRow, 'reason'>,
  embedded: Embedded = [],
): Promise<PairRow> {
  const pair: PairRow = {
    id,
    first: await media.row(first, place, embedded),
    second: await media.row(second, place, embedded),
    preference,
  };
  if (dimensions !== undefined) pair.dimensions = dimensions;
  if (scores !== undefined) pair.scores = scores;
  if (meta !== undefined) pair.meta = embedded.length > 0 ? withBytes(meta, embedded) : meta;
  return pair;
}
