/** Rows that cannot be used: what is reported of one, and the error it makes when it may not be left out. */
import { GavelError } from '../errors.js';

/** A row that could not be used. */
export interface BadRow {
  file: string;
  /** A line of a text file, counted from 1; a row of a Parquet file, counted from 0. */
  line: number;
  unit: 'line' | 'row';
  reason: string;
  /** Where it is not 'bad_data'. */
  code?: 'image_count_mismatch';
}

/** "data.jsonl:7" or "data.parquet row 7". */
export const placeOf = ({ file, line, unit }: Omit<BadRow, 'reason'>): string =>
  unit === 'line' ? `${file}:${line}` : `${file} row ${line}`;

/** `canSkip` false: the caller has no `onBadRow` to set. */
export function badRow(bad: BadRow, canSkip = true): GavelError {
  const { file, line, unit, reason, code = 'bad_data' } = bad;
  const advice = canSkip ? 'Correct the row, or set `onBadRow` to "skip".' : 'Correct the row, or leave it out.';
  return new GavelError(code, `Expected a valid row at ${placeOf(bad)} but received: ${reason}. ${advice}`, {
    fields: { file, [unit]: line, reason },
  });
}
