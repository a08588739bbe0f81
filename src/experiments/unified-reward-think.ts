/**
 * UnifiedReward-Think on composed pictures: does rejection sampling lift over cold start, and GRPO over rejection sampling, on
 * pictures of an artist that no stage has seen? The runs are those of `gavel quickstart`, but the labelled pool leaves out
 * the test's artist and no time budget shortens a stage.
 */
import { join } from 'node:path';
import { quickstartPlan, smokePlan } from '../emoji-judge/quickstart.js';
import { runQuickstart, type QuickstartPlan } from '../emoji-judge/quickstart-run.js';
import { linePlot } from '../runs/line-plot.js';
import type { RunSummary } from '../runs/summary.js';
import type { Experiment, SeedContext, SeedResult } from './experiment.js';
import { differenceHeader, differenceRow, fixed, mean, spread, table } from './markdown.js';

const stages = ['cold-start', 'rejection', 'grpo'] as const;
const unlimited = 1e6;

function planOf({ smoke }: SeedContext): QuickstartPlan {
  if (smoke) return { ...smokePlan, rejection: { ...smokePlan.rejection, artists: 'seen' } };
  const { perception, coldStart, rejection, grpo } = quickstartPlan;
  const free = <T extends { budgetSeconds?: number | undefined }>(options: T): T => ({
    ...options,
    budgetSeconds: unlimited,
  });
  return {
    ...quickstartPlan,
    budgetSeconds: unlimited,
    test: { seen: 500, unseen: 1000 },
    perception: { ...perception, options: free(perception.options) },
    coldStart: { ...coldStart, options: free(coldStart.options) },
    rejection: {
      ...rejection,
      artists: 'seen',
      options: { ...free(rejection.options), samplingBudgetSeconds: unlimited },
    },
    grpo: { options: free(grpo.options) },
  };
}

export const unifiedRewardThinkExperiment: Experiment<RunSummary> = {
  name: 'unified-reward-think',
  runSeed: async (context) => {
    const { out, seed, threads, signal, say } = context;
    const result = await runQuickstart({
      out: join(out, 'run'),
      seed,
      plan: planOf(context),
      resume: true,
      signal,
      ...(threads === undefined ? {} : { threads }),
      onEvent: (event) => {
        if (event.type === 'stage-end') say(`${event.stage}: ${event.seconds.toFixed(0)} s`);
        if (event.type === 'evaluation-end' && event.name === 'test') {
          say(`  seen ${fixed(event.result.accuracy)}, unseen ${fixed(event.result.unseenAccuracy)}`);
        }
      },
    });
    if (result.stopped) throw new Error('nobody stops an experiment');
    return result.summary;
  },
  report: (results) => Promise.resolve(reportOf(results)),
};

type Seed = SeedResult<RunSummary>;
type Comparison = { from: string; to: string; set: string; difference: number; low: number; high: number };

const stageOf = ({ result }: Seed, name: string): RunSummary['stages'][number] =>
  result.stages.find((stage) => stage.name === name)!;
const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null);

function reportOf(results: readonly Seed[]): { markdown: string; plots: Record<string, string> } {
  const columns = [
    ['unseenArtistAccuracy', 'artist never seen'],
    ['accuracy', 'seen artists'],
    ['directAccuracy', 'direct answer'],
    ['perception', 'perception'],
    ['verdictConsistency', 'verdict follows'],
    ['formatRate', 'format'],
    ['orderConsistency', 'order consistency'],
  ] as const;
  const means = stages.map((name) => [
    name,
    ...columns.map(([key]) => spread(results.map((seed) => numberOf(stageOf(seed, name)[key])))),
    mean(results.map((seed) => stageOf(seed, name).seconds)).toFixed(0),
  ]);
  const comparisons = (['unseen', 'seen'] as const).flatMap((set) =>
    stages.slice(1).map((to, i) =>
      differenceRow(
        `${stages[i]!} to ${to}, ${set === 'unseen' ? 'artist never seen' : 'seen artists'}`,
        results.map((seed) =>
          (seed.result['comparisons'] as Comparison[]).find((one) => one.to === to && one.set === set)!,
        ),
      ),
    ),
  );
  const perSeed = results.map((seed) => [
    seed.seed,
    ...stages.map(
      (name) => `${fixed(stageOf(seed, name).unseenArtistAccuracy)} / ${fixed(stageOf(seed, name).accuracy)}`,
    ),
    seed.wallSeconds.toFixed(0),
    (seed.peakMemoryBytes / 2 ** 20).toFixed(0),
  ]);
  const curve = (key: 'unseenArtistAccuracy' | 'accuracy' | 'directAccuracy', shift: number) =>
    stages.map((name, x) => {
      const values = results.flatMap((seed) => numberOf(stageOf(seed, name)[key]) ?? []);
      return { x: x + shift, y: mean(values), low: Math.min(...values), high: Math.max(...values) };
    });
  const plot = linePlot({
    title: 'Test accuracy after each stage: mean and range over seeds',
    xLabel: 'stage',
    yLabel: 'accuracy',
    xNames: [...stages],
    series: [
      { name: 'artist never seen', points: curve('unseenArtistAccuracy', 0) },
      { name: 'seen artists', points: curve('accuracy', 0.05) },
      { name: 'direct answer', markers: true, points: curve('directAccuracy', 0.1) },
    ],
  });
  const markdown = [
    '## Means over seeds',
    table(['stage', ...columns.map(([, name]) => name), 'seconds'], means),
    'Mean ± standard deviation over seeds; greedy; every pair in both orders. Seconds are training alone.',
    '![Test accuracy after each stage](images/unified-reward-think.svg)',
    '## Does a stage help?',
    table(differenceHeader, comparisons),
    '## Every seed (artist never seen / seen artists)',
    table(['seed', ...stages, 'wall seconds', 'peak memory MiB'], perSeed),
  ].join('\n\n');
  return { markdown, plots: { 'unified-reward-think': plot } };
}
