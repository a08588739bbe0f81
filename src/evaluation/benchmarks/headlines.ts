/** The numbers a benchmark reports, of the judgements with chain of thought. */
import type { BootstrapOptions } from '../bootstrap.js';
import type { Judgement } from '../judgement.js';
import { meanStatistic, resampleUnits } from '../resample-units.js';
import type { Benchmark, Headline, HeadlineParts } from './benchmark.js';

const partsOf = (benchmark: Benchmark | undefined, judgements: readonly Judgement[]): HeadlineParts[] =>
  benchmark?.headlines(judgements.filter(({ direct }) => !direct)) ?? [];

/** None without a benchmark. */
export function headlinesOf(benchmark: Benchmark | undefined, judgements: readonly Judgement[]): Headline[] {
  return partsOf(benchmark, judgements).map(({ name, value }) => ({ name, value }));
}

/** The same with `low` and `high`. Errors: 'invalid_argument' for options out of range. */
export async function headlinesWithIntervals(
  benchmark: Benchmark | undefined,
  judgements: readonly Judgement[],
  options: BootstrapOptions = {},
): Promise<Headline[]> {
  const headlines = partsOf(benchmark, judgements);
  const known = headlines.filter(({ value }) => value !== null);
  const statistics = known.map(({ name, parts }) => [name, meanStatistic(...parts)] as const);
  const { intervals } = await resampleUnits(Object.fromEntries(statistics), options);
  return headlines.map(({ name, value }) => ({
    name,
    value,
    low: intervals[name]?.low ?? null,
    high: intervals[name]?.high ?? null,
  }));
}
