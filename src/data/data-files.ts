/** Which files a path of a data set means: a file itself, or the shards in a folder as the hub lays them out. */
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';

/** Files of one data set, all Parquet or one file of JSON. */
export type DataFiles = { kind: 'parquet'; paths: string[] } | { kind: 'json'; path: string };

/**
 * A file is Parquet by its extension or its first bytes. A folder holds shards: `data/*.parquet` or `*.parquet`, in order of
 * names; where names begin with a split ("train-00000-of-00002.parquet"), `split` chooses, and several splits without a
 * choice are an error. Errors: 'io', 'bad_data'.
 */
export async function dataFiles(path: string, split?: string): Promise<DataFiles> {
  let isFolder: boolean;
  try {
    isFolder = (await stat(path)).isDirectory();
  } catch (cause) {
    throw fileError(cause, path, 'a data set');
  }
  if (isFolder) return { kind: 'parquet', paths: await shardsOf(path, split) };
  if (split !== undefined) {
    throw new GavelError(
      'invalid_argument',
      `Expected a folder of shards for \`split\` but received the file "${path}". Leave the split out, or name the folder.`,
      { fields: { name: 'split', path } },
    );
  }
  return (await isParquet(path)) ? { kind: 'parquet', paths: [path] } : { kind: 'json', path };
}

async function isParquet(path: string): Promise<boolean> {
  if (path.toLowerCase().endsWith('.parquet')) return true;
  try {
    await using file = await open(path, 'r');
    const head = Buffer.alloc(4);
    await file.read(head, 0, 4, 0);
    return head.toString('latin1') === 'PAR1';
  } catch (cause) {
    throw fileError(cause, path, 'a data set');
  }
}

async function shardsOf(folder: string, split: string | undefined): Promise<string[]> {
  for (const place of [join(folder, 'data'), folder]) {
    const names = (await listFiles(place)).filter((name) => name.toLowerCase().endsWith('.parquet')).sort();
    if (names.length > 0) return chooseSplit(folder, names, split).map((name) => join(place, name));
  }
  throw new GavelError(
    'bad_data',
    `Expected Parquet files in "${folder}" or its folder "data" but received none. Name the file itself.`,
    { fields: { path: folder } },
  );
}

async function listFiles(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => !entry.isDirectory()).map(({ name }) => name);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return [];
    throw fileError(cause, folder, 'a folder of data');
  }
}

/** "train-00000-of-00002.parquet" and "train.parquet" are of the split "train". */
const splitOf = (name: string): string => name.replace(/(-\d+-of-\d+.*)?\.parquet$/i, '');

function chooseSplit(folder: string, names: readonly string[], split: string | undefined): string[] {
  const splits = [...new Set(names.map(splitOf))];
  // Names that are numbers ("0000.parquet") are shards of one split.
  const unnamed = splits.every((name) => /^\d+$/.test(name));
  if (split === undefined && (splits.length === 1 || unnamed)) return [...names];
  const chosen = names.filter((name) => splitOf(name) === split);
  if (chosen.length > 0) return chosen;
  throw new GavelError(
    'bad_data',
    `Expected one of the splits ${splits.join(', ')} of "${folder}" for \`split\` but received ` +
      `${split === undefined ? 'none' : `"${split}"`}. Name one.`,
    { fields: { name: 'split', path: folder, splits: splits.join(', ') } },
  );
}
