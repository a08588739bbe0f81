/** The curves of a run over its steps, with its stages marked, and of several runs in one picture; as SVG and PNG. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFileAtomically } from './atomic-file.js';
import { guarded } from './file-errors.js';
import { linePlot, type PlotPoint, type PlotSeries, type PlotSpan } from './line-plot.js';
import type { MetricPoint, RunHistory } from './run-history.js';
import type { PngImage } from './tensorboard-events.js';

interface CurveKind {
  /** Name of the file. */
  file: string;
  title: string;
  yLabel: string;
  /** Metrics to draw, the one to compare runs by first; a pattern draws every metric it names. */
  metrics: readonly (string | RegExp)[];
  /** A rate of evaluations that belongs into the same picture. */
  evaluation?: string;
  yRange?: readonly [number, number];
}

/** Of shares, with room for a line at either end. */
const shareRange = [-0.03, 1.03] as const;

const curveKinds: readonly CurveKind[] = [
  { file: 'reward', title: 'Mean reward', yLabel: 'reward', metrics: ['reward', /^rewards\/.+\/mean$/] },
  {
    file: 'accuracy',
    title: 'Accuracy (evaluations with 95 % intervals)',
    yLabel: 'accuracy',
    // Of verdicts, of rankings by a scorer, and of DPO's implicit rewards.
    metrics: ['rewards/accuracy/mean', 'accuracy', 'rewards/accuracies'],
    evaluation: 'accuracy',
    yRange: shareRange,
  },
  {
    file: 'margin',
    title: 'Margin of the better candidate',
    yLabel: 'difference of scores',
    metrics: ['margin', 'rewards/margins'],
    evaluation: 'margin',
  },
  {
    file: 'length',
    title: 'Length of completions',
    yLabel: 'tokens',
    metrics: ['completions/mean_length', 'completions/min_length', 'completions/max_length'],
  },
  { file: 'kl', title: 'KL to the reference', yLabel: 'nats a token', metrics: ['kl'] },
  { file: 'entropy', title: 'Entropy', yLabel: 'nats a token', metrics: ['entropy'] },
  {
    file: 'zero-variance',
    title: 'Share of groups with equal rewards',
    yLabel: 'share',
    metrics: ['frac_reward_zero_std'],
    yRange: shareRange,
  },
  { file: 'loss', title: 'Loss', yLabel: 'loss', metrics: ['loss'] },
  { file: 'grad-norm', title: 'Norm of the gradient', yLabel: 'norm', metrics: ['grad_norm'] },
];

/** SVG documents by name of their file; only of what the run measured. */
export function runPlots({ metrics, evaluations }: RunHistory, name: string): Record<string, string> {
  const spans = stageSpans(metrics);
  const plots = curveKinds.flatMap((kind): [string, string][] => {
    const series = [
      ...namesOf(metrics, kind.metrics).map((metric) => metricSeries(metrics, metric, metric)),
      ...evaluationSeries(evaluations, kind),
    ];
    if (series.length === 0) return [];
    return [[kind.file, plotOf(kind, `${kind.title}: ${name}`, series, spansWith(spans, series))]];
  });
  return Object.fromEntries(plots);
}

/** The spans from the first with a point to the last: what was not measured yet takes no room. */
function spansWith(spans: readonly PlotSpan[], series: readonly PlotSeries[]): PlotSpan[] {
  const xs = series.flatMap(({ points }) => points.map(({ x }) => x));
  const holds = ({ from, to }: PlotSpan, i: number): boolean =>
    xs.some((x) => x > from && x <= to) || (i === 0 && xs.includes(from));
  return spans.slice(spans.findIndex(holds), spans.findLastIndex(holds) + 1);
}

/** One picture a kind of curve, one line a run; only of what at least one run measured. */
export function comparisonPlots(runs: readonly { name: string; history: RunHistory }[]): Record<string, string> {
  const plots = curveKinds.flatMap((kind): [string, string][] => {
    const series = runs.flatMap(({ name, history: { metrics, evaluations } }) => {
      const ofSets = evaluationSeries(evaluations, kind);
      if (ofSets.length > 0) return ofSets.map((line) => ({ ...line, name: `${name}: ${line.name}` }));
      const first = namesOf(metrics, kind.metrics)[0];
      return first === undefined ? [] : [metricSeries(metrics, first, name)];
    });
    return series.length === 0 ? [] : [[kind.file, plotOf(kind, kind.title, series, [])]];
  });
  return Object.fromEntries(plots);
}

/** Where the stages that took steps lie on the axis. */
export function stageSpans(metrics: readonly MetricPoint[]): PlotSpan[] {
  const spans: PlotSpan[] = [];
  for (const { stage, step, runStep } of metrics) {
    const last = spans.at(-1);
    if (last?.name === stage) last.to = runStep;
    else spans.push({ name: stage, from: last?.to ?? runStep - step, to: runStep });
  }
  return spans;
}

/** Writes each plot as `NAME.svg` and `NAME.png`; returns the paths. Errors: 'io', 'disk_full', 'permission_denied'. */
export async function writePlots(folder: string, plots: Readonly<Record<string, string>>): Promise<string[]> {
  await guarded('make', folder, () => mkdir(folder, { recursive: true }));
  const paths: string[] = [];
  for (const [name, svg] of Object.entries(plots)) {
    const path = join(folder, name);
    await writeFileAtomically(`${path}.svg`, svg);
    await writeFileAtomically(`${path}.png`, (await rasterize(svg)).png);
    paths.push(`${path}.svg`, `${path}.png`);
  }
  return paths;
}

/** An SVG as a PNG of twice its size, as event files hold it. */
export async function rasterize(svg: string): Promise<PngImage> {
  const { default: sharp } = await import('sharp');
  const image = sharp(Buffer.from(svg), { density: 144 }).png();
  const { data: png, info } = await image.toBuffer({ resolveWithObject: true });
  return { png, width: info.width, height: info.height };
}

function plotOf(kind: CurveKind, title: string, series: readonly PlotSeries[], spans: readonly PlotSpan[]): string {
  const { yLabel, yRange } = kind;
  return linePlot({
    title,
    xLabel: 'step of the run',
    yLabel,
    series,
    spans,
    ...(yRange === undefined ? {} : { yRange }),
  });
}

/** The metrics there are, in the order asked for; those of a pattern by name. */
function namesOf(metrics: readonly MetricPoint[], wanted: CurveKind['metrics']): string[] {
  const known = new Set(metrics.flatMap(({ values }) => Object.keys(values)));
  return wanted.flatMap((name) =>
    typeof name === 'string' ? (known.has(name) ? [name] : []) : [...known].filter((found) => name.test(found)).sort(),
  );
}

/** About forty windows over the whole of a long line. */
const windowOf = (count: number): { smooth?: number } => (count < 60 ? {} : { smooth: 2 * Math.floor(count / 80) + 3 });

function metricSeries(metrics: readonly MetricPoint[], metric: string, name: string): PlotSeries {
  let stage: string | undefined;
  const points = metrics.flatMap((line): PlotPoint[] => {
    const y = line.values[metric];
    if (y === undefined) return [];
    const starts = line.stage !== stage;
    stage = line.stage;
    return [{ x: line.runStep, y, ...(starts ? { starts } : {}) }];
  });
  return { name, points, ...windowOf(points.length) };
}

function evaluationSeries(evaluations: RunHistory['evaluations'], { evaluation }: CurveKind): PlotSeries[] {
  if (evaluation === undefined) return [];
  const found = evaluations.filter(({ values }) => values[evaluation] !== undefined);
  return [...new Set(found.map(({ name }) => name))].map((name) => ({
    name,
    markers: true,
    points: found
      .filter((point) => point.name === name)
      .map(({ runStep, values }) => {
        const [low, high] = [values[`${evaluation}Low`], values[`${evaluation}High`]];
        const ends = low === undefined || high === undefined ? {} : { low, high };
        return { x: runStep, y: values[evaluation]!, ...ends };
      }),
  }));
}
