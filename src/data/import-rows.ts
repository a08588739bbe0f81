/** One parsed JSON value to a row of the project's own form, whatever form it has (formats.ts). */
import { importRecord, type DataFormat } from './formats.js';
import { marksRefusal, type ImportResult } from './imported-row.js';

export type { ImportResult, ImportedRow, Refusal } from './imported-row.js';

/** Reads one parsed JSON value; a preference pair and a wrong number of marks are refused. */
export function importRow(value: unknown, format?: DataFormat): ImportResult {
  const result = importRecord(value, format);
  if ('reason' in result) return { reason: result.reason };
  if ('pair' in result) return { reason: `a preference pair (${result.format}), not a row` };
  return marksRefusal(result.row) ?? { row: result.row };
}
