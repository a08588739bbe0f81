/** The numbers a benchmark reports, of the judgements with chain of thought. */
import type { Judgement } from '../judgement.js';
import type { Benchmark, Headline } from './benchmark.js';

/** None without a benchmark. */
export function headlinesOf(benchmark: Benchmark | undefined, judgements: readonly Judgement[]): Headline[] {
  return benchmark?.headlines(judgements.filter(({ direct }) => !direct)) ?? [];
}
