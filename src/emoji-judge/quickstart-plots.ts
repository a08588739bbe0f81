/** The curves of a quickstart, from its own logs, so that a resumed run draws all of it. */
import { linePlot, type PlotPoint } from '../runs/line-plot.js';
import { readJsonLines } from '../runs/json-lines.js';
import type { RunFolder } from '../runs/run-folder.js';
import type { StageSummary } from '../runs/summary.js';

interface MetricLine {
  stage: string;
  step: number;
  [name: string]: unknown;
}

interface EvaluationLine {
  type: string;
  stage: string;
  step: number;
  result: { name: string; accuracy: number | null; accuracyLow: number | null; accuracyHigh: number | null };
}

/** SVG documents by file name. */
export async function quickstartPlots(
  run: RunFolder,
  stages: readonly StageSummary[],
): Promise<Record<string, string>> {
  await run.flush();
  const metrics: MetricLine[] = [];
  for await (const line of readJsonLines(run.file('metrics.jsonl'))) metrics.push(line as MetricLine);
  const evaluations: EvaluationLine[] = [];
  for await (const line of readJsonLines(run.file('events.jsonl'))) {
    const event = line as EvaluationLine;
    if (event.type === 'evaluation-end' && event.stage === 'cold-start') evaluations.push(event);
  }
  const curve = (stage: string, name: string): PlotPoint[] =>
    metrics
      .filter((line) => line.stage === stage && typeof line[name] === 'number')
      .map((line) => ({ x: line.step, y: line[name] as number }));
  const judging = stages.filter(({ accuracy }) => accuracy !== null);
  const bar = (y: number | null, low: unknown, high: unknown, x: number): PlotPoint[] =>
    y === null ? [] : [{ x, y, ...(typeof low === 'number' && typeof high === 'number' ? { low, high } : {}) }];
  return {
    accuracy: linePlot({
      title: 'Test accuracy after each stage (95 % intervals)',
      xLabel: 'stage',
      yLabel: 'accuracy',
      xNames: judging.map(({ name }) => name),
      series: [
        { name: 'seen artists', points: judging.flatMap((s, x) => bar(s.accuracy, s.accuracyLow, s.accuracyHigh, x)) },
        {
          name: 'unseen artist',
          points: judging.flatMap((s, x) =>
            bar(s.unseenArtistAccuracy, s['unseenArtistAccuracyLow'], s['unseenArtistAccuracyHigh'], x + 0.05),
          ),
        },
        {
          name: 'direct answer',
          markers: true,
          points: judging.flatMap((s, x) => bar(s.directAccuracy, null, null, x)),
        },
      ],
    }),
    'cold-start': linePlot({
      title: 'Cold start: validation accuracy while it searches its stopping point',
      xLabel: 'step',
      yLabel: 'accuracy',
      series: [
        {
          name: 'validation',
          points: evaluations.flatMap(({ step, result: r }) => bar(r.accuracy, r.accuracyLow, r.accuracyHigh, step)),
        },
      ],
    }),
    loss: linePlot({
      title: 'Supervised loss (nats a token)',
      xLabel: 'step',
      yLabel: 'loss',
      series: ['perception', 'cold-start', 'rejection/train'].map((name) => ({
        name,
        smooth: 9,
        points: curve(name, 'loss'),
      })),
    }),
    reward: linePlot({
      title: 'GRPO: mean reward of a rollout',
      xLabel: 'step',
      yLabel: 'reward',
      series: [
        { name: 'reward', smooth: 9, points: curve('grpo', 'reward') },
        { name: 'zero-variance groups', smooth: 9, points: curve('grpo', 'frac_reward_zero_std') },
      ],
    }),
    kl: linePlot({
      title: 'GRPO: KL to the reference (nats a token)',
      xLabel: 'step',
      yLabel: 'KL',
      series: [{ name: 'kl', smooth: 5, points: curve('grpo', 'kl') }],
    }),
  };
}
