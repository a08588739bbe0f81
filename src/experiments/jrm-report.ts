/** What the experiment of JRM found, as a page: the sweep over alpha, what the language loss adds, and latency. */
import { linePlot } from '../runs/line-plot.js';
import type { SeedResult } from './experiment.js';
import type { AlphaResult, JrmResult, Latency, SetResult } from './jrm.js';
import { differenceHeader, differenceRow, fixed, mean, spread, table } from './markdown.js';

type Seed = SeedResult<JrmResult>;

export function jrmReport(results: readonly Seed[]): { markdown: string; plots: Record<string, string> } {
  const alphas = results[0]!.result.alphas.map(({ alpha }) => alpha);
  const at = (seed: Seed, alpha: number): AlphaResult => seed.result.alphas.find((one) => one.alpha === alpha)!;
  const rows = alphas.map((alpha) => {
    const over = (pick: (one: AlphaResult) => number | null, digits = 3): string =>
      spread(
        results.map((seed) => pick(at(seed, alpha))),
        digits,
      );
    return [
      alpha,
      over(({ unseen }) => unseen.accuracy),
      over(({ seen }) => seen.accuracy),
      over(({ unseen }) => unseen.effectiveRank, 1),
      over(({ seen }) => seen.effectiveRank, 1),
      over(({ unseen }) => unseen.ece),
      over(({ seconds }) => seconds, 0),
    ];
  });
  const latencies = results.map(({ result }) => result.latency);
  const ratio = (a: keyof Latency, b: keyof Latency): string =>
    spread(
      latencies.map((one) => one[a] / one[b]),
      1,
    );
  const perSeed = results.map((seed) => [
    seed.seed,
    ...alphas.map((alpha) => `${fixed(at(seed, alpha).unseen.accuracy)} / ${fixed(at(seed, alpha).seen.accuracy)}`),
    seed.wallSeconds.toFixed(0),
  ]);
  const curve = (pick: (one: AlphaResult) => number | null): { x: number; y: number; low: number; high: number }[] =>
    alphas.map((alpha) => {
      const values = results.flatMap((seed) => pick(at(seed, alpha)) ?? []);
      return { x: alpha, y: mean(values), low: Math.min(...values), high: Math.max(...values) };
    });
  const plot = (title: string, yLabel: string, pick: (set: SetResult) => number | null): string =>
    linePlot({
      title,
      xLabel: 'alpha',
      yLabel,
      series: [
        { name: 'artist never seen', points: curve(({ unseen }) => pick(unseen)) },
        { name: 'seen artists', points: curve(({ seen }) => pick(seen)) },
      ],
    });
  const markdown = [
    '## Means over seeds',
    table(
      [
        'alpha',
        'accuracy, artist never seen',
        'accuracy, seen artists',
        'effective rank, never seen',
        'effective rank, seen',
        'ECE, never seen',
        'seconds',
      ],
      rows,
    ),
    'Mean ± standard deviation over seeds. Accuracy: the better picture of a pair scores higher. Alpha 0 is the pure reward model.',
    '![Accuracy by alpha](images/jrm-accuracy.svg)',
    '![Effective rank by alpha](images/jrm-rank.svg)',
    '## Does the language loss help the scorer? (alpha 0.7 against alpha 0)',
    table(differenceHeader, [
      differenceRow(
        'artist never seen',
        results.map(({ result }) => result.comparisons.unseen),
      ),
      differenceRow(
        'seen artists',
        results.map(({ result }) => result.comparisons.seen),
      ),
    ]),
    '## A score against a generated judgement',
    table(
      ['', 'score', 'generate', 'generate / score'],
      [
        [
          `${latencies[0]!.items} pictures at once, seconds`,
          spread(latencies.map(({ scoreSeconds }) => scoreSeconds)),
          spread(latencies.map(({ generateSeconds }) => generateSeconds)),
          ratio('generateSeconds', 'scoreSeconds'),
        ],
        [
          'one picture, milliseconds',
          spread(
            latencies.map(({ scoreOneMs }) => scoreOneMs),
            2,
          ),
          spread(
            latencies.map(({ generateOneMs }) => generateOneMs),
            2,
          ),
          ratio('generateOneMs', 'scoreOneMs'),
        ],
      ],
    ),
    'The same model and pictures, interleaved, medians; generation is greedy, batched, with the prompt computed once. Encoding is in neither.',
    '## Every seed (artist never seen / seen artists)',
    table(['seed', ...alphas.map((alpha) => `alpha ${alpha}`), 'wall seconds'], perSeed),
  ].join('\n\n');
  return {
    markdown,
    plots: {
      'jrm-accuracy': plot('Pair accuracy by alpha: mean and range over seeds', 'accuracy', ({ accuracy }) => accuracy),
      'jrm-rank': plot('Effective rank of the scored states', 'effective rank', (set) => set.effectiveRank),
    },
  };
}
