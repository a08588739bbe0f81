/** What the experiment of R3V found, as a page: every variant, selection at test time, and what helps. */
import { linePlot } from '../runs/line-plot.js';
import type { SeedResult } from './experiment.js';
import { differenceHeader, differenceRow, fixed, mean, spread, table } from './markdown.js';
import type { R3vExperimentResult, Variant } from './r3v.js';

type Seed = SeedResult<R3vExperimentResult>;

export function r3vReport(
  experiment: string,
  results: readonly Seed[],
): { markdown: string; plots: Record<string, string> } {
  const of = (pick: (result: R3vExperimentResult) => number | null | undefined): string =>
    spread(results.map(({ result }) => pick(result)));
  const names = Object.keys(results[0]!.result.variants) as Variant[];
  const rows = [
    [
      'zero-shot',
      of((r) => r.base.unseenAccuracy),
      of((r) => r.base.accuracy),
      of((r) => r.base.unseenDirectAccuracy),
      '-',
      '-',
    ],
    ...names.map((name) => [
      name,
      of((r) => r.variants[name].test.unseenAccuracy),
      of((r) => r.variants[name].test.accuracy),
      of((r) => r.variants[name].test.unseenDirectAccuracy),
      of((r) => r.variants[name].test.extras['perception']),
      spread(
        results.map(({ result }) => result.variants[name].seconds),
        0,
      ),
    ]),
  ];
  const sizes = results[0]!.result.select.atSize.map(({ size }) => size);
  const systems = ['passAt1', 'majority', 'select', 'passAtN'] as const;
  const systemNames = { passAt1: 'pass@1', majority: 'majority', select: 'select', passAtN: 'pass@N (perfect choice)' };
  const valueAt = (result: R3vExperimentResult, size: number, system: (typeof systems)[number]): number | null =>
    result.select.atSize.find((one) => one.size === size)![system]?.value ?? null;
  const selectRows = systems.map((system) => [
    systemNames[system],
    ...sizes.map((size) => of((result) => valueAt(result, size, system))),
  ]);
  const comparisonNames = Object.keys(results[0]!.result.comparisons);
  const curves = systems.map((system) => ({
    name: systemNames[system],
    points: sizes.map((size) => {
      const values = results.flatMap(({ result }) => valueAt(result, size, system) ?? []);
      return { x: size, y: mean(values), low: Math.min(...values), high: Math.max(...values) };
    }),
  }));
  const items = names
    .filter((name) => name !== 'STaR + DPO')
    .map((name) => {
      const last = results[0]!.result.variants[name].iterations.at(-1)?.items as Record<string, number> | null;
      return [
        name,
        ...['direct', 'warmUp', 'selfCot', 'refine', 'selectA', 'selectB'].map((kind) => last?.[kind] ?? 0),
      ];
    });
  const refine = of((r) => r.select.refine?.gain);
  const markdown = [
    '## Means over seeds',
    table(['', 'artist never seen', 'seen artists', 'direct answer, never seen', 'perception', 'seconds'], rows),
    'Mean ± standard deviation over seeds; greedy with reasons. "Direct" asks the same model for the answer alone.',
    '## At test time (R3V, artist never seen)',
    table(['', ...sizes.map((size) => `N = ${size}`)], selectRows),
    `Asked to refine its first sample, the accuracy changes by ${refine}.`,
    `![Selection by number of samples](images/${experiment}-select.svg)`,
    '## What helps? (artist never seen)',
    table(
      differenceHeader,
      comparisonNames.map((name) =>
        differenceRow(
          name,
          results.map(({ result }) => result.comparisons[name]!),
        ),
      ),
    ),
    `## Rows of the last mixture (seed ${results[0]!.seed})`,
    table(['', 'direct', 'warm-up', 'self-CoT', 'refine', 'select A', 'select B'], items),
    '## Every seed (artist never seen)',
    table(
      ['seed', ...names, 'wall seconds'],
      results.map(({ seed, result, wallSeconds }) => [
        seed,
        ...names.map((name) => fixed(result.variants[name].test.unseenAccuracy)),
        wallSeconds.toFixed(0),
      ]),
    ),
  ].join('\n\n');
  return {
    markdown,
    plots: {
      [`${experiment}-select`]: linePlot({
        title: 'Accuracy by number of samples: mean and range over seeds',
        xLabel: 'samples N',
        yLabel: 'accuracy',
        series: curves,
      }),
    },
  };
}
