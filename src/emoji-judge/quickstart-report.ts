/** What a finished quickstart leaves: summary.json, plots, the page of judged examples, and two pictures to judge. */
import { mkdir } from 'node:fs/promises';
import sharp from 'sharp';
import { packageRoot } from '../binding/load.js';
import type { EncodedRow } from '../data/processor.js';
import { imageMark } from '../data/rows.js';
import type { StageResults } from '../recipes/pipeline.js';
import { Pace } from '../pace.js';
import type { Policy } from '../recipes/policy.js';
import type { EvaluationResult } from '../recipes/evaluate.js';
import { pairedBootstrap, type BootstrapResult } from '../evaluation/bootstrap.js';
import { writeFileAtomically } from '../runs/atomic-file.js';
import { examplesPage, type JudgedExample, type MarkedWord } from '../runs/examples-page.js';
import type { RunFolder } from '../runs/run-folder.js';
import { rasterize } from '../runs/run-plots.js';
import { peakMemoryBytes } from '../runs/peak-memory.js';
import { commitOf, writeSummary, type RunSummary, type StageSummary } from '../runs/summary.js';
import { judgeRow } from './items.js';
import type { JudgePair } from './pair.js';
import { quickstartPlots } from './quickstart-plots.js';
import type { QuickstartData } from './quickstart-data.js';
import type { QuickstartPlan } from './quickstart-run.js';
import { type CellWords, emptyWord, type Scene } from './scene.js';
import { parseTrace, splitBlocks } from './traces.js';
import { judgePrompt } from './prompts.js';

export interface ReportParts {
  run: RunFolder;
  policy: Policy;
  data: QuickstartData;
  plan: QuickstartPlan;
  seed: number;
  signal: AbortSignal | undefined;
  /** Seconds and speed of each stage, earlier processes included. */
  clock: ReadonlyMap<string, { seconds: number; tokensPerSecond: number | null }>;
  startedMs: number;
  finalFolder: string;
  results: StageResults;
  stageNames: readonly string[];
}

export interface QuickstartReport {
  summary: RunSummary;
  pagePath: string;
  judgeArguments: string[];
}

interface Comparison extends BootstrapResult {
  from: string;
  to: string;
  set: 'seen' | 'unseen';
}

const numExamples = 24;

export async function reportQuickstart(parts: ReportParts): Promise<QuickstartReport> {
  const { run, data, plan, stageNames, results, clock, finalFolder } = parts;
  const stages = stageNames.map((name) => stageSummary(name, results, clock));
  const comparisons = await compareStages(stageNames, results, plan);
  const plots = await quickstartPlots(run, stages);
  await mkdir(run.file('plots'), { recursive: true });
  for (const [name, svg] of Object.entries(plots)) {
    await writeFileAtomically(run.file('plots', `${name}.svg`), svg);
    run.logImage(`plots/${name}`, await rasterize(svg));
  }
  const examples = await judgedExamples(parts);
  const pair = data.testPair(0, plan.test.seen);
  const imagePaths = [run.file('a.png'), run.file('b.png')];
  for (const [i, path] of imagePaths.entries()) await writeFileAtomically(path, await png(pair.scenes[i]!));
  const total = clock.get('quickstart')?.seconds ?? (performance.now() - parts.startedMs) / 1000;
  const summary: RunSummary = {
    stages,
    peakMemoryBytes: peakMemoryBytes(),
    wallSeconds: Math.max(total, (performance.now() - parts.startedMs) / 1000),
    commit: await commitOf(packageRoot),
    seed: parts.seed,
    comparisons,
  };
  const pagePath = run.file('examples.html');
  await writeFileAtomically(pagePath, page(summary, Object.values(plots), examples));
  await writeSummary(run.file('summary.json'), summary);
  // The command puts the pictures before the prompt by itself.
  const prompt = judgePrompt(pair.caption).replaceAll(imageMark, '').trim();
  const judgeArguments = [
    'judge',
    '--model',
    finalFolder,
    ...imagePaths.flatMap((path) => ['--image', path]),
    '--prompt',
    prompt,
  ];
  return { summary, pagePath, judgeArguments };
}

function stageSummary(name: string, results: StageResults, clock: ReportParts['clock']): StageSummary {
  const test = results[`${name}-test`] as EvaluationResult;
  const { seconds, tokensPerSecond } = clock.get(name) ?? { seconds: 0, tokensPerSecond: null };
  const timing = { seconds, tokensPerSecond };
  // Perception pre-training knows no verdict: only what it sees can be measured.
  if (name === 'perception') {
    const none = {
      accuracy: null,
      accuracyLow: null,
      accuracyHigh: null,
      unseenArtistAccuracy: null,
      directAccuracy: null,
    };
    const { perception = null, unseenPerception = null } = test.extras;
    return { name, ...none, formatRate: null, orderConsistency: null, ...timing, perception, unseenPerception };
  }
  const { accuracy, accuracyLow, accuracyHigh, unseenAccuracy, directAccuracy, formatRate, orderConsistency } = test;
  return {
    name,
    accuracy,
    accuracyLow,
    accuracyHigh,
    unseenArtistAccuracy: unseenAccuracy,
    directAccuracy,
    formatRate,
    orderConsistency,
    ...timing,
    unseenArtistAccuracyLow: test.unseenAccuracyLow,
    unseenArtistAccuracyHigh: test.unseenAccuracyHigh,
    unparsedRate: test.unparsedRate,
    truncatedRate: test.truncatedRate,
    testItems: test.count,
    unseenTestItems: test.unseenCount,
    ...test.extras,
  };
}

/** Each judging stage against the one before, on the same test items. */
async function compareStages(
  names: readonly string[],
  results: StageResults,
  plan: QuickstartPlan,
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  const judging = names.filter((name) => name !== 'perception');
  for (const [i, to] of judging.entries()) {
    const from = judging[i - 1];
    if (from === undefined) continue;
    const marksOf = (name: string): number[] => Object.values((results[`${name}-test`] as EvaluationResult).marks);
    const [before, after] = [marksOf(from), marksOf(to)];
    const { seen } = plan.test;
    comparisons.push({
      from,
      to,
      set: 'seen',
      ...(await pairedBootstrap(before.slice(0, seen), after.slice(0, seen))),
    });
    if (before.length > seen) {
      comparisons.push({ from, to, set: 'unseen', ...(await pairedBootstrap(before.slice(seen), after.slice(seen))) });
    }
  }
  return comparisons;
}

/** Judges the first test items of both kinds with the final weights, greedily. */
async function judgedExamples({ policy, data, plan, signal }: ReportParts): Promise<JudgedExample[]> {
  const { seen, unseen } = plan.test;
  const half = Math.min(numExamples / 2, seen, unseen);
  const indices = Array.from({ length: 2 * half }, (_, i) => (i < half ? i : seen + i - half));
  const pairs: JudgePair[] = [];
  const pace = new Pace();
  for (const index of indices) {
    pairs.push(data.testPair(index, seen));
    await pace.breathe();
  }
  const quiet = signal ?? new AbortController().signal;
  const rows: EncodedRow[] = await policy.encode(
    pairs.map((pair) => judgeRow(pair, false)),
    quiet,
  );
  const texts = new Array<string>(pairs.length).fill('');
  const options = {
    count: 1,
    seed: 0,
    temperature: 0,
    maxNewTokens: plan.evaluation.maxNewTokens ?? 64,
    signal: quiet,
  };
  await policy.draw(rows, options, ({ item, text }) => (texts[item] = text));
  return Promise.all(pairs.map((pair, i) => exampleOf(pair, texts[i]!, data.words, i < half)));
}

async function exampleOf(
  pair: JudgePair,
  text: string,
  words: readonly string[],
  isSeen: boolean,
): Promise<JudgedExample> {
  const sources = await Promise.all(
    pair.scenes.map(async (scene) => `data:image/png;base64,${(await png(scene)).toString('base64')}`),
  );
  const describe = (cells: CellWords): string =>
    cells.map((word) => (word === emptyWord ? 'nothing' : word)).join(', ');
  const trace = parseTrace(text, words);
  return {
    title: `${pair.artist}${isSeen ? '' : ' (artist without rationales)'}`,
    prompt: describe(pair.caption),
    pictures: sources.map((source, i) => ({ source, description: describe(pair.cells[i]!) })),
    rationale:
      trace === null
        ? text
        : trace.pictures.map(({ cells, score }, i) => ({
            label: `Image ${i + 1}`,
            words: [
              ...cells.flatMap(({ word, ok }, cell): MarkedWord[] => [
                { text: word, right: word === pair.cells[i]![cell], truth: pair.cells[i]![cell]! },
                { text: ok ? 'ok' : 'no', right: ok === (word === pair.caption[cell]) },
              ]),
              { text: String(score), right: cells.filter(({ ok }) => ok).length === score },
            ],
          })),
    verdict: splitBlocks(text)?.answer ?? null,
    truth: pair.verdict,
  };
}

function png({ rgb, width, height }: Scene): Promise<Buffer> {
  return sharp(rgb, { raw: { width, height, channels: 3 } })
    .png()
    .toBuffer();
}

function page(summary: RunSummary, plots: readonly string[], examples: readonly JudgedExample[]): string {
  const rate = (value: unknown): string => (typeof value === 'number' ? value.toFixed(3) : '-');
  const columns = [
    'stage',
    'accuracy',
    '95 % interval',
    'unseen artist',
    'direct',
    'perception',
    'format',
    'order',
    'seconds',
  ];
  const rows = summary.stages.map((stage) => [
    stage.name,
    rate(stage.accuracy),
    stage.accuracy === null ? '-' : `${rate(stage.accuracyLow)} to ${rate(stage.accuracyHigh)}`,
    rate(stage.unseenArtistAccuracy),
    rate(stage.directAccuracy),
    rate(stage['perception']),
    rate(stage.formatRate),
    rate(stage.orderConsistency),
    stage.seconds.toFixed(1),
  ]);
  const right = examples.filter(({ verdict, truth }) => verdict === truth).length;
  return examplesPage({
    title: 'Emoji judge: judged examples',
    introduction: [
      'A caption says what stands in each of four cells (top left, top right, bottom left, bottom right); the judge says which of two pictures follows it better, and why.',
      `Final weights, greedy, the first test items as they come: ${right} of ${examples.length} right. One run, seed ${String(summary['seed'])}.`,
      'In a rationale: what the judge sees in each cell, whether that is what the caption says (ok, no), and the number of right cells. A tick marks what is right about the picture or follows from it.',
    ],
    table: { columns, rows },
    plots,
    examples,
  });
}
