/** What is in a data file or folder, without training on it: forms, a first record, and bad rows by reason. */
import { access } from 'node:fs/promises';
import type { BadRow } from './bad-row.js';
import { dataFiles } from './data-files.js';
import { givenBy, type DataFormat } from './formats.js';
import { checkJsonl, JsonlDataset, JsonlPairs, type JsonlOptions } from './jsonl.js';
import type { PairRow } from './pairs.js';
import { checkParquet, ParquetDataset, ParquetPairs } from './parquet.js';
import type { ImageSource, Row } from './rows.js';

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
  /** Usable rows or pairs with a picture or video that is not there; a run would stop at them. Null without any. */
  missing: { count: number; first: { id: string; path: string } } | null;
}

export interface InspectDataOptions extends Pick<JsonlOptions, 'imageFolder' | 'format' | 'signal'> {
  /** Of a folder of shards. */
  split?: string;
}

// A file whose every row has a reason of its own is described by some of them.
const maxReasons = 50;
const readAtOnce = 64;

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
  const onSkip = (bad: BadRow): void => count(reasons, bad);
  const checking: JsonlOptions = { ...options, onBadRow: 'skip', onSkip };
  const summary =
    files.kind === 'json' ? await jsonSummary(files.path, checking) : await parquetSummary(files.paths, checking);
  const given = new Set([...summary.formats.keys()].map(givenBy));
  const gives = given.size !== 1 ? null : given.has('row') ? 'rows' : 'pairs';
  const reading: JsonlOptions = { ...options, onBadRow: 'skip' };
  const usable = gives === null ? null : await readUsable(files, gives, reading);
  return {
    kind: files.kind,
    files: files.kind === 'json' ? [files.path] : files.paths,
    rows: summary.rows,
    formats: Object.fromEntries(summary.formats),
    gives,
    fingerprint: summary.fingerprint,
    first: usable?.first ?? null,
    numBad: summary.numBad,
    bad: [...reasons.values()].sort((a, b) => b.count - a.count),
    missing: usable?.missing ?? null,
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

type Usable = Pick<DataDescription, 'missing'> & { first: Row | PairRow };

async function readUsable(
  files: Awaited<ReturnType<typeof dataFiles>>,
  gives: 'rows' | 'pairs',
  options: JsonlOptions,
): Promise<Usable> {
  if (gives === 'rows') {
    await using data =
      files.kind === 'json'
        ? await JsonlDataset.open(files.path, options)
        : await ParquetDataset.open(files.paths, options);
    return await walk(data.size, (index) => data.row(index), options.signal);
  }
  await using data =
    files.kind === 'json' ? await JsonlPairs.open(files.path, options) : await ParquetPairs.open(files.paths, options);
  return await walk(data.size, (index) => data.pair(index), options.signal);
}

/** The first of them, and those with a file missing. */
async function walk(
  size: number,
  read: (index: number) => Promise<Row | PairRow>,
  signal: AbortSignal | undefined,
): Promise<Usable> {
  const gone: { id: string; path: string }[] = [];
  let count = 0;
  for (let start = 0; start < size; start += readAtOnce) {
    signal?.throwIfAborted();
    const indices = Array.from({ length: Math.min(readAtOnce, size - start) }, (_, i) => start + i);
    const found = await Promise.all(
      indices.map(async (index) => {
        const value = await read(index);
        const path = await firstMissing('first' in value ? [value.first, value.second] : [value]);
        return path === undefined ? undefined : { id: value.id, path };
      }),
    );
    const here = found.filter((place) => place !== undefined);
    count += here.length;
    if (gone.length === 0) gone.push(...here.slice(0, 1));
  }
  const [first] = gone;
  return { first: await read(0), missing: first === undefined ? null : { count, first } };
}

async function firstMissing(rows: readonly Row[]): Promise<string | undefined> {
  const ofImage = (image: ImageSource): string[] => ('path' in image ? [image.path] : []);
  const paths = rows.flatMap(({ images, videos = [] }) => [
    ...images.flatMap(ofImage),
    ...videos.flatMap((video) =>
      'frames' in video ? video.frames.flatMap(ofImage) : ['folder' in video ? video.folder : video.path],
    ),
  ]);
  for (const path of new Set(paths)) {
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (!isThere) return path;
  }
  return undefined;
}

/** Reasons that differ in quoted names and numbers only are one. */
function count(reasons: Map<string, RefusedRows>, bad: BadRow): void {
  const key = bad.reason.replace(/"[^"]*"/g, '"…"').replace(/\d+/g, 'N');
  const known = reasons.get(key) ?? (reasons.size < maxReasons ? undefined : reasons.get('others'));
  if (known !== undefined) known.count++;
  else if (reasons.size < maxReasons - 1) reasons.set(key, { reason: bad.reason, count: 1, first: bad });
  else reasons.set('others', { reason: 'other reasons', count: 1, first: bad });
}
