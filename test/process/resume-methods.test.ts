// `kill -9` in every stage of the three methods, run from their examples on a tiny model: what is resumed samples nothing
// twice, repeats GRPO's steps since the checkpoint bit for bit, and ends with the weights of a run that nobody disturbed.
import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { picture } from '../support/pictures.js';
import { root, type Ending } from './child.js';

/** The moment of a kill: once this event is told. */
interface Moment {
  type: 'step-end' | 'sampling-progress';
  stage: string;
  at: number;
  /** Steps between checkpoints. */
  every: number;
}

interface Told {
  type: string;
  stage: string;
  step: number;
  purpose: string;
  done: number;
  tokensPerSecond: number;
}

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'gavel-resume-'));
  await mkdir(join(base, 'examples'));
  await mkdir(join(base, 'data'));
  for (const name of ['base', 'judge']) {
    await cp(join(root, 'test/goldens/micro-vl'), join(base, 'models', name), {
      recursive: true,
      filter: (path) => !path.endsWith('.safetensors'),
    });
  }
  await writeData();
});
afterAll(() => rm(base, { recursive: true, force: true }));

/** What the examples' paths name, small. "e" stands in about every other text of a model that has learnt nothing. */
async function writeData(): Promise<void> {
  for (let i = 0; i < 4; i++) {
    const { rgb, width, height } = picture(28, 28, i);
    await sharp(rgb, { raw: { width, height, channels: 3 } })
      .png()
      .toFile(join(base, 'data', `${i}.png`));
  }
  const images = (i: number): string[] => [`${i % 4}.png`, `${(i + 1) % 4}.png`];
  const lines = (count: number, row: (i: number) => object): string =>
    Array.from({ length: count }, (_, i) => `${JSON.stringify(row(i))}\n`).join('');
  const judged = (i: number): object => ({
    id: `q${i}`,
    prompt: '<image><image> which',
    images: images(i),
    solution: 'e',
  });
  const asked = (i: number): object => ({
    id: `q${i}`,
    prompt: '<image> what',
    images: [`${i % 4}.png`],
    solution: 'e',
  });
  const completion = '<think>he</think><answer>e</answer>';
  const candidate = (i: number): object => ({
    prompt: '<image> rate',
    images: [`${i % 4}.png`],
    completion: `so ${i % 3}`,
  });
  const pair = (i: number): object => ({
    ...{ id: `p${i}`, first: candidate(i), second: candidate(i + 1), preference: i % 2 === 0 ? 'first' : 'second' },
  });
  const files: Record<string, string> = {
    'rationales.jsonl': lines(12, (i) => ({ ...judged(i), completion })),
    'labelled.jsonl': lines(9, judged),
    'validation.jsonl': lines(3, judged),
    'test.jsonl': lines(6, judged),
    'pairs.jsonl': lines(12, pair),
    'validation-pairs.jsonl': lines(4, pair),
    'test-pairs.jsonl': lines(4, pair),
    'questions.jsonl': lines(8, asked),
    'distilled.jsonl': lines(6, (i) => ({ ...asked(i), completion })),
    'preferences.jsonl': lines(12, (i) => ({
      ...{ prompt: '<image> what', images: [`${i % 4}.png`], chosen: `a ${i}`, rejected: `the ${i}` },
    })),
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(base, 'data', name), text);
}

/** `gavel train` of an example in the folder above; with `kill` the process ends there. */
async function train(example: string, run: string, sets: readonly string[], kill?: Moment): Promise<Ending> {
  await cp(join(root, 'examples', example), join(base, 'examples', example));
  const all = [`run=${join(base, run)}`, 'model.initializeSeed=7', 'model.dtype=fp32', 'engine.threads=2', ...sets];
  const args = [
    'train',
    join(base, 'examples', example),
    '--json',
    '--resume',
    ...all.flatMap((set) => ['--set', set]),
  ];
  const hook = kill === undefined ? [] : ['--import', pathToFileURL(join(import.meta.dirname, 'kill-at.mjs')).href];
  const child = spawn(process.execPath, [...hook, join(root, 'dist/cli/main.js'), ...args], {
    env: { ...process.env, GAVEL_KILL_AT: JSON.stringify(kill ?? {}) },
  });
  const timer = setTimeout(() => child.kill('SIGTERM'), 60_000);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
}

const readLines = async (...path: string[]): Promise<Record<string, unknown>[]> =>
  (await readFile(join(base, ...path), 'utf8'))
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Record<string, unknown>);
const keyOf = ({ checkpoint, item, sample }: Record<string, unknown>): string =>
  JSON.stringify([checkpoint, item, sample]);
const stepOf = ({ stage, step }: Record<string, unknown>): string => JSON.stringify([stage, step]);
/** Numbers of a step without what the clock says, and what one process has done. */
const timeless = ({ step_time: _, sample_time: __, pairs_scored: ___, ...metrics }: Record<string, unknown>): object =>
  metrics;

/** Events of one type and stage that a process told. */
const told = ({ stdout }: Ending, { type, stage }: Moment): Told[] =>
  stdout
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Told)
    .filter((event) => event.type === type && event.stage === stage);

/** What the process after a kill does again: of samples nothing, of steps less than `every`. Returns how many steps. */
function repeated(before: Ending, after: Ending, moment: Moment): number {
  const [old, fresh] = [told(before, moment), told(after, moment)];
  expect(fresh.length, moment.stage).toBeGreaterThan(0);
  if (moment.type === 'sampling-progress') {
    const same = fresh.filter(({ purpose }) => purpose === old.at(-1)!.purpose);
    const kept = same.filter(({ done }) => done <= moment.at);
    expect(kept.length, moment.stage).toBeGreaterThan(0);
    expect(
      kept.map(({ tokensPerSecond }) => tokensPerSecond),
      moment.stage,
    ).toEqual(kept.map(() => 0));
    expect(same.at(-1)!.tokensPerSecond, moment.stage).toBeGreaterThan(0);
    return 0;
  }
  const again = old.at(-1)!.step + 1 - fresh[0]!.step;
  expect(again, moment.stage).toBeGreaterThanOrEqual(0);
  expect(again, moment.stage).toBeLessThanOrEqual(moment.every);
  return again;
}

/** Runs the example whole, then killed at each moment in turn, and compares what both leave. */
async function compare(example: string, sets: readonly string[], moments: readonly Moment[]): Promise<void> {
  const undisturbed = `${example}.whole`;
  const run = `${example}.killed`;
  const whole = await train(example, undisturbed, sets);
  expect(whole.code, whole.stderr).toBe(0);
  const endings: Ending[] = [];
  const metrics = await readLines(undisturbed, 'metrics.jsonl');
  const expected = new Map(metrics.map((line) => [stepOf(line), timeless(line)]));
  let pool: string[] = [];
  for (const moment of moments) {
    const ending = await train(example, run, sets, moment);
    endings.push(ending);
    expect({ code: ending.code, signal: ending.signal }, `${moment.stage}: ${ending.stderr}`).toEqual({
      ...{ code: null, signal: 'SIGKILL' },
    });
    const ended = (await readLines(run, 'events.jsonl')).filter(({ type }) => type === 'stage-end');
    expect(ended.map(({ stage }) => stage)).not.toContain(moment.stage);
    // What a killed process has written of a step is what another one will write of it.
    for (const line of await readLines(run, 'metrics.jsonl'))
      expect(timeless(line)).toEqual(expected.get(stepOf(line)));
    const kept = await poolLines(run);
    expect(kept.slice(0, pool.length)).toEqual(pool);
    pool = kept;
  }
  endings.push(await train(example, run, sets));
  expect(endings.at(-1)!.code, endings.at(-1)!.stderr).toBe(0);
  const again = moments.map((moment, i) => repeated(endings[i]!, endings[i + 1]!, moment));
  expect(Math.max(...again)).toBeGreaterThan(0);
  expect((await readLines(run, 'metrics.jsonl')).map(timeless)).toEqual(metrics.map(timeless));
  const after = await poolLines(run);
  expect(after.slice(0, pool.length)).toEqual(pool);
  expect(new Set(after.map((line) => keyOf(JSON.parse(line) as Record<string, unknown>))).size).toBe(after.length);
  expect([...after].sort()).toEqual((await poolLines(undisturbed)).sort());
  const weights = (name: string): Promise<Buffer> => readFile(join(base, name, 'final/model.safetensors'));
  expect((await weights(run)).equals(await weights(undisturbed))).toBe(true);
}

async function poolLines(run: string): Promise<string[]> {
  const text = await readFile(join(base, run, 'samples/pool.jsonl'), 'utf8').catch(() => '');
  return text.split('\n').slice(0, -1);
}

const supervised = (key: string, steps: number): string[] => [
  ...[`${key}.steps=${steps}`, `${key}.batchSize=3`, `${key}.checkpointEvery=2`, `${key}.learningRate=0.001`],
];
const step = (stage: string, at: number, every = 2): Moment => ({ type: 'step-end', stage, at, every });
const sampled = (stage: string, at: number): Moment => ({ type: 'sampling-progress', stage, at, every: 0 });

describe('a run killed in every stage', () => {
  it('of unified-reward-think goes on', async () => {
    const options = 'stages.0.options';
    const sets = [
      ...['stages.0.verifier=lenient', 'stages.0.validation.maxNewTokens=6', 'stages.0.test.maxNewTokens=6'],
      ...['stages.0.validation.bothOrders=false', 'stages.0.test.bothOrders=false'],
      ...['stages.0.test.chunkItems=2', ...supervised(`${options}.coldStart`, 7)],
      ...[`${options}.rejection.maxNewTokens=8`, `${options}.rejection.chunkItems=3`],
      ...supervised(`${options}.rejection.sft`, 5),
      ...[`${options}.grpo.groupSize=4`, `${options}.grpo.promptsPerStep=3`, `${options}.grpo.steps=7`],
      ...[`${options}.grpo.maxCompletionLength=8`, `${options}.grpo.learningRate=0.001`],
      ...[`${options}.grpo.checkpointEvery=3`, `${options}.grpo.gate.enabled=false`],
    ];
    await compare('unified-reward-think.yaml', sets, [
      step('judge/cold-start', 5),
      sampled('judge/cold-start-test', 4),
      sampled('judge/rejection', 6),
      step('judge/rejection/train', 3),
      step('judge/grpo', 2, 3),
      step('judge/grpo', 5, 3),
    ]);
  });

  it('of joint training goes on', async () => {
    const sets = [...supervised('stages.0.options', 7), 'stages.0.options.evaluateEvery=3'];
    await compare('jrm.yaml', sets, [step('scorer', 1), step('scorer', 5)]);
  });

  it('of r3v goes on', async () => {
    const options = 'stages.0.options';
    const sets = [
      ...['stages.0.verifier=lenient', 'stages.1.verifier=lenient', 'stages.0.validation.maxNewTokens=6'],
      ...[`${options}.iterations=2`, `${options}.patience=2`, `${options}.maxNewTokens=8`, `${options}.chunkItems=3`],
      ...supervised(`${options}.sft`, 5),
      ...['stages.1.options.sizes=[1,3]', 'stages.1.options.maxNewTokens=8', 'stages.1.options.chunkItems=2'],
    ];
    await compare('r3v.yaml', sets, [
      step('self-training/warm-up', 3),
      sampled('self-training/bootstrap-1', 3),
      step('self-training/train-1', 3),
      sampled('self-training/bootstrap-2', 6),
      step('self-training/train-2', 3),
      sampled('selection', 2),
    ]);
  });

  it('of dpo goes on', async () => {
    const sets = [...supervised('stages.0.options', 7), 'stages.0.validation.maxNewTokens=6'];
    await compare('dpo.yaml', sets, [step('preferences', 1), step('preferences', 5)]);
  });
});
