/** Rows that cannot be used: what is reported of one, and the error it makes when it may not be left out. */
import { GavelError } from '../errors.js';

/** A row that could not be used. */
export interface BadRow {
  file: string;
  /** A line of a text file, counted from 1; a row of a Parquet file, counted from 0. */
  line: number;
  unit: 'line' | 'row';
  reason: string;
}

/** "data.jsonl:7" or "data.parquet row 7". */
export const placeOf = ({ file, line, unit }: Omit<BadRow, 'reason'>): string =>
  unit === 'line' ? `${file}:${line}` : `${file} row ${line}`;

export function badRow(bad: BadRow): GavelError {
  const { file, line, unit, reason } = bad;
  return new GavelError(
    'bad_data',
    `Expected a valid row at ${placeOf(bad)} but received: ${reason}. Correct the row, or set \`onBadRow\` to "skip".`,
    { fields: { file, [unit]: line, reason } },
  );
}
