// R3V's baselines from one configuration, the example itself on a tiny model: zero-shot with and without rationale, STaR, and
// DPO on the pairs of STaR's own samples.
import { spawnSync } from 'node:child_process';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import type { MarkedSample } from '../../src/index.js';
import { command } from './bad-input.js';
import { temporaryFolder, textFolder } from './model-fixture.js';

interface Told {
  type: string;
  stage: string;
  recipe?: string;
  message?: string;
  result?: { count: number; accuracy: number | null; directAccuracy: number | null; directAccuracyLow: number | null };
  metrics?: Record<string, number>;
}

const example = join(import.meta.dirname, '../../examples/r3v-baselines.yaml');

/** "e" stands in about every other text of a model that has learnt nothing. */
async function folderWith(gold = 'e'): Promise<string> {
  const folder = await temporaryFolder();
  for (const name of ['examples', 'data', 'models']) await mkdir(join(folder, name));
  await cp(textFolder, join(folder, 'models', 'base'), { recursive: true });
  const asked = (i: number): object => ({ id: `q${i}`, prompt: `what is ${i}`, solution: gold });
  const completion = `<think>he</think><answer>${gold}</answer>`;
  const lines = (count: number, row: (i: number) => object): string =>
    Array.from({ length: count }, (_, i) => `${JSON.stringify(row(i))}\n`).join('');
  await writeFile(join(folder, 'data', 'test.jsonl'), lines(4, asked));
  await writeFile(join(folder, 'data', 'questions.jsonl'), lines(6, asked));
  await writeFile(
    join(folder, 'data', 'distilled.jsonl'),
    lines(2, (i) => ({ ...asked(i), completion })),
  );
  return folder;
}

type Config = Record<string, any>;

async function train(folder: string, change: (config: Config) => void = () => undefined) {
  const config = parse(await readFile(example, 'utf8')) as Config;
  Object.assign(config['model'], { dtype: 'fp32', initializeSeed: 7, lora: { rank: 2, alpha: 4 } });
  for (const stage of config['stages'] as Config[]) {
    if (stage['verifier'] !== undefined) stage['verifier'] = 'lenient';
    if (stage['recipe'] === 'evaluate') stage['data'].maxNewTokens = 6;
    if (stage['recipe'] === 'r3v') {
      const sft = { epochs: 1, batchSize: 4, learningRate: 1e-4 };
      Object.assign(stage['options'], { iterations: 2, samples: 6, maxNewTokens: 8, sft });
    }
    if (stage['recipe'] === 'dpo') Object.assign(stage['options'], { batchSize: 2, learningRate: 1e-3 });
  }
  change(config);
  const path = join(folder, 'examples', 'run.yaml');
  await writeFile(path, stringify(config));
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'train', path, '--json'], {
    encoding: 'utf8',
  });
  const events = stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Told]));
  return { status, stderr, events };
}

describe('baselines of R3V', () => {
  it('run from the example: zero-shot both ways, STaR, and DPO on its samples', async () => {
    const folder = await folderWith();
    const { status, stderr, events } = await train(folder);
    expect(status, stderr).toBe(0);
    const results = new Map(
      events.flatMap(({ type, stage, result }) => (type === 'evaluation-end' ? [[stage, result!] as const] : [])),
    );
    expect([...results.keys()]).toEqual(['zero-shot', 'star-test', 'star-dpo-test']);
    const zeroShot = results.get('zero-shot')!;
    expect(zeroShot).toMatchObject({ count: 4 });
    for (const rate of [zeroShot.accuracy, zeroShot.directAccuracy, zeroShot.directAccuracyLow]) {
      expect(rate).toBeGreaterThanOrEqual(0);
    }
    expect(results.get('star-test')!.directAccuracy).toBeNull();
    // Each question with a right and a wrong sample of either iteration gives one pair.
    const text = await readFile(join(folder, 'runs', 'r3v-baselines', 'samples', 'pool.jsonl'), 'utf8');
    const pool = text
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as MarkedSample);
    const solved = pool.filter(({ stage, unmarked }) => unmarked !== true && stage!.startsWith('star/bootstrap-'));
    const verdicts = (item: string): Set<boolean> =>
      new Set(solved.filter((sample) => sample.item === item).map(({ correct }) => correct));
    const pairs = [0, 1, 2, 3, 4, 5].filter((i) => verdicts(`q${i}`).size === 2).length;
    expect(pairs).toBeGreaterThan(0);
    const steps = events.filter(({ type, stage }) => type === 'step-end' && stage === 'star-dpo');
    expect(steps.reduce((sum, { metrics }) => sum + metrics!['pairs']!, 0)).toBe(pairs);
    // What was asked of a row in two ways was drawn twice.
    const asked = pool.filter(({ evaluation, stage }) => evaluation !== undefined && stage === 'zero-shot');
    expect(asked.map(({ evaluation }) => evaluation!.direct).sort()).toEqual(
      [false, true].flatMap((d) => Array(4).fill(d)),
    );
  });

  it('say so when no question has a right and a wrong solution', async () => {
    const { status, stderr } = await train(await folderWith('never in any text'), ({ stages }) => {
      stages.splice(2, 1);
      stages.splice(0, 1);
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/"bad_data"/);
    expect(stderr).toMatch(/Expected questions of .* with a right and a wrong solution/);
  });

  it('refuse a stage that is not there, and pairs from two sources or none', async () => {
    const folder = await folderWith();
    for (const [change, said] of [
      [(dpo: Config) => (dpo['pairsOf'] = 'stars'), /`stages\.3\.pairsOf` but received .*stars/],
      [(dpo: Config) => (dpo['data'] = { path: '../data/test.jsonl' }), /stages\.3\.data.*either `data`/s],
      [(dpo: Config) => delete dpo['pairsOf'], /stages\.3\.data.*either `data`/s],
    ] as const) {
      const { status, stderr } = await train(folder, ({ stages }) => void change(stages[3]));
      expect([status, stderr]).toEqual([2, expect.stringMatching(/"invalid_config"/)]);
      expect(stderr).toMatch(said);
    }
  });
});
