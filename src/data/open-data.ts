/**
 * Opens what a configuration calls `data`: one file, a folder of shards, or a mixture of several, as rows or as preference
 * pairs. What comes back is one data set that closes all its files.
 */
import { basename } from 'node:path';
import { z } from 'zod';
import { parseOptions } from '../engine/parse-options.js';
import type { BadRow } from './bad-row.js';
import { dataFiles } from './data-files.js';
import type { Dataset } from './dataset.js';
import { dataFormats, type DataFormat } from './formats.js';
import { JsonlDataset, JsonlPairs, type JsonlOptions } from './jsonl.js';
import type { Locality } from './local-order.js';
import { mixture, type Mixture, type MixtureSource } from './mixture.js';
import type { PairDataset, PairRow } from './pairs.js';
import { ParquetDataset, ParquetPairs } from './parquet.js';
import type { Row } from './rows.js';
import { samplingSchema } from './sampling.js';

/** One file or folder of data, and what of it is taken. */
export const dataSourceSchema = z
  .strictObject({
    path: z.string().min(1).describe('JSONL, JSON or Parquet file, or a folder of Parquet shards.'),
    imageFolder: z.string().optional().describe("Where relative image paths start. Default: the data file's folder."),
    format: z.enum(dataFormats).optional().describe('Form of the rows. Default: the fields of each row decide.'),
    split: z.string().min(1).optional().describe('Of a folder of shards: which split, such as train.'),
    instruction: z.string().min(1).optional().describe('Text put below every prompt: how to answer.'),
    sampling: samplingSchema.default('all'),
    weight: z
      .number()
      .positive()
      .default(1)
      .describe('How often each row comes in an epoch; the fraction takes a seeded part of the rows.'),
    seed: z.number().int().min(0).default(0).describe('Key of random:N and of fractional weights.'),
    checkMedia: z
      .boolean()
      .default(true)
      .describe('A picture or video that is not there, or a picture whose header does not decode, makes its row bad.'),
    onBadRow: z.enum(['fail', 'skip']).default('fail').describe('What happens at a row that cannot be used.'),
  })
  .describe('A source of data.');

/** One source, or a mixture of several. */
export const dataConfigSchema = z
  .union([dataSourceSchema, z.array(dataSourceSchema).min(1)], { error: sourceProblem })
  .describe('A source of data, or a list of several that are mixed.');

/** Of a union only the branch that was meant is worth reporting: a list, or a source alone. */
function sourceProblem({
  code,
  input,
  errors,
}: {
  code?: unknown;
  input?: unknown;
  errors?: unknown;
}): string | undefined {
  if (code !== 'invalid_union' || !Array.isArray(errors)) return undefined;
  const issues = errors[Array.isArray(input) ? 1 : 0] as readonly z.core.$ZodIssue[];
  return issues
    .map(({ path, message }) => (path.length > 0 ? `${z.core.toDotPath(path)}: ${message}` : message))
    .join('; ');
}

/** What may be written: a path alone, a source, or a list of sources. */
export type DataConfig = string | z.input<typeof dataConfigSchema>;
export type DataSource = z.output<typeof dataSourceSchema>;

export interface OpenDataOptions {
  /** What relative paths of a configuration start from. Default: the working directory. */
  resolvePath?: (path: string) => string;
  /** Called for every row left out. */
  onSkip?: (bad: BadRow) => void;
  signal?: AbortSignal;
}

/** What is known of opened files, whatever they hold. */
export interface OpenedFiles extends AsyncDisposable {
  readonly name: string;
  readonly size: number;
  readonly fingerprint: string;
  readonly locality?: Locality | undefined;
  /** How many rows were left out of all files together, and the first hundred of them. */
  readonly numSkipped: number;
  readonly skipped: readonly BadRow[];
  /** How many rows of the files have each form, before sampling. */
  readonly formats: ReadonlyMap<DataFormat, number>;
  /** Closes all files. Idempotent. */
  dispose(): Promise<void>;
}

export type OpenedData = Dataset & OpenedFiles;
export type OpenedPairs = PairDataset & OpenedFiles;

/**
 * Opens rows. Errors: those of the files, of `sampling` and `weight`, and 'bad_data' for files of preference pairs; files
 * opened before the error are closed.
 */
export async function openData(config: DataConfig, options: OpenDataOptions = {}): Promise<OpenedData> {
  const opened = await openMixture<Row, JsonlDataset | ParquetDataset>(config, options, {
    json: (path, fileOptions) => JsonlDataset.open(path, fileOptions),
    parquet: (paths, fileOptions) => ParquetDataset.open(paths, fileOptions),
    read: async (data, index, rename) => {
      const row = await data.row(index);
      return { ...row, id: rename(row.id) };
    },
  });
  return { ...opened.files, row: opened.mixed.read };
}

/** Opens preference pairs; as `openData`, and 'bad_data' for files of rows. */
export async function openPairs(config: DataConfig, options: OpenDataOptions = {}): Promise<OpenedPairs> {
  const opened = await openMixture<PairRow, JsonlPairs | ParquetPairs>(config, options, {
    json: (path, fileOptions) => JsonlPairs.open(path, fileOptions),
    parquet: (paths, fileOptions) => ParquetPairs.open(paths, fileOptions),
    read: async (data, index, rename) => {
      const pair = await data.pair(index);
      const { first, second } = pair;
      return {
        ...pair,
        id: rename(pair.id),
        first: { ...first, id: rename(first.id) },
        second: { ...second, id: rename(second.id) },
      };
    },
  });
  return { ...opened.files, pair: opened.mixed.read };
}

type OpenFile = JsonlDataset | ParquetDataset | JsonlPairs | ParquetPairs;

interface Openers<T, F extends OpenFile> {
  json: (path: string, options: JsonlOptions) => Promise<F>;
  parquet: (paths: string[], options: JsonlOptions) => Promise<F>;
  read: (data: F, index: number, rename: (id: string) => string) => Promise<T>;
}

async function openMixture<T, F extends OpenFile>(
  config: DataConfig,
  options: OpenDataOptions,
  openers: Openers<T, F>,
): Promise<{ files: OpenedFiles; mixed: Mixture<T> }> {
  const given = typeof config === 'string' ? { path: config } : config;
  // Branch by branch, so that an error names its key.
  const sources = Array.isArray(given)
    ? parseOptions(z.array(dataSourceSchema).min(1), given, 'data')
    : [parseOptions(dataSourceSchema, given, 'data')];
  const opened: F[] = [];
  const dispose = async (): Promise<void> => {
    for (const data of opened) await data.dispose();
  };
  try {
    for (const source of sources) opened.push(await openSource(source, options, openers));
    const name = sources.map(({ path }) => basename(path)).join(' + ');
    const mixed = mixture<T>(
      name,
      sources.map(({ sampling, weight, seed }, index) => {
        const data = opened[index]!;
        const read: MixtureSource<T>['read'] = (row, rename) => openers.read(data, row, rename);
        const { size, fingerprint, idHashes } = data;
        return {
          source: { name: data.name, size, fingerprint, idHashes, locality: localityOf(data), read },
          sampling,
          weight,
          seed,
        };
      }),
    );
    const files: OpenedFiles = {
      name,
      size: mixed.size,
      fingerprint: mixed.fingerprint,
      locality: mixed.locality,
      numSkipped: opened.reduce((sum, { numSkipped }) => sum + numSkipped, 0),
      skipped: opened.flatMap(({ skipped }) => skipped).slice(0, 100),
      formats: sumFormats(opened),
      dispose,
      [Symbol.asyncDispose]: dispose,
    };
    return { files, mixed };
  } catch (cause) {
    await dispose();
    throw cause;
  }
}

async function openSource<T, F extends OpenFile>(
  { path, imageFolder, format, split, instruction, checkMedia, onBadRow }: DataSource,
  { resolvePath = (relative) => relative, onSkip, signal }: OpenDataOptions,
  openers: Openers<T, F>,
): Promise<F> {
  const fileOptions: JsonlOptions = { onBadRow, checkMedia };
  if (imageFolder !== undefined) fileOptions.imageFolder = resolvePath(imageFolder);
  if (format !== undefined) fileOptions.format = format;
  if (instruction !== undefined) fileOptions.instruction = instruction;
  if (onSkip !== undefined) fileOptions.onSkip = onSkip;
  if (signal !== undefined) fileOptions.signal = signal;
  const files = await dataFiles(resolvePath(path), split);
  return files.kind === 'json' ? openers.json(files.path, fileOptions) : openers.parquet(files.paths, fileOptions);
}

const localityOf = (data: OpenFile): Locality | undefined => ('locality' in data ? data.locality : undefined);

function sumFormats(files: readonly OpenFile[]): Map<DataFormat, number> {
  const sums = new Map<DataFormat, number>();
  for (const { formats } of files) {
    for (const [format, count] of formats) sums.set(format, (sums.get(format) ?? 0) + count);
  }
  return sums;
}
