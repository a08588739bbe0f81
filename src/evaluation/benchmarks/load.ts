/** Benchmarks by name, and their published files as evaluation items: both orders, with and without chain of thought. */
import { createHash } from 'node:crypto';
import { readdir, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { fileError } from '../../data/checkpoint-files.js';
import { parquetRows } from '../../data/parquet-rows.js';
import type { Row } from '../../data/rows.js';
import { GavelError, expected } from '../../errors.js';
import { nameKey, seededWord } from '../../seeded.js';
import { otherOrder, type Choice } from '../judgement.js';
import type { Benchmark, BenchmarkPair } from './benchmark.js';
import { editRewardBenchEditScore } from './edit-reward-bench-editscore.js';
import { editRewardBenchTiger } from './edit-reward-bench-tiger.js';
import { genaiBench } from './genai-bench.js';
import { checkTemplate, defaultTemplates, judgeRow, type JudgeTemplates, type Piece } from './judge-prompt.js';
import { mmrb2 } from './mmrb2.js';
import { benchmarkRows, type ParquetReader } from './row-source.js';
import { vlRewardBench } from './vl-reward-bench.js';

const benchmarks: readonly Benchmark[] = [
  vlRewardBench,
  mmrb2,
  editRewardBenchEditScore,
  editRewardBenchTiger,
  genaiBench,
];

/** The names `benchmarkByName` knows. */
export const benchmarkNames: readonly string[] = benchmarks.map(({ name }) => name);

/** Throws 'invalid_config' for another name. */
export function benchmarkByName(name: string): Benchmark {
  const found = benchmarks.find((benchmark) => benchmark.name === name);
  if (found !== undefined) return found;
  const both = name.includes('edit-reward') ? 'Two benchmarks are called EditReward-Bench: say whose. ' : '';
  throw expected(
    'invalid_config',
    'benchmark',
    `one of ${benchmarkNames.join(', ')}`,
    name,
    `${both}Use one of these names.`,
  );
}

export interface LoadBenchmarkOptions {
  /** Default: the reader of Parquet data sets. */
  parquet?: ParquetReader;
  /** 'skip' (default) leaves pairs whose gold is a tie out, as reward-model papers do; 'ask' offers the judge a tie. */
  ties?: 'skip' | 'ask';
  /** Ask in both orders (default), or in one that a coin keyed by seed and id decides. */
  bothOrders?: boolean;
  /** Also ask without chain of thought. */
  direct?: boolean;
  templates?: Partial<JudgeTemplates>;
  /** Key of the coin. Default: 0. */
  seed?: number;
  signal?: AbortSignal;
}

/** As the evaluation recipe takes it. */
export interface BenchmarkItem {
  row: Row;
  swapped?: Row;
  direct?: Row;
  directSwapped?: Row;
  unseen: false;
  /** In the order of `row`. */
  goldChoice: Choice;
  isSwapped: boolean;
  subsets: Record<string, string>;
  cluster?: string;
}

export interface LoadedBenchmark {
  benchmark: Benchmark;
  name: string;
  size: number;
  fingerprint: string;
  /** Pairs left out because their gold is a tie. */
  numTiesSkipped: number;
  item(index: number): Promise<BenchmarkItem>;
}

/**
 * Reads a benchmark's file, or the files of a folder. Pictures that a file names by path are read when asked for; those
 * inside the file stay in memory. Errors: those of the files; 'bad_data' for rows that do not fit, two of one id, or none.
 */
export async function loadBenchmark(
  name: string,
  path: string,
  options: LoadBenchmarkOptions = {},
): Promise<LoadedBenchmark> {
  const benchmark = benchmarkByName(name);
  const { ties = 'skip', bothOrders = true, direct = false, seed = 0, signal } = options;
  const templates = { ...defaultTemplates, ...options.templates };
  checkTemplate(templates.reasoned, 'prompt');
  checkTemplate(templates.direct, 'directPrompt');
  const pairs: BenchmarkPair[] = [];
  const ids = new Set<string>();
  const hash = createHash('sha256').update(JSON.stringify([name, templates, ties, bothOrders, seed]));
  let numTiesSkipped = 0;
  for (const file of await filesOf(benchmark, path)) {
    for await (const row of benchmarkRows(file, {
      parquet: options.parquet ?? parquetRows,
      listKey: benchmark.listKey,
    })) {
      signal?.throwIfAborted();
      for (const pair of benchmark.pairsOf(row, file)) {
        if (benchmark.repeatsIds === true) pair.id = numbered(pair.id, ids);
        if (ids.has(pair.id)) throw badFile(path, `distinct ids in ${benchmark.title}`, `"${pair.id}" twice`);
        ids.add(pair.id);
        hashPair(hash, pair);
        if (pair.gold === 'tie' && ties === 'skip') numTiesSkipped++;
        else pairs.push(pair);
      }
    }
  }
  if (pairs.length === 0) throw badFile(path, `at least one pair of ${benchmark.title}`, 'none');
  const itemOf = (pair: BenchmarkPair): BenchmarkItem => {
    const isSwapped = !bothOrders && (seededWord(seed, nameKey(pair.id)) & 1) === 1;
    const rowOf = (form: keyof JudgeTemplates, swapped: boolean, id: string): Row =>
      judgeRow(id, pair, {
        template: templates[form],
        gold: swapped ? otherOrder(pair.gold) : pair.gold,
        hasTies: benchmark.hasTies && ties === 'ask',
        swapped,
      });
    return {
      row: rowOf('reasoned', isSwapped, pair.id),
      ...(bothOrders && { swapped: rowOf('reasoned', true, `${pair.id} swapped`) }),
      ...(direct && { direct: rowOf('direct', isSwapped, `${pair.id} direct`) }),
      ...(direct && bothOrders && { directSwapped: rowOf('direct', true, `${pair.id} direct swapped`) }),
      unseen: false,
      goldChoice: isSwapped ? otherOrder(pair.gold) : pair.gold,
      isSwapped,
      subsets: pair.subsets,
      ...(pair.cluster === undefined ? {} : { cluster: pair.cluster }),
    };
  };
  return {
    benchmark,
    name: benchmark.name,
    size: pairs.length,
    fingerprint: hash.digest('hex').slice(0, 32),
    numTiesSkipped,
    item: async (index) => itemOf(pairs[index]!),
  };
}

/** The id itself, or with the number of its occurrence from the second on. */
function numbered(id: string, ids: ReadonlySet<string>): string {
  let name = id;
  for (let times = 2; ids.has(name); times++) name = `${id} #${times}`;
  return name;
}

/** Texts, gold and names; pictures by path or size, since hashing every picture would take longer than asking. */
function hashPair(hash: ReturnType<typeof createHash>, { context, first, second, ...rest }: BenchmarkPair): void {
  const key = (piece: Piece): unknown => {
    if ('text' in piece) return piece.text;
    const media = 'image' in piece ? piece.image : piece.video;
    if ('path' in media) return [media.path];
    return 'bytes' in media ? [media.bytes.length] : [];
  };
  hash.update(JSON.stringify([rest, context.map(key), first.map(key), second.map(key)]));
}

async function filesOf(benchmark: Benchmark, path: string): Promise<string[]> {
  try {
    if (!(await stat(path)).isDirectory()) return [path];
    const names = (await readdir(path, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile() && /\.(json|jsonl|parquet)$/i.test(entry.name))
      .map((entry) => relative(path, join(entry.parentPath, entry.name)))
      .filter((name) => benchmark.ownsFile?.(name) ?? true)
      .sort();
    if (names.length === 0) throw badFile(path, `files of ${benchmark.title} (.json, .jsonl, .parquet)`, 'none');
    return names.map((name) => join(path, name));
  } catch (cause) {
    throw GavelError.is(cause) ? cause : fileError(cause, path, 'a benchmark file');
  }
}

function badFile(path: string, what: string, received: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected ${what} in ${path} but received ${received}. Check the file (docs/evaluation.md).`,
    { fields: { path, received } },
  );
}
