import { expect, it } from 'vitest';
import { headlinesOf } from '../../src/evaluation/benchmarks/headlines.js';
import { benchmarkByName } from '../../src/evaluation/benchmarks/load.js';
import { headlineTable } from '../../src/evaluation/table.js';

it("a benchmark's own numbers stand there where no answer parsed", () => {
  const headlines = headlinesOf(benchmarkByName('mmrb2'), []);
  expect(headlines.map(({ value }) => value)).toEqual(headlines.map(() => null));
  expect(headlineTable(headlines)).toEqual([
    { title: 'benchmark', columns: ['benchmark', 'value', '95 %'], rows: headlines.map(({ name }) => [name, '-', '']) },
  ]);
  expect(headlines.at(-1)!.name).toBe('overall');
  expect(headlineTable([])).toEqual([]);
});
