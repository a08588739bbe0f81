/**
 * Rows or preference pairs of JSON Lines (or of one JSON array) that arrive in pieces, as from a pipe: what a piece completes
 * is given at once. Nothing is kept, so ids are not compared with earlier ones.
 */
import { badRow, type BadRow } from './bad-row.js';
import { parseRow } from './jsonl.js';
import { MediaCheck } from './media-check.js';
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
  place: Omit<BadRow, 'reason'>;
}

/**
 * Records in order, those of a piece together. `name` stands for a file in messages and default ids; relative paths start from
 * `folder`. Errors: 'bad_data' with the line for a bad record (its pictures too), rows and pairs in one stream, and a JSON
 * array that does not end; each comes when the records before it were taken.
 */
export async function* streamRecords(
  source: AsyncIterable<Buffer>,
  { name, folder }: { name: string; folder: string },
): AsyncGenerator<StreamedRecords, void, undefined> {
  const media = new MediaFolder(folder);
  const check = new MediaCheck(media);
  const found: Found[] = [];
  const lines: { row?: number; pair?: number } = {};
  let before = { line: 0, nth: 0 };
  let failure: Error | undefined;
  const placeOf = (line: number): Found['place'] => ({ file: name, line, unit: 'line' });
  const read = (bytes: Buffer, line: number): CheckedRecord => {
    const id = `${name}:${line}${before.nth === 1 ? '' : `#${before.nth}`}`;
    const parsed = parseRow(bytes, false);
    const record = 'reason' in parsed ? parsed : readRecord(parsed.value, id, media, { kind: 'any' });
    if ('reason' in record) throw badRow({ ...placeOf(line), ...record }, false);
    lines['row' in record ? 'row' : 'pair'] ??= line;
    if (lines.row !== undefined && lines.pair !== undefined)
      throw mixedKinds(name, `line ${lines.row}`, `line ${lines.pair}`);
    return record;
  };
  const scanner = new RowScanner((bytes, _offset, line) => {
    if (failure !== undefined) return;
    before = { line, nth: before.line === line ? before.nth + 1 : 1 };
    try {
      found.push({ record: read(bytes, line), place: placeOf(line) });
    } catch (cause) {
      failure = cause as Error;
    }
  });
  /** What was found, up to the first record with a bad picture. */
  const taken = async (): Promise<StreamedRecords> => {
    const all = found.splice(0);
    const problems = await check.problemsOf(all.map(({ record }) => record));
    const bad = problems.findIndex((reason) => reason !== undefined);
    if (bad >= 0) failure = badRow({ ...all[bad]!.place, reason: problems[bad]! }, false);
    return recordsOf(bad < 0 ? all : all.slice(0, bad), media);
  };
  for await (const piece of source) {
    scanner.push(piece);
    if (found.length > 0) yield await taken();
    if (failure !== undefined) throw failure;
  }
  const trouble = scanner.end();
  if (found.length > 0) yield await taken();
  if (failure !== undefined) throw failure;
  if (trouble !== undefined) throw badRow({ ...placeOf(trouble.line), reason: trouble.reason }, false);
}

async function recordsOf(found: readonly Found[], media: MediaFolder): Promise<StreamedRecords> {
  const records: StreamedRecords = { rows: [], pairs: [] };
  for (const { record, place } of found) {
    if ('row' in record) records.rows.push(await media.row(record.row, place));
    else records.pairs.push(await pairOf(record.pair, media, place));
  }
  return records;
}
