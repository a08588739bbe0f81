/** Evaluations over the real engine: what they keep when they are stopped or killed, and `gavel eval` as a user types it. */
import { spawn, spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, describe, expect, it } from 'vitest';
import { datasetFromRows } from '../../src/data/dataset.js';
import type { Row } from '../../src/data/rows.js';
import { createEngine } from '../../src/engine/index.js';
import type { Judgement } from '../../src/evaluation/judgement.js';
import type { EvaluationResult } from '../../src/evaluation/result.js';
import { evaluate, type Evaluator } from '../../src/recipes/evaluate.js';
import { fileEvaluationSet } from '../../src/recipes/file-evaluation-set.js';
import { train } from '../../src/recipes/job.js';
import { Policy } from '../../src/recipes/policy.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { command } from './bad-input.js';
import { goldens, temporaryFolder, textFolder, visionFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const rows = (count: number): Row[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `r${i}`,
    prompt: `which one ${i}`,
    images: [],
    solution: `Answer ${1 + (i % 2)} is better`,
    meta: { group: i % 3 === 0 ? 'third' : 'rest' },
  }));

const evaluator = (count: number): Evaluator => ({
  set: fileEvaluationSet(datasetFromRows('rows', rows(count)), { bothOrders: false, groupBy: ['group'] }),
  options: { maxNewTokens: 6, chunkItems: 4, samples: 2, temperature: 1, seed: 3 },
});

const timeless = ({ seconds: _s, tokensPerSecond: _t, ...rest }: EvaluationResult): object => rest;
const linesOf = async (path: string): Promise<string[]> => (await readFile(path, 'utf8')).trim().split('\n');

interface KeptSample {
  item: string;
  sample: number;
}

describe('an evaluation in a run', () => {
  it('that is stopped goes on without drawing anything twice, to the same result', async () => {
    await using model = await engine.loadModel(textFolder);
    await using policy = await Policy.open(model, textFolder, { threads: 1 });
    const whole = (await train(policy, evaluate(evaluator(12))).result).value!;
    expect(whole).toMatchObject({ count: 12, ties: { count: 24 }, positionBias: expect.any(Number) as number });
    expect(Object.keys(whole.passAtK!)).toEqual(['1', '2']);
    expect(Object.keys(whole.groups['group']!.subsets)).toEqual(['rest', 'third']);

    const path = join(await temporaryFolder(), 'run');
    const pool = join(path, 'samples', 'pool.jsonl');
    {
      await using run = await RunFolder.open(path, {});
      const job = train(policy, evaluate(evaluator(12)), { run });
      for await (const event of job) if (event.type === 'sampling-progress') void job.stop();
      expect((await job.result).stopped).toBe(true);
    }
    const before = await linesOf(pool);
    // How many chunks pass before the stop arrives is the machine's.
    expect(before.length).toBeGreaterThanOrEqual(8);
    expect(before.length).toBeLessThan(24);
    await using run = await RunFolder.open(path, {}, { resume: true });
    const resumed = (await train(policy, evaluate(evaluator(12)), { run }).result).value!;
    const after = await linesOf(pool);
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after).toHaveLength(24);
    expect(timeless(resumed)).toEqual(timeless(whole));
  });
});

describe('stop strings of an evaluation', () => {
  it('end its completions, and those kept without them are not taken for these', async () => {
    await using model = await engine.loadModel(textFolder);
    await using policy = await Policy.open(model, textFolder, { threads: 1 });
    await using run = await RunFolder.open(join(await temporaryFolder(), 'run'), {});
    const texts = async (stopStrings?: string[]): Promise<string[]> => {
      const found: string[] = [];
      const onJudgement = ({ text }: Judgement): number => found.push(text!);
      const { options, set } = evaluator(8);
      await train(
        policy,
        evaluate({ set, onJudgement, options: { ...options, maxNewTokens: 30, ...(stopStrings && { stopStrings }) } }),
        { run },
      ).result;
      return found;
    };
    const free = await texts();
    expect(await texts()).toEqual(free);
    const cut = await texts(['e']);
    expect(free.filter((text) => text.slice(0, -1).includes('e')).length).toBeGreaterThan(4);
    for (const [i, text] of cut.entries()) {
      const at = free[i]!.indexOf('e');
      expect(text).toContain(free[i]!.slice(0, at < 0 ? undefined : at + 1));
      // What completes a stop string is a whole token.
      expect(text.length).toBeLessThan((at < 0 ? free[i]!.length : at) + 12);
    }
    expect(cut).not.toEqual(free);
  });
});

describe('gavel eval', () => {
  const gavel = (args: readonly string[]) =>
    spawnSync(process.execPath, [command, 'eval', ...args], { encoding: 'utf8' });
  async function rowsFile(count: number, of = rows(count)): Promise<string> {
    const path = join(await temporaryFolder(), 'rows.jsonl');
    await writeFile(path, of.map(({ images: _, ...row }) => JSON.stringify(row)).join('\n'));
    return path;
  }
  const settings = ['--model', textFolder, '--one-order', '--max-new-tokens', '6'];

  it('writes a folder whose judgements give the same numbers without a model', async () => {
    const input = await rowsFile(6);
    const out = join(await temporaryFolder(), 'eval');
    const sampled = [
      '--samples',
      '3',
      '--temperature',
      '1',
      '--group-by',
      'group',
      '--direct',
      '--direct-prompt',
      '{prompt} now',
    ];
    const { status, stdout, stderr } = gavel([...settings, '--input', input, '--out', out, ...sampled]);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/^6 items, [\d.]+ s, \d+ tokens\/s\n\naccuracy \(6 items\) +value +95 %\n/);
    expect(stdout).toContain('unparsed rate');
    expect(stdout).toContain('by group');
    expect((await readdir(out)).sort()).toEqual(
      expect.arrayContaining(['evaluation.json', 'judgements.jsonl', 'result.json', 'samples.jsonl', 'table.md']),
    );
    const judgements = (await linesOf(join(out, 'judgements.jsonl'))).map((line) => JSON.parse(line) as Judgement);
    expect(judgements).toHaveLength(6 * 2 * 3);
    expect(judgements.filter(({ direct }) => direct)).toHaveLength(18);
    const result = JSON.parse(await readFile(join(out, 'result.json'), 'utf8')) as EvaluationResult;
    expect(result.directAccuracy).not.toBeNull();
    const again = gavel(['--from', join(out, 'judgements.jsonl'), '--json']);
    expect(again.status, again.stderr).toBe(0);
    expect({ ...timeless(JSON.parse(again.stdout) as EvaluationResult), name: '' }).toEqual({
      ...timeless(result),
      name: '',
    });
    expect(await readFile(join(out, 'table.md'), 'utf8')).toMatch(
      /^# Evaluation of .*\n\n\| accuracy \(6 items\) \| value \| 95 % \|\n/,
    );

    // The same command draws nothing again; another one does not mix with it.
    const kept = await readFile(join(out, 'samples.jsonl'), 'utf8');
    expect(gavel([...settings, '--input', input, '--out', out, ...sampled]).status).toBe(0);
    expect(await readFile(join(out, 'samples.jsonl'), 'utf8')).toBe(kept);
    const other = gavel([...settings, '--input', input, '--out', out]);
    expect(other.status).not.toBe(0);
    expect(other.stderr).toMatch(/one with (samples 3|groupBy|temperature|direct).*Choose another folder/);
    const asked = gavel([...settings, '--input', input, '--out', out, ...sampled.slice(0, -1), '{prompt} soon']);
    expect(asked.stderr).toMatch(/one with .*\[invalid_config\]/);
  });

  it('killed in the middle goes on, repeats no sample and ends with the same result', async () => {
    const input = await rowsFile(240);
    const args = ['eval', ...settings, '--input', input, '--max-new-tokens', '48', '--out'];
    const out = join(await temporaryFolder(), 'eval');
    const samples = join(out, 'samples.jsonl');
    const child = spawn(process.execPath, [command, ...args, out], { stdio: 'ignore' });
    const ended = new Promise((resolve) => child.on('exit', resolve));
    const count = async (): Promise<number> => (await readFile(samples, 'utf8').catch(() => '')).split('\n').length - 1;
    while ((await count()) < 20 && child.exitCode === null) await delay(5);
    child.kill('SIGKILL');
    await ended;
    const before = (await readFile(samples, 'utf8')).split('\n').slice(0, -1);
    expect(before.length).toBeGreaterThanOrEqual(20);
    expect(before.length).toBeLessThan(240);
    const run = (folder: string) =>
      spawnSync(process.execPath, [command, ...args, folder, '--json'], { encoding: 'utf8' });
    const resumed = run(out);
    expect(resumed.status, resumed.stderr).toBe(0);
    const after = await linesOf(samples);
    expect(after.slice(0, before.length)).toEqual(before);
    const keys = after.map((line) => JSON.parse(line) as KeptSample).map(({ item, sample }) => `${item} ${sample}`);
    expect(keys).toHaveLength(240);
    expect(new Set(keys).size).toBe(240);
    const fresh = run(join(await temporaryFolder(), 'fresh'));
    const [a, b] = [resumed, fresh].map(({ stdout }) => timeless(JSON.parse(stdout) as EvaluationResult));
    expect(a).toEqual(b);
  });

  it('asks a benchmark and reports its numbers', async () => {
    const folder = join(await temporaryFolder(), 'bench');
    await mkdir(folder);
    const pair = {
      prompt_content: [['text', 'which one']],
      response_a: { response_content: [['text', 'this one']] },
      response_b: { response_content: [['text', 'a cat']] },
      chosen: 'A',
    };
    await writeFile(
      join(folder, 't2i.json'),
      JSON.stringify({
        pairs: [
          { ...pair, id: '1' },
          { ...pair, id: '2' },
        ],
      }),
    );
    const prompt = ['--prompt', '{context} {first} {second}', '--max-new-tokens', '4'];
    const { status, stdout, stderr } = gavel([
      '--model',
      textFolder,
      '--benchmark',
      'mmrb2',
      '--data',
      folder,
      ...prompt,
      '--json',
    ]);
    expect(status, stderr).toBe(0);
    const result = JSON.parse(stdout) as EvaluationResult & { benchmark: string; headlines: { name: string }[] };
    expect(result).toMatchObject({ benchmark: 'mmrb2', count: 2, orderConsistency: expect.any(Number) as number });
    expect(result.headlines.map(({ name }) => name)).toEqual(['t2i', 'edit', 'interleaved', 'reasoning', 'overall']);
  });

  it('asks a benchmark of a published Parquet file, pictures inside', () => {
    const data = join(goldens, 'data/benchmarks/vl-reward-bench');
    const asked = ['--benchmark', 'vl-reward-bench', '--data', data, '--one-order', '--max-new-tokens', '2', '--json'];
    const { status, stdout, stderr } = gavel([
      '--model',
      visionFolder,
      ...asked,
      '--prompt',
      '{context} {first} {second}',
    ]);
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ benchmark: 'vl-reward-bench', count: 5 });
  });

  it('evaluates scored pairs', async () => {
    const path = join(await temporaryFolder(), 'scores.jsonl');
    const score = (mu: number) => ({ mu });
    const pairs = [
      { item: 'a', preference: 'first', first: score(2), second: score(1) },
      { item: 'b', preference: 'second', first: score(2), second: score(1) },
    ];
    await writeFile(path, `${pairs.map((pair) => JSON.stringify(pair)).join('\n')}\n`);
    const out = join(await temporaryFolder(), 'scored');
    const { status, stdout, stderr } = gavel(['--from', path, '--out', out]);
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/accuracy without ties +0\.5000 +\[0\.0945, 0\.9055\]/);
    expect((await readdir(out)).sort()).toEqual(['reliability.svg', 'result.json', 'table.md']);
  });

  it.each([
    [[], /a model/],
    [['--model', 'm'], /either --input or --benchmark.*neither/],
    [['--model', 'm', '--input', 'a', '--benchmark', 'mmrb2', '--data', 'b'], /both/],
    [['--model', 'm', '--benchmark', 'mmrb2'], /--benchmark with --data/],
    [['--model', 'm', '--benchmark', 'none', '--data', 'b'], /one of vl-reward-bench/],
    [['--model', 'm', '--input', 'a', '--direct-prompt', 'x'], /Add --direct/],
    [['--model', 'm', '--input', 'a', '--ties', 'ask'], /--benchmark only/],
    [['--model', 'm', '--benchmark', 'genai-bench', '--data', 'b', '--ties', 'half'], /skip or ask/],
    [['--model', 'm', '--benchmark', 'genai-bench', '--data', 'b', '--group-by', 'x'], /divisions of its own/],
    [['--from', 'none.jsonl'], /does not exist/],
    [['--from', 'none.jsonl', '--model', 'm'], /nothing beside --from/],
  ])('refuses %j', (args, message) => {
    const { status, stderr } = gavel(args);
    expect(status).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^gavel: Expected .*\[\w+\]\n$/);
  });

  it('refuses rows without the key to group by, without a direct prompt, and judgements that are none', async () => {
    const input = await rowsFile(2);
    const key = gavel([...settings, '--input', input, '--group-by', 'colour']);
    expect(key.stderr).toMatch(/`meta\.colour` of row "r0" but received none.*\[bad_data\]/);
    const direct = gavel([...settings, '--input', input, '--direct']);
    expect(direct.stderr).toMatch(/meta\.direct.*\[bad_data\]/);
    expect(gavel(['--from', input]).stderr).toMatch(/rows\.jsonl:1.*\[bad_data\]/);
    const twice = join(await temporaryFolder(), 'twice.jsonl');
    const line = JSON.stringify({ item: 'a', gold: 'x', answer: 'x', correct: true });
    await writeFile(twice, `${line}\n${line}\n`);
    expect(gavel(['--from', twice]).stderr).toMatch(
      /twice\.jsonl:2 but received what line 1 holds: a, given order.*\[bad_data\]/,
    );
    const folder = await temporaryFolder();
    await writeFile(join(folder, 'notes.txt'), 'mine');
    const foreign = gavel([...settings, '--input', input, '--out', folder]);
    expect(foreign.stderr).toMatch(/a folder with notes\.txt.*\[invalid_config\]/);
    expect(await readdir(folder)).toEqual(['notes.txt']);
  });
});
