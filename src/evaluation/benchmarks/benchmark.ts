/** What a benchmark is: how its published rows become pairs, and which numbers its papers report. */
import type { Choice, Judgement } from '../judgement.js';
import type { Observation } from '../resample-units.js';
import type { CandidatePair } from './judge-prompt.js';
import type { SourceRow } from './row-source.js';

/** One comparison of a benchmark. */
export interface BenchmarkPair extends CandidatePair {
  /** Unique in the benchmark. */
  id: string;
  gold: Choice;
  subsets: Record<string, string>;
  cluster?: string;
}

/** A number as the benchmark's own evaluation defines it. */
export interface Headline {
  name: string;
  /** Null without judgements for it. */
  value: number | null;
  /** 95 % percentile bootstrap over clusters, or items where there are none. */
  low?: number | null;
  high?: number | null;
}

/** A headline with what its mean is over: of several parts it is the mean of their means. */
export interface HeadlineParts extends Headline {
  parts: readonly (readonly Observation[])[];
}

export interface Benchmark {
  /** As `--benchmark` takes it. */
  name: string;
  /** In full, with its authors, since two benchmarks share one name. */
  title: string;
  hasTies: boolean;
  /** The published file gives one id to several pairs; later ones get a number. Otherwise a second one is an error. */
  repeatsIds?: boolean;
  /** Where a JSON object keeps its rows. */
  listKey?: string;
  /** Which files of a folder belong to it; every one by default. The path is relative to the folder. */
  ownsFile?: (path: string) => boolean;
  /** The comparisons of one row. `path` is that of its file. Errors: 'bad_data' naming row and column. */
  pairsOf: (row: SourceRow, path: string) => BenchmarkPair[];
  headlines: (judgements: readonly Judgement[]) => HeadlineParts[];
}
