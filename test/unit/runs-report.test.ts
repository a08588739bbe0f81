// What a reader finds in run folders: state, history on one axis, curves; damaged and older runs are said, never a crash.
import { appendFile, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readEvaluationMarks } from '../../src/runs/evaluation-marks.js';
import { linePlot } from '../../src/runs/line-plot.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { readRunHistory } from '../../src/runs/run-history.js';
import { comparisonPlots, runPlots, stageSpans, writePlots } from '../../src/runs/run-plots.js';
import { tensorboardFileName } from '../../src/runs/tensorboard.js';
import { findRuns, readRunReport } from '../../src/runs/run-report.js';

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-report-'));
  path = join(folder, 'run');
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const config = { run: 'run', stages: [{ name: 'cold', recipe: 'sft' }] };

/** Two stages as recipes log them. */
function log(run: RunFolder): void {
  run.logEvent({ type: 'stage-start', stage: 'cold', recipe: 'sft', budgetSeconds: null });
  for (const step of [1, 2, 3]) {
    run.logMetrics({ stage: 'cold', step, loss: 4 - step, grad_norm: 1 });
    run.logEvent({ type: 'step-end', stage: 'cold', step, loss: 4 - step, reward: null });
  }
  const result = { count: 2, accuracy: 0.5, accuracyLow: 0.1, accuracyHigh: 0.9, formatRate: 1, marks: { a: 1, b: 0 } };
  run.logEvent({ type: 'evaluation-end', stage: 'cold', name: 'validation', step: 3, result });
  run.logEvent({ type: 'stage-end', stage: 'cold', seconds: 12, tokensPerSecond: 5, restored: false });
  run.logEvent({ type: 'stage-start', stage: 'rl', recipe: 'grpo', budgetSeconds: null });
  for (const step of [1, 2]) {
    run.logMetrics({ stage: 'rl', step, loss: 0.1, reward: step / 2, kl: 0, frac_reward_zero_std: 0.5 });
    run.logEvent({ type: 'step-end', stage: 'rl', step, loss: 0.1, reward: step / 2 });
  }
}

async function make(end?: object): Promise<void> {
  await using run = await RunFolder.open(path, config);
  log(run);
  await run.saveCheckpoint(5, {}, (to) => writeFile(join(to, 'weights'), 'w'.repeat(100)));
  if (end !== undefined) run.logEvent(end);
}
const nothingDamaged = (error: Error): never => {
  throw error;
};

describe('a report', () => {
  it('tells stages, last numbers, checkpoints and size', async () => {
    await make({ type: 'run-end', reason: 'finished', seconds: 20 });
    const report = await readRunReport(path);
    expect(report).toMatchObject({ name: 'run', state: 'finished', reason: null, config, steps: 5, problems: [] });
    expect(report).toMatchObject({ reward: 1, accuracy: 0.5, lastMetrics: { stage: 'rl', step: 2, kl: 0 } });
    expect(report.stages).toEqual([
      { stage: 'cold', recipe: 'sft', steps: 3, loss: 1, reward: null, seconds: 12 },
      { stage: 'rl', recipe: 'grpo', steps: 2, loss: 0.1, reward: 1, seconds: null },
    ]);
    expect(report.evaluations).toMatchObject([{ stage: 'cold', name: 'validation', step: 3, accuracy: 0.5 }]);
    expect(report.checkpoints).toMatchObject([{ step: 5 }]);
    expect(report.checkpoints[0]!.sizeBytes).toBeGreaterThan(100);
    expect(report.sizeBytes).toBeGreaterThan(report.checkpoints[0]!.sizeBytes);
  });

  it('tells what a scorer and a selection were measured at', async () => {
    await make();
    const rate = (value: number) => ({ value, low: value - 0.1, high: value + 0.1 });
    await using run = await RunFolder.open(path, config, { resume: true });
    const scored = { count: 4, accuracyWithoutTies: 0.75, low: 0.3, high: 0.95 };
    run.logEvent({ type: 'scoring-end', stage: 'scorer', name: 'pairs', step: 8, result: scored });
    const atSize = [
      { size: 1, passAt1: rate(0.5), majority: rate(0.5), select: null, passAtN: rate(0.5) },
      { size: 3, passAt1: rate(0.5), majority: rate(0.6), select: rate(0.7), passAtN: rate(0.8) },
    ];
    const result = { count: 10, atSize, refine: { before: rate(0.5), after: rate(0.4) } };
    run.logEvent({ type: 'selection-end', stage: 'select', name: 'test', step: 0, result });
    await run.flush();
    const { accuracy, evaluations } = await readRunReport(path);
    expect(accuracy).toBe(0.75);
    expect(evaluations.slice(1).map((found) => [found.stage, found.name, found.count, found.accuracy])).toEqual([
      ['scorer', 'pairs', 4, 0.75],
      ['select', 'test, pass@1, N = 1', 10, 0.5],
      ['select', 'test, majority, N = 1', 10, 0.5],
      ['select', 'test, pass@1, N = 3', 10, 0.5],
      ['select', 'test, majority, N = 3', 10, 0.6],
      ['select', 'test, select, N = 3', 10, 0.7],
      ['select', 'test, refined', 10, 0.4],
    ]);
    expect(evaluations[1]).toMatchObject({ step: 8, accuracyLow: 0.3, accuracyHigh: 0.95, formatRate: null });
  });

  it.each([
    ['finished', { type: 'run-end', reason: 'finished' }, 'finished', null],
    ['stopped', { type: 'run-end', reason: 'stopped' }, 'stopped', null],
    ['failed', { type: 'run-end', reason: 'failed', error: 'no memory' }, 'failed', 'no memory'],
    ['aborted', { type: 'run-end', reason: 'aborted' }, 'failed', 'aborted'],
    ['killed', undefined, 'failed', 'It ended without a word: killed, or the machine stopped.'],
  ])('of a run that was %s', async (_, end, state, reason) => {
    await make(end);
    expect(await readRunReport(path)).toMatchObject({ state, reason });
  });

  it('of a run that is being written says so, and takes no lock', async () => {
    await using run = await RunFolder.open(path, config);
    log(run);
    await run.flush();
    expect(await readRunReport(path)).toMatchObject({
      state: 'running',
      reason: `process ${process.pid} writes to it`,
    });
    await writeFile(join(path, 'run.lock'), '99999999\n');
    expect((await readRunReport(path)).state).toBe('failed');
    await writeFile(join(path, 'run.lock'), 'no number');
    expect((await readRunReport(path)).state).toBe('failed');
  });

  it('of damaged logs names the lines and tells the rest', async () => {
    await make();
    await appendFile(join(path, 'events.jsonl'), 'rubbish\n{"type":"evaluation-end","stage":3}\n[1]\n{"torn');
    await appendFile(join(path, 'metrics.jsonl'), 'rubbish\n{"stage":"rl","step":3,"loss":0.5}\n');
    await writeFile(join(path, 'config.json'), '{');
    const report = await readRunReport(path);
    expect(report.problems.join('\n')).toMatch(
      /config\.json is no JSON[^]*events\.jsonl[^]*line 6 of .*metrics\.jsonl/,
    );
    expect(report).toMatchObject({ config: null, reward: 1, lastMetrics: { step: 3, loss: 0.5 } });
    await writeFile(join(path, 'config.json'), '[]');
    expect((await readRunReport(path)).problems[0]).toContain('holds no object');
  });

  it('of a run with files missing tells what there is; of no run it is an error', async () => {
    await mkdir(join(path, 'checkpoints'), { recursive: true });
    const report = await readRunReport(path);
    expect(report).toMatchObject({ config: null, stages: [], steps: 0, lastMetrics: null, startedAt: null });
    expect(report.problems).toHaveLength(2);
    await expect(readRunReport(folder)).rejects.toMatchObject({ code: 'io' });
    await expect(readRunReport(join(folder, 'none'))).rejects.toMatchObject({ code: 'io' });
  });

  it('lists runs at any depth, one that is the folder itself, and no others', async () => {
    for (const name of ['b', 'a/inner', '.hidden']) {
      await (await RunFolder.open(join(folder, name), config)).close();
    }
    await mkdir(join(folder, 'empty'));
    expect(await findRuns(folder)).toEqual([join(folder, 'a/inner'), join(folder, 'b')]);
    expect(await findRuns(join(folder, 'b'))).toEqual([join(folder, 'b')]);
    await expect(findRuns(join(folder, 'none'))).rejects.toMatchObject({ code: 'io' });
  });
});

describe('a history', () => {
  it('puts stages on one axis, metrics and evaluations alike', async () => {
    await make();
    const { metrics, evaluations } = await readRunHistory(path, nothingDamaged);
    expect(metrics.map(({ stage, runStep }) => `${stage} ${runStep}`)).toEqual([
      ...['cold 1', 'cold 2', 'cold 3'],
      ...['rl 4', 'rl 5'],
    ]);
    expect(evaluations).toMatchObject([{ name: 'validation', step: 3, runStep: 3, values: { accuracy: 0.5 } }]);
    expect(stageSpans(metrics)).toEqual([
      { name: 'cold', from: 0, to: 3 },
      { name: 'rl', from: 3, to: 5 },
    ]);
  });

  it('leaves out what a stage went back over', async () => {
    await using run = await RunFolder.open(path, config);
    const evaluate = (step: number, accuracy: number): void =>
      run.logEvent({ type: 'evaluation-end', stage: 's', name: 'v', step, result: { accuracy } });
    for (const [step, loss] of [
      [1, 10],
      [2, 20],
      [3, 30],
      [2, 21],
      [3, 31],
    ] as const) {
      run.logMetrics({ stage: 's', step, loss });
      run.logEvent({ type: 'step-end', stage: 's', step, loss });
      evaluate(step, loss / 100);
    }
    run.logMetrics({ stage: 't', step: 1, loss: 40 });
    await run.flush();
    const { metrics, evaluations } = await readRunHistory(path, nothingDamaged);
    expect(metrics.map(({ runStep, values }) => [runStep, values['loss']])).toEqual([
      [1, 10],
      [2, 21],
      [3, 31],
      [4, 40],
    ]);
    expect(evaluations.map(({ runStep, values }) => [runStep, values['accuracy']])).toEqual([
      [1, 0.1],
      [2, 0.21],
      [3, 0.31],
    ]);
  });

  it('keeps the marks of the last evaluation of a set, cut on resume like the logs', async () => {
    await make();
    expect(await readEvaluationMarks(path, nothingDamaged)).toEqual([
      { stage: 'cold', name: 'validation', step: 3, marks: new Map(Object.entries({ a: 1, b: 0 })) },
    ]);
    expect(await readFile(join(path, 'events.jsonl'), 'utf8')).not.toContain('"marks"');
    const run = await RunFolder.open(path, config, { resume: true });
    const evaluation = { type: 'evaluation-end', stage: 'cold', name: 'validation', step: 4 };
    run.logEvent({ ...evaluation, result: { accuracy: 1, marks: { a: 1, b: 1 } } });
    await run.close();
    const again = await RunFolder.open(path, config, { resume: true });
    await again.close();
    expect((await readEvaluationMarks(path, nothingDamaged)).map(({ step }) => step)).toEqual([3]);
    await rm(join(path, 'evaluations.jsonl'));
    expect(await readEvaluationMarks(path, nothingDamaged)).toEqual([]);
  });
});

describe('a scorer and a selection', () => {
  const rate = (value: number) => ({ value, low: value - 0.1, high: value + 0.1 });
  async function makeScorer(): Promise<void> {
    await using run = await RunFolder.open(path, config);
    run.logEvent({ type: 'stage-start', stage: 'jrm', recipe: 'joint', budgetSeconds: null });
    for (const step of [1, 2]) {
      run.logMetrics({ stage: 'jrm', step, loss: 1 / step, grad_norm: 1, accuracy: step / 4, margin: step / 10 });
      run.logEvent({ type: 'step-end', stage: 'jrm', step, loss: 1 / step, reward: null });
      const result = {
        count: 2,
        accuracyWithoutTies: step / 2,
        low: 0,
        high: 1,
        margin: step,
        calibration: { ece: 0 },
      };
      run.logEvent({
        ...{ type: 'scoring-end', stage: 'jrm', name: 'pairs', step, result },
        marks: { a: 1, b: step - 1 },
      });
    }
    const atSize = [{ size: 3, passAt1: rate(0.5), majority: rate(0.5), select: rate(1), passAtN: rate(1) }];
    run.logEvent({
      ...{ type: 'selection-end', stage: 'select', name: 'test', step: 0 },
      result: { count: 2, atSize, refine: { before: rate(0.5), after: rate(0.5) } },
      marks: {
        'passAt1@3': { x: 1, y: 0 },
        'majority@3': { x: 1, y: 0 },
        'select@3': { x: 1, y: 1 },
        refine: { x: 0 },
      },
    });
  }

  it('keep marks by item, out of the events', async () => {
    await makeScorer();
    const marks = await readEvaluationMarks(path, nothingDamaged);
    expect(marks.map(({ stage, name, step, marks: of }) => [stage, name, step, Object.fromEntries(of)])).toEqual([
      ['jrm', 'pairs', 2, { a: 1, b: 1 }],
      ['select', 'test, pass@1, N = 3', 0, { x: 1, y: 0 }],
      ['select', 'test, majority, N = 3', 0, { x: 1, y: 0 }],
      ['select', 'test, select, N = 3', 0, { x: 1, y: 1 }],
      ['select', 'test, refined', 0, { x: 0 }],
    ]);
    expect(await readFile(join(path, 'events.jsonl'), 'utf8')).not.toContain('"marks"');
  });

  it('are on the axis of the run, in the curves and in the event file', async () => {
    await makeScorer();
    const history = await readRunHistory(path, nothingDamaged);
    expect(history.evaluations.slice(0, 2)).toMatchObject([
      { name: 'pairs', runStep: 1, values: { accuracy: 0.5, accuracyLow: 0, accuracyHigh: 1, margin: 1 } },
      { name: 'pairs', runStep: 2, values: { accuracy: 1, margin: 2 } },
    ]);
    expect(history.evaluations.at(-2)).toMatchObject({
      name: 'test, select, N = 3',
      values: { accuracy: 1, count: 2 },
    });
    const plots = runPlots(history, 'jrm');
    expect(Object.keys(plots)).toEqual(['accuracy', 'margin', 'loss', 'grad-norm']);
    for (const file of ['accuracy', 'margin']) {
      // The ranking's own number of each step, and the validation's.
      expect(plots[file]).toContain(`>${file}</text>`);
      expect(plots[file]).toContain('>pairs</text>');
    }
    const events = await readFile(join(path, tensorboardFileName), 'latin1');
    for (const tag of ['jrm/evaluation/pairs/accuracy', 'select/evaluation/test, select, N = 3/accuracy']) {
      expect(events).toContain(tag);
    }
  });
});

describe('curves', () => {
  it('are drawn of what was measured, with stages marked, as SVG and PNG', async () => {
    await make();
    const plots = runPlots(await readRunHistory(path, nothingDamaged), 'a <run>');
    expect(Object.keys(plots)).toEqual(['reward', 'accuracy', 'kl', 'zero-variance', 'loss', 'grad-norm']);
    expect(plots['loss']).toContain('>cold</text>');
    expect(plots['loss']).toContain('<title>rl</title>');
    expect(plots['loss']).toContain('Loss: a &lt;run&gt;');
    // Only reinforcement learning has rewards, so the axis holds nothing else.
    expect(plots['reward']).not.toContain('>cold</text>');
    const paths = await writePlots(join(folder, 'plots', 'of run'), plots);
    expect(paths).toHaveLength(12);
    const { width, height, format } = await sharp(join(folder, 'plots', 'of run', 'loss.png')).metadata();
    expect({ width, height, format }).toEqual({ width: 1520, height: 800, format: 'png' });
  });

  it('of several runs are lines of one picture', async () => {
    await make();
    const history = await readRunHistory(path, nothingDamaged);
    const plots = comparisonPlots([
      { name: 'one', history },
      { name: 'two', history },
    ]);
    for (const name of ['one', 'two']) expect(plots['loss']).toContain(`>${name}</text>`);
    expect(plots['accuracy']).toContain('>two: validation</text>');
  });

  it('of nothing are none', () => {
    expect(runPlots({ metrics: [], evaluations: [] }, 'x')).toEqual({});
    expect(comparisonPlots([])).toEqual({});
  });

  it('break where a stage begins, show a lone point, and wrap a long legend', () => {
    const svg = linePlot({
      title: 't',
      xLabel: 'x',
      yLabel: 'y',
      series: Array.from({ length: 9 }, (_, i) => ({
        name: `a series with a long name ${i}`,
        points: [
          { x: 0, y: i },
          { x: 1, y: i + 1 },
          { x: 2, y: i, starts: true },
        ],
      })),
      spans: [{ name: 'n', from: 0, to: 2 }],
    });
    expect(svg.match(/ d="M[\d.]+ [\d.]+ L[\d.]+ [\d.]+ M/g)).toHaveLength(9);
    expect(svg.match(/<circle/g)).toHaveLength(9);
    expect(svg.match(/stroke-dasharray="6 3"/g)).toHaveLength(3);
    const rows = new Set([...svg.matchAll(/<rect x="[\d.]+" y="(\d+)" width="14"/g)].map(([, y]) => y));
    expect(rows.size).toBeGreaterThan(1);
    const xs = [...svg.matchAll(/<rect x="([\d.]+)" y="\d+" width="14"/g)].map(([, x]) => Number(x));
    expect(Math.max(...xs)).toBeLessThan(760);
  });
});

it('a run of an older version, without the newer files, is read and resumed', async () => {
  await make();
  for (const name of ['evaluations.jsonl', 'events.out.tfevents.1.gavel']) await rm(join(path, name));
  await rm(join(path, 'samples'), { recursive: true });
  const manifest = join(path, 'checkpoints', 'step-000005', 'manifest.json');
  const value = JSON.parse(await readFile(manifest, 'utf8')) as { logs: Record<string, number> };
  const { events, metrics } = value.logs;
  await writeFile(manifest, JSON.stringify({ ...value, logs: { events, metrics } }));
  expect((await readRunReport(path)).problems).toEqual([]);
  const run = await RunFolder.open(path, config, { resume: true });
  run.logMetrics({ stage: 'rl', step: 3, loss: 0.1 });
  await run.close();
  expect((await readRunHistory(path, nothingDamaged)).metrics.at(-1)).toMatchObject({ runStep: 6 });
  expect((await stat(join(path, 'events.out.tfevents.1.gavel'))).size).toBeGreaterThan(100);
});
