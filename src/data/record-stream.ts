/**
 * Rows or preference pairs of JSON Lines (or of one JSON array) that arrive in pieces, as from a pipe: what a piece completes
 * is given at once. Nothing is kept, so ids are not compared with earlier ones.
 */
import { badRow } from './bad-row.js';
import { parseRow } from './jsonl.js';
import { MediaFolder } from './media-folder.js';
import { mixedKinds } from './open-records.js';
import { pairOf } from './pair-of.js';
import type { PairRow } from './pairs.js';
import { readRecord, type CheckedRecord } from './read-record.js';
import { RowScanner } from './row-scanner.js';
import type { Row } from './rows.js';

/** One of the two is empty. */
export interface StreamedRecords {
  rows: Row[];
  pairs: PairRow[];
}

interface Found {
  record: CheckedRecord;
  line: number;
}

/**
 * Records in order, those of a piece together. `name` stands for a file in messages and default ids; relative paths start from
 * `folder`. Errors: 'bad_data' with the line for a bad record, rows and pairs in one stream, and a JSON array that does not end.
 */
export async function* streamRecords(
  source: AsyncIterable<Buffer>,
  { name, folder }: { name: string; folder: string },
): AsyncGenerator<StreamedRecords, void, undefined> {
  const media = new MediaFolder(folder);
  const found: Found[] = [];
  const lines: { row?: number; pair?: number } = {};
  let before = { line: 0, nth: 0 };
  const placeOf = (line: number) => ({ file: name, line, unit: 'line' as const });
  const refusal = (line: number) => (reason: string) => badRow({ ...placeOf(line), reason }, false);
  const scanner = new RowScanner((bytes, _offset, line) => {
    before = { line, nth: before.line === line ? before.nth + 1 : 1 };
    const id = `${name}:${line}${before.nth === 1 ? '' : `#${before.nth}`}`;
    const parsed = parseRow(bytes, false);
    const record = 'reason' in parsed ? parsed : readRecord(parsed.value, id, media, { kind: 'any' });
    if ('reason' in record) throw badRow({ ...placeOf(line), ...record }, false);
    lines['row' in record ? 'row' : 'pair'] ??= line;
    if (lines.row !== undefined && lines.pair !== undefined)
      throw mixedKinds(name, `line ${lines.row}`, `line ${lines.pair}`);
    found.push({ record, line });
  });
  for await (const piece of source) {
    scanner.push(piece);
    if (found.length > 0) yield await recordsOf(found.splice(0), media, refusal);
  }
  const trouble = scanner.end();
  if (trouble !== undefined) throw refusal(trouble.line)(trouble.reason);
  if (found.length > 0) yield await recordsOf(found, media, refusal);
}

async function recordsOf(
  found: readonly Found[],
  media: MediaFolder,
  refusal: (line: number) => (reason: string) => Error,
): Promise<StreamedRecords> {
  const records: StreamedRecords = { rows: [], pairs: [] };
  for (const { record, line } of found) {
    if ('row' in record) records.rows.push(await media.row(record.row, refusal(line)));
    else records.pairs.push(await pairOf(record.pair, media, refusal(line)));
  }
  return records;
}
