/** A data file or folder opened as what it holds, rows or preference pairs, where a caller takes either. */
import { GavelError } from '../errors.js';
import { dataFiles } from './data-files.js';
import { dataFormats, givenBy } from './formats.js';
import { JsonlDataset, JsonlPairs, type JsonlOptions } from './jsonl.js';
import { ParquetDataset, ParquetPairs } from './parquet.js';

/** Told apart by `'pair' in opened`. */
export type OpenedRecords = JsonlDataset | JsonlPairs | ParquetDataset | ParquetPairs;

/** Errors: those of opening rows or pairs; 'bad_data' for a file that holds both. */
export async function openRecords(path: string, options: JsonlOptions = {}): Promise<OpenedRecords> {
  const files = await dataFiles(path);
  const openRows = (): Promise<OpenedRecords> =>
    files.kind === 'json' ? JsonlDataset.open(files.path, options) : ParquetDataset.open(files.paths, options);
  const openPairs = (): Promise<OpenedRecords> =>
    files.kind === 'json' ? JsonlPairs.open(files.path, options) : ParquetPairs.open(files.paths, options);
  try {
    return await openRows();
  } catch (cause) {
    const pairAt = placeOfOther(cause, 'pair');
    if (pairAt === undefined) throw cause;
    try {
      return await openPairs();
    } catch (other) {
      const rowAt = placeOfOther(other, 'row');
      throw rowAt === undefined ? other : mixedKinds(path, rowAt, pairAt);
    }
  }
}

/** Where a file turned out to hold `kind` instead of what was asked for; undefined for any other failure. */
function placeOfOther(cause: unknown, kind: 'row' | 'pair'): string | undefined {
  if (!GavelError.is(cause) || cause.code !== 'bad_data') return undefined;
  const { format, where } = cause.fields;
  const known = dataFormats.find((name) => name === format);
  return known !== undefined && givenBy(known) === kind && typeof where === 'string' ? where : undefined;
}

/** The error of a file with rows and pairs. */
export function mixedKinds(path: string, rowAt: string, pairAt: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected rows alone or preference pairs alone in ${path} but received both: a row at ${rowAt}, a pair at ${pairAt}. ` +
      'Put them into two files.',
    { fields: { path, row: rowAt, pair: pairAt } },
  );
}
