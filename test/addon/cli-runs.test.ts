// `gavel runs` on runs that were really trained: what it prints is what the run folder holds, and nothing is changed.
import { spawnSync } from 'node:child_process';
import { appendFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  createEngine,
  datasetFromRows,
  evaluate,
  grpo,
  pipeline,
  Policy,
  rejection,
  RunFolder,
  sft,
  train,
  type Evaluator,
  type Row,
} from '../../src/index.js';
import { command } from './bad-input.js';
import { goldens, visionFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

let folder: string;
const picture = (value: number): Row['images'][number] => ({
  rgb: Uint8Array.from({ length: 28 * 28 * 3 }, (_, i) => (i * value) % 256),
  width: 28,
  height: 28,
});
const rows: Row[] = ['a', 'b', 'c', 'd'].map((id, i) => ({
  id,
  prompt: `<image> which ${id} <script>`,
  images: [picture(i + 1)],
  completion: '<think>this</think><answer>one</answer>',
  solution: i % 2 === 0 ? 'one' : 'two',
}));
const data = datasetFromRows('rows', rows);
const validation: Evaluator = {
  set: { name: 'held out', size: rows.length, item: async (i) => ({ row: rows[i]!, unseen: false }) },
  options: { maxNewTokens: 2 },
};

async function trainRun(name: string, seed: number): Promise<void> {
  await using model = await engine.loadModel(visionFolder);
  await using policy = await Policy.open(model, visionFolder, { threads: 1 });
  const config = { run: name, seed, stages: [{ name: 'cold', recipe: 'sft' }] };
  await using run = await RunFolder.open(join(folder, name), config, { pictures: { maxPictured: 3 } });
  const options = { groupSize: 2, promptsPerStep: 2, steps: 3, maxCompletionLength: 4, gate: { enabled: false }, seed };
  const stages = pipeline([
    {
      name: 'cold',
      make: () => sft({ data, validation, options: { steps: 2, batchSize: 2, learningRate: 1e-3, seed } }),
    },
    {
      name: 'reject',
      make: () => rejection({ data, options: { samples: 2, maxNewTokens: 4, seed, sft: { steps: 1, batchSize: 1 } } }),
    },
    { name: 'rl', make: () => grpo({ data, validation, options: { ...options, evaluateEvery: 3 } }) },
  ]);
  await train(policy, stages, { run, stage: '(run)' }).result;
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-cli-runs-'));
  await trainRun('one', 1);
  await trainRun('two', 2);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const at = (...parts: string[]): string => join(folder, ...parts);

function gavel(...args: string[]): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'runs', ...args], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return { stdout, stderr };
}
const json = <T>(...args: string[]): T => JSON.parse(gavel(...args, '--json').stdout) as T;

describe('gavel runs list', () => {
  it('has a line a run, as a table and as JSON', () => {
    const { stdout, stderr } = gavel('list', folder);
    expect(stdout).toMatch(/^run +recipes +state +steps +reward +accuracy +age +size$/m);
    expect(stdout).toMatch(/one +sft, rejection, grpo +finished +[56] +[\d.]+ +[\d.]+ +\d+ (s|min) +[\d.]+ \w+iB/);
    expect(stderr).toBe('');
    const listed = json<{ name: string; state: string }[]>('list', folder);
    expect(listed.map(({ name, state }) => `${name} ${state}`)).toEqual(['one finished', 'two finished']);
  });

  it('says that there is none, and fails where there is no folder', () => {
    expect(gavel('list', goldens).stdout).toBe(`No run in ${goldens}.\n`);
    const { status, stderr } = spawnSync(process.execPath, [command, 'runs', 'list', at('none'), '--json'], {
      encoding: 'utf8',
    });
    expect(status).toBe(1);
    expect((JSON.parse(stderr) as { error: { code: string } }).error.code).toBe('io');
  });
});

describe('gavel runs show', () => {
  it('tells configuration, stages, last metrics and checkpoints, and draws the curves', async () => {
    const text = gavel('show', at('one'), '--plots', at('plots')).stdout;
    expect(text).toMatch(/^one: finished$/m);
    expect(text).toMatch(/^ {2}cold +sft +2 +[\d.]+ +- +[\d.]+$/m);
    expect(text).toMatch(/^ {2}cold +held out +2 +4 +[\d.]+ \[/m);
    expect(text).toMatch(/^ {2}frac_reward_zero_std +[\d.]+$/m);
    expect(text).toMatch(/^ {2}run: one$/m);
    expect(text).toContain(at('plots', 'reward.svg'));
    const drawn = await readdir(at('plots'));
    for (const name of ['reward', 'accuracy', 'length', 'kl', 'entropy', 'zero-variance', 'loss', 'grad-norm']) {
      expect(drawn).toContain(`${name}.svg`);
      expect(drawn).toContain(`${name}.png`);
    }
    const report = json<{ checkpoints: unknown[]; lastMetrics: object; plots: string[] }>('show', at('one'));
    expect(report.checkpoints.length).toBeGreaterThan(0);
    expect(report.lastMetrics).toMatchObject({ stage: 'rl', step: 3 });
  });
});

interface SampleLine {
  item: string;
  stage: string;
  checkpoint: string;
  correct: boolean;
  advantage?: number;
}

describe('gavel runs samples', () => {
  const lines = (...args: string[]): SampleLine[] => {
    const text = gavel('samples', at('one'), '--json', ...args).stdout.trim();
    return text === '' ? [] : text.split('\n').map((line) => JSON.parse(line) as SampleLine);
  };

  it('prints every sample as it stands in the pool, the newest first', async () => {
    const pool = (await readFile(at('one', 'samples', 'pool.jsonl'), 'utf8')).trim().split('\n');
    expect(pool).toHaveLength(4 * 2 + 3 * 2 * 2);
    expect(lines()).toEqual(pool.reverse().map((line) => JSON.parse(line) as SampleLine));
  });

  it('filters by item, stage, weights and verdict', () => {
    expect(new Set(lines('--item', 'b').map(({ item }) => item))).toEqual(new Set(['b']));
    const ofStage = lines('--stage', 'rl');
    expect(ofStage).toHaveLength(12);
    for (const { advantage } of ofStage) expect(advantage).toBeTypeOf('number');
    expect(lines('--checkpoint', 'rl@2')).toHaveLength(4);
    expect(lines('--stage', 'reject', '--limit', '3')).toHaveLength(3);
    expect(lines('--wrong').length + lines('--correct').length).toBe(20);
    expect(lines('--item', 'none')).toEqual([]);
    expect(gavel('samples', at('one'), '--item', 'none').stdout).toBe('No sample fits.\n');
    expect(gavel('samples', at('one'), '--limit', '2').stdout).toMatch(
      /^2 of 20 samples, \d right\. --limit shows more\.$/m,
    );
  });

  it('writes a page with the pictures that the run kept, and Parquet', async () => {
    const { stdout } = gavel('samples', at('one'), '--html', at('page.html'), '--parquet', at('samples.parquet'));
    expect(stdout).toContain(`Page: ${at('page.html')}, 20 of 20 samples`);
    const page = await readFile(at('page.html'), 'utf8');
    expect(page.match(/<section>/g)).toHaveLength(4 + 3 * 2);
    expect(page).toContain('&lt;image&gt; which a &lt;script&gt;');
    expect(page).not.toContain('<script');
    // Three of the four items have kept theirs.
    expect(new Set(page.match(/data:image\/png;base64,[\w+/=]+/g)).size).toBe(3);
    expect(page).toContain('no picture kept');
    expect((await readFile(at('samples.parquet'))).subarray(0, 4).toString()).toBe('PAR1');
  });

  it('names damaged lines on standard error and goes on; refuses what cannot be meant', async () => {
    await appendFile(at('two', 'samples', 'pool.jsonl'), 'rubbish\n');
    const { stdout, stderr } = gavel('samples', at('two'));
    expect(stdout).toMatch(/^20 of 20 samples/m);
    expect(stderr).toMatch(/Expected JSON in line 21 of/);
    for (const args of [
      ['samples', at('one'), '--correct', '--wrong'],
      ['compare', at('one')],
    ]) {
      const { status, stderr: said } = spawnSync(process.execPath, [command, 'runs', ...args], { encoding: 'utf8' });
      expect(status).toBe(2);
      expect(said).toMatch(/^gavel: Expected .*\[invalid_argument\]$/m);
    }
    expect(spawnSync(process.execPath, [command, 'runs', 'samples', goldens], { encoding: 'utf8' }).status).toBe(1);
  });
});

describe('completions that evaluations kept', () => {
  const swapped = (row: Row): Row => ({ ...row, id: `${row.id} swapped`, prompt: `<image> swapped ${row.id}` });
  const set = {
    name: 'held out',
    size: 2,
    fingerprint: 'f'.repeat(64),
    item: async (i: number) => ({ row: rows[i]!, swapped: swapped(rows[i]!), unseen: false }),
  };
  beforeAll(async () => {
    await using model = await engine.loadModel(visionFolder);
    await using policy = await Policy.open(model, visionFolder, { threads: 1 });
    await using run = await RunFolder.open(at('evaluated'), { run: 'evaluated', stages: [] });
    const reject = { samples: 1, maxNewTokens: 2, sft: { steps: 1, batchSize: 1 } };
    const stages = pipeline([
      { name: 'test', make: () => evaluate({ set, options: { maxNewTokens: 2 } }) },
      { name: 'reject', make: () => rejection({ data, options: reject }) },
    ]);
    await train(policy, stages, { run, stage: '(run)' }).result;
  });

  it('are left out and counted, and shown by row and order when asked for', async () => {
    const plain = gavel('samples', at('evaluated')).stdout;
    expect(plain).toMatch(/^4 of 4 samples, .* Of evaluations \(held out\) there are 4 completions: --evaluation/m);
    expect(plain).not.toContain('swapped');
    const table = gavel('samples', at('evaluated'), '--evaluation').stdout;
    expect(table).toMatch(/^evaluation +item +order +weights +# +text$/m);
    expect(table).toMatch(/^held out +a +given +\S+ +0/m);
    expect(table).toMatch(/^held out +b +swapped +\S+ +0/m);
    expect(table).not.toContain('ffff');
    expect(gavel('samples', '--evaluation', at('evaluated')).stdout).toBe(table);
    const lines = gavel('samples', at('evaluated'), '--set', 'held out', '--item', 'b', '--json').stdout.trim();
    expect(lines.split('\n').map((line) => (JSON.parse(line) as { evaluation: unknown }).evaluation)).toEqual([
      { name: 'held out', item: 'b', order: 'swapped', direct: false },
      { name: 'held out', item: 'b', order: 'given', direct: false },
    ]);
    expect(gavel('samples', at('evaluated'), '--set', 'other').stdout).toBe('None fits; sets: held out.\n');
    expect(gavel('samples', at('one'), '--evaluation').stdout).toBe('No evaluation of the run kept its completions.\n');
  });

  it.each([['--json'], ['--parquet', 'marked.parquet']])(
    'are counted on standard error with %s',
    (name, file?: string) => {
      const { stdout, stderr } = gavel('samples', at('evaluated'), name, ...(file === undefined ? [] : [at(file)]));
      expect(stderr).toBe('gavel: Of evaluations (held out) there are 4 completions: --evaluation shows them.\n');
      expect(stdout).not.toContain('held out');
      expect(gavel('samples', at('evaluated'), '--evaluation', '--json').stderr).toBe('');
    },
  );

  it('stand on the page with the prompt as it was asked and its pictures', async () => {
    gavel('samples', at('evaluated'), '--set', 'held out', '--html', at('evaluated.html'));
    const page = await readFile(at('evaluated.html'), 'utf8');
    expect(page.match(/<section>/g)).toHaveLength(4);
    expect(page).toContain('&lt;image&gt; swapped a');
    expect(page).toContain('&lt;image&gt; which a');
    expect(page).toContain('evaluation held out, swapped order, stage test');
    expect(page.match(/data:image\/png/g)).toHaveLength(4);
    expect(page).not.toContain('no picture kept');
    const other = spawnSync(process.execPath, [command, 'runs', 'samples', at('one'), '--evaluation', '--wrong']);
    expect(other.status).toBe(2);
  });
});

describe('gavel runs compare', () => {
  it('puts final numbers side by side and pairs what both judged', async () => {
    const text = gavel('compare', at('one'), at('two'), '--plots', at('compared')).stdout;
    expect(text).toMatch(/^final +one +two$/m);
    expect(text).toMatch(/^rl steps +3 +3$/m);
    expect(text).toMatch(/^cold held out +two - one +4 +[+-]?[\d.]+ \[[+-]?[\d.]+, [+-]?[\d.]+\] +[\d.]+$/m);
    expect(await readdir(at('compared'))).toContain('loss.png');
    const found = json<{ runs: { final: Record<string, number> }[]; paired: Record<string, unknown>[] }>(
      'compare',
      at('one'),
      at('two'),
    );
    const before = found.runs.map(({ final }) => final['cold held out: accuracy']!);
    const pair = found.paired.find(({ evaluation }) => evaluation === 'cold held out');
    expect(pair).toMatchObject({ from: 'one', to: 'two', items: 4, difference: before[1]! - before[0]! });
  });
});
