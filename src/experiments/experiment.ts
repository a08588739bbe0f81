/**
 * What an experiment is: one seed as a resumable computation with a plain result, and a report over several. Results lie in
 * `<out>/<name>/seed-N/result.json`; a seed that has one is not run again.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../binding/load.js';
import { writeJsonAtomically } from '../runs/atomic-file.js';
import { peakMemoryBytes } from '../runs/peak-memory.js';
import { commitOf } from '../runs/summary.js';

export interface SeedContext {
  seed: number;
  /** Folder of this seed. */
  out: string;
  threads: number | undefined;
  /** A short version that checks the plumbing; its numbers mean nothing. */
  smoke: boolean;
  signal: AbortSignal;
  /** A line for who watches. */
  say: (text: string) => void;
}

export interface Experiment<Result> {
  name: string;
  runSeed: (context: SeedContext) => Promise<Result>;
  /** Markdown, and SVG plots by file name that it refers to as `images/<name>`. */
  report: (results: readonly SeedResult<Result>[]) => Promise<{ markdown: string; plots: Record<string, string> }>;
}

/** A result with what it was made by. */
export interface SeedResult<Result> {
  seed: number;
  commit: string | null;
  smoke: boolean;
  wallSeconds: number;
  peakMemoryBytes: number;
  result: Result;
}

/** Runs one seed, or reads what an earlier run left. */
export async function runSeed<Result>(
  experiment: Experiment<Result>,
  context: Omit<SeedContext, 'out'> & { root: string },
): Promise<SeedResult<Result>> {
  const { root, seed, smoke, say } = context;
  const out = join(root, experiment.name, `seed-${seed}`);
  const path = join(out, 'result.json');
  if (existsSync(path)) return JSON.parse(await readFile(path, 'utf8')) as SeedResult<Result>;
  await mkdir(out, { recursive: true });
  const startedMs = performance.now();
  say(`${experiment.name}, seed ${seed}`);
  const result = await experiment.runSeed({ ...context, out });
  const whole: SeedResult<Result> = {
    seed,
    commit: (await commitOf(packageRoot)) ?? null,
    smoke,
    wallSeconds: (performance.now() - startedMs) / 1000,
    peakMemoryBytes: peakMemoryBytes(),
    result,
  };
  await writeJsonAtomically(path, whole);
  return whole;
}

/** The result of `compute`, kept in `path`: what was computed once is read. */
export async function kept<T>(path: string, compute: () => Promise<T>): Promise<T> {
  if (existsSync(path)) return JSON.parse(await readFile(path, 'utf8')) as T;
  const value = await compute();
  await writeJsonAtomically(path, value);
  return value;
}
