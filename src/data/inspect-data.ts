/** What is in a data file or folder, without training on it: forms, a first record, and bad rows by reason. */
import { placeOf, type BadRow } from './bad-row.js';
import { dataFiles } from './data-files.js';
import { givenBy, type DataFormat } from './formats.js';
import { checkJsonl, JsonlDataset, JsonlPairs, type JsonlOptions } from './jsonl.js';
import type { PairRow } from './pairs.js';
import { checkParquet, ParquetDataset, ParquetPairs } from './parquet.js';
import { originOf } from './row-origin.js';
import type { Row } from './rows.js';

/** Rows that were refused for one reason; numbers and names inside reasons are not told apart. */
export interface RefusedRows {
  reason: string;
  count: number;
  first: BadRow;
}

/** What `inspectData` finds in a file, or in the shards of a folder. */
export interface DataDescription {
  kind: 'parquet' | 'json';
  files: string[];
  /** Rows that can be used. */
  rows: number;
  /** How many usable rows have each form. */
  formats: Partial<Record<DataFormat, number>>;
  /** What the rows are; null where there are both, or none. */
  gives: 'rows' | 'pairs' | null;
  /** That of the data set which leaves the bad rows out. */
  fingerprint: string;
  /** As recipes see it; null where `gives` is. */
  first: Row | PairRow | null;
  numBad: number;
  /** By how often they occur. */
  bad: RefusedRows[];
}

export interface InspectDataOptions extends Pick<JsonlOptions, 'imageFolder' | 'format' | 'signal'> {
  /** Of a folder of shards. */
  split?: string;
}

// A file whose every row has a reason of its own is described by some of them.
const maxReasons = 50;

/**
 * Checks every row of a JSONL, JSON or Parquet file, or of a folder of shards. Bad rows are counted, never thrown; errors are those of the files themselves and 'bad_data' for an ambiguous
 * form.
 */
export async function inspectData(
  path: string,
  { split, ...options }: InspectDataOptions = {},
): Promise<DataDescription> {
  const files = await dataFiles(path, split);
  const reasons = new Map<string, RefusedRows>();
  const badPlaces = new Set<string>();
  const onSkip = (bad: BadRow): void => {
    badPlaces.add(placeOf(bad));
    count(reasons, bad);
  };
  const checking: JsonlOptions = { ...options, onBadRow: 'skip', onSkip };
  const summary =
    files.kind === 'json' ? await jsonSummary(files.path, checking) : await parquetSummary(files.paths, checking);
  const given = new Set([...summary.formats.keys()].map(givenBy));
  const gives = given.size !== 1 ? null : given.has('row') ? 'rows' : 'pairs';
  // Pictures were looked at above, which takes the longest.
  const reading: JsonlOptions = { ...options, onBadRow: 'skip', checkMedia: false };
  const first = gives === null ? null : await firstUsable(files, gives, reading, badPlaces);
  return {
    kind: files.kind,
    files: files.kind === 'json' ? [files.path] : files.paths,
    rows: summary.rows,
    formats: Object.fromEntries(summary.formats),
    gives,
    fingerprint: summary.fingerprint,
    first,
    numBad: summary.numBad,
    bad: [...reasons.values()].sort((a, b) => b.count - a.count),
  };
}

interface Summary {
  rows: number;
  numBad: number;
  formats: ReadonlyMap<DataFormat, number>;
  fingerprint: string;
}

async function jsonSummary(path: string, options: JsonlOptions): Promise<Summary> {
  const { log, fingerprint } = await checkJsonl(path, options);
  return { rows: log.idHashes.length, numBad: log.numSkipped, formats: log.formats, fingerprint };
}

async function parquetSummary(paths: string[], options: JsonlOptions): Promise<Summary> {
  const { size, numSkipped, formats, fingerprint } = await checkParquet(paths, options);
  return { rows: size, numBad: numSkipped, formats: new Map(formats), fingerprint };
}

async function firstUsable(
  files: Awaited<ReturnType<typeof dataFiles>>,
  gives: 'rows' | 'pairs',
  options: JsonlOptions,
  badPlaces: ReadonlySet<string>,
): Promise<Row | PairRow | null> {
  if (gives === 'rows') {
    await using data =
      files.kind === 'json'
        ? await JsonlDataset.open(files.path, options)
        : await ParquetDataset.open(files.paths, options);
    return await firstBut(badPlaces, data.size, (index) => data.row(index));
  }
  await using data =
    files.kind === 'json' ? await JsonlPairs.open(files.path, options) : await ParquetPairs.open(files.paths, options);
  return await firstBut(badPlaces, data.size, (index) => data.pair(index));
}

async function firstBut(
  badPlaces: ReadonlySet<string>,
  size: number,
  read: (index: number) => Promise<Row | PairRow>,
): Promise<Row | PairRow | null> {
  for (let index = 0; index < size; index++) {
    const value = await read(index);
    const place = originOf('first' in value ? value.first : value);
    if (place === undefined || !badPlaces.has(placeOf(place))) return value;
  }
  return null;
}

/** Reasons that differ in quoted names and numbers only are one. */
function count(reasons: Map<string, RefusedRows>, bad: BadRow): void {
  const key = bad.reason.replace(/"[^"]*"/g, '"…"').replace(/\d+/g, 'N');
  const known = reasons.get(key) ?? (reasons.size < maxReasons ? undefined : reasons.get('others'));
  if (known !== undefined) known.count++;
  else if (reasons.size < maxReasons - 1) reasons.set(key, { reason: bad.reason, count: 1, first: bad });
  else reasons.set('others', { reason: 'other reasons', count: 1, first: bad });
}
