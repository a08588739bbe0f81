// `gavel score` as a user types it: its lines are what the API computes, whatever the batch, the file or the pipe.
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetWriteFile } from 'hyparquet-writer';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { Row } from '../../src/data/rows.js';
import { createEngine, joint, pairsFromRows, Policy, RunFolder, train, type PairRow } from '../../src/index.js';
import { scoreRows, type RowScore } from '../../src/recipes/score-rows.js';
import { command, failureOfCommand } from './bad-input.js';
import { temporaryFolder, textFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const signal = new AbortController().signal;
const rewardHead = { names: ['following', 'quality'], hiddenSizes: [12, 8] };

// A picture that decodes, for a model that takes none.
const onePixel =
  'data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==';

interface Ended {
  status: number | null;
  stdout: string;
  stderr: string;
}

function gavel(args: readonly string[], input?: string): Ended {
  return spawnSync(process.execPath, [command, 'score', ...args], { encoding: 'utf8', ...(input && { input }) });
}

const linesOf = <T>({ status, stdout, stderr }: Ended): T[] => {
  expect(status, stderr).toBe(0);
  const lines = stdout.split('\n');
  expect(lines.pop()).toBe('');
  return lines.map((line) => JSON.parse(line) as T);
};

interface RowLine {
  id: string;
  mu: Record<string, number>;
  sigma: Record<string, number>;
  score: number;
  scoreSigma: number;
}
interface PairLine {
  id: string;
  preference: string;
  preferred: string;
  margin: number;
  first: RowLine;
  second: RowLine;
}

const lineOf = (id: string, { mu, sigma, fused }: RowScore): RowLine => ({
  id,
  mu: { following: mu[0]!, quality: mu[1]! },
  sigma: { following: sigma[0]!, quality: sigma[1]! },
  score: fused.mu,
  scoreSigma: fused.sigma,
});

async function scoresOf(model: string, rows: readonly Row[]): Promise<RowScore[]> {
  await using loaded = await engine.loadModel(model);
  await using policy = await Policy.open(loaded);
  return await scoreRows(policy, rows, { signal });
}

async function fileOf(records: readonly object[]): Promise<string> {
  const path = join(await temporaryFolder(), 'records.jsonl');
  await writeFile(path, records.map((record) => `${JSON.stringify(record)}\n`).join(''));
  return path;
}

const words = ['which one', 'this one', 'hello there', 'a cat', 'a dog is here'];
const records = words.map((prompt, i) => ({ id: `r${i}`, prompt, completion: 'this one' }));
const rows: Row[] = records.map((record) => ({ ...record, images: [] }));
const pairRecords = words.map((prompt, i) => ({
  id: `p${i}`,
  first: { id: `p${i}/a`, prompt, completion: 'which' },
  second: { id: `p${i}/b`, prompt: words[(i + 1) % words.length]! },
  preference: i === 4 ? 'tie' : i % 2 === 0 ? 'first' : 'second',
}));

let folder = '';
let model = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-score-'));
  model = join(folder, 'scorer');
  await using made = await engine.loadModel(textFolder, { rewardHead });
  await made.exportHf(model);
});
afterAll(() => rm(folder, { recursive: true, force: true }));

describe('rows', () => {
  it('get a line each, in order, bit for bit what the API computes, in any batch', async () => {
    const input = await fileOf(records);
    const found = gavel(['--model', model, '--input', input]);
    const scores = await scoresOf(model, rows);
    expect(linesOf<RowLine>(found)).toEqual(rows.map(({ id }, i) => lineOf(id, scores[i]!)));
    expect(new Set(scores.map(({ fused }) => fused.mu)).size).toBe(rows.length);
    expect(found.stderr).toMatch(/\[score\] 5 rows, \S+ rows\/s\n$/);
    for (const batch of ['1', '100'])
      expect(gavel(['--model', model, '--input', input, '--batch', batch]).stdout).toBe(found.stdout);
    expect(gavel(['--model', model, '--input', input, '--threads', '1']).stdout).toBe(found.stdout);
  });

  it('arrive through a pipe, where the last needs no newline', async () => {
    const whole = gavel(['--model', model, '--input', await fileOf(records)]);
    const text = records.map((record) => JSON.stringify(record)).join('\n');
    expect(gavel(['--model', model, '--input', '-', '--batch', '2'], text).stdout).toBe(whole.stdout);
    expect(gavel(['--model', model, '--input', '-'], JSON.stringify(records)).stdout).toBe(whole.stdout);
  });

  it('are not read for their completions: a score is of what stands before the reward token', async () => {
    const input = await fileOf([{ id: 'r', prompt: 'a cat', completion: 'this one '.repeat(2000) }]);
    const [line] = linesOf<RowLine>(gavel(['--model', model, '--input', input]));
    const [score] = await scoresOf(model, [{ id: 'r', prompt: 'a cat', images: [] }]);
    expect(line).toEqual(lineOf('r', score!));
  });

  it('of Parquet are read as well', async () => {
    const path = join(await temporaryFolder(), 'rows.parquet');
    parquetWriteFile({
      filename: path,
      rowGroupSize: 2,
      columnData: [
        { name: 'id', data: records.map(({ id }) => id), type: 'STRING' },
        { name: 'prompt', data: words, type: 'STRING' },
      ],
    });
    const whole = gavel(['--model', model, '--input', await fileOf(records)]);
    expect(gavel(['--model', model, '--input', path]).stdout).toBe(whole.stdout);
  });

  it('may be one, by flags: its answer is a turn before the reward token', async () => {
    const scored = (...more: string[]): RowLine[] => {
      const found = gavel(['--model', model, '--prompt', 'a cat', ...more]);
      expect(found.stderr).toBe('');
      return linesOf<RowLine>(found);
    };
    const turns = [
      { role: 'user', content: 'a cat' },
      { role: 'assistant', content: [{ type: 'text' as const, text: 'this <image> one' }] },
    ];
    const [alone, answered] = await scoresOf(model, [
      { id: 'prompt', prompt: 'a cat', images: [] },
      { id: 'prompt', prompt: turns, images: [] },
    ]);
    expect(scored()).toEqual([lineOf('prompt', alone!)]);
    expect(scored('--answer', 'this <image> one')).toEqual([lineOf('prompt', answered!)]);
    expect(alone).not.toEqual(answered);
  });
});

describe('pairs', () => {
  it('get both scores, margin and preference, and a summary', async () => {
    const input = await fileOf(pairRecords);
    const found = gavel(['--model', model, '--input', input, '--batch', '3']);
    const lines = linesOf<PairLine>(found);
    const scores = await scoresOf(
      model,
      pairRecords.flatMap(({ first, second }) => [first, second].map(({ id, prompt }) => ({ id, prompt, images: [] }))),
    );
    for (const [i, { id, preference, first, second }] of pairRecords.entries()) {
      const margin = scores[2 * i]!.fused.mu - scores[2 * i + 1]!.fused.mu;
      expect(lines[i]).toEqual({
        id,
        preference,
        preferred: margin > 0 ? 'first' : 'second',
        margin,
        first: lineOf(first.id, scores[2 * i]!),
        second: lineOf(second.id, scores[2 * i + 1]!),
      });
    }
    const right = lines.filter(({ preference, preferred }) => preference === preferred).length;
    expect(found.stderr).toMatch(
      new RegExp(`\\[score\\] 5 pairs, accuracy ${(25 * right).toFixed(1)} % of 4 with a preference, \\S+ rows/s\\n$`),
    );
    const piped = pairRecords.map((record) => JSON.stringify(record)).join('\n');
    expect(gavel(['--model', model, '--input', '-'], piped).stdout).toBe(found.stdout);
  });

  it('of equal candidates are a tie, which is told', async () => {
    const { stdout, stderr } = gavel([
      '--model',
      model,
      '--input',
      await fileOf([{ prompt: 'which one', chosen: 'this one', rejected: 'a cat' }]),
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ margin: 0, preferred: 'tie', preference: 'first' });
    expect(stderr).toMatch(/1 pairs, accuracy 0\.0 % of 1 with a preference, 1 of equal scores, /);
  });

  it('as printed are what gavel eval --from reads', async () => {
    const scored = join(await temporaryFolder(), 'scored.jsonl');
    const { stdout } = gavel(['--model', model, '--input', await fileOf(pairRecords)]);
    await writeFile(scored, stdout);
    const evaluate = (path: string): Ended =>
      spawnSync(process.execPath, [command, 'eval', '--from', path, '--json'], { encoding: 'utf8' });
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as PairLine);
    const right = lines.filter(({ preference, preferred }) => preference === preferred).length;
    const { status, stdout: result, stderr } = evaluate(scored);
    expect(status, stderr).toBe(0);
    expect(JSON.parse(result)).toMatchObject({ count: 5, concordant: right, goldTie: 1 });
    await writeFile(scored, stdout.replace('"scoreSigma"', '"spread"'));
    expect(evaluate(scored)).toMatchObject({ status: 1, stdout: '' });
    expect(evaluate(scored).stderr).toMatch(/a pair that `gavel score` printed at .*scored\.jsonl:1/);
  });
});

describe('a trained run', () => {
  it('is a model by its folder', async () => {
    const pairs: PairRow[] = [0, 1].map((i) => ({
      id: `t${i}`,
      first: { id: `t${i}/a`, prompt: 'a cat', images: [], completion: 'this one' },
      second: { id: `t${i}/b`, prompt: 'a dog', images: [], completion: 'this one' },
      preference: 'first',
    }));
    const path = join(await temporaryFolder(), 'run');
    await using trained = await engine.loadModel(textFolder, { rewardHead });
    await using policy = await Policy.open(trained);
    await using run = await RunFolder.open(path, { run: 'run' });
    const options = { steps: 2, batchSize: 2, learningRate: 1e-2 };
    await train(policy, joint({ data: pairsFromRows('pairs', pairs), options }), { run, stage: 'only' }).result;
    const scores = await scoreRows(policy, rows, { signal });
    const lines = linesOf<RowLine>(gavel(['--model', path, '--input', await fileOf(records)]));
    expect(lines).toEqual(rows.map(({ id }, i) => lineOf(id, scores[i]!)));
  });
});

describe('what is refused', () => {
  it.each<[string, string[], RegExp]>([
    ['no source', [], /either --input or --prompt for .* but received "neither"/],
    ['two sources', ['--input', 'a', '--prompt', 'b'], /received "both"/],
    ['an answer beside a file', ['--input', 'a', '--answer', 'b'], /`--answer`/],
    ['a picture beside a file', ['--input', 'a', '--image', 'b'], /`--image`/],
    ['a batch of none', ['--prompt', 'a', '--batch', '0'], /`--batch`/],
    ['no thread', ['--prompt', 'a', '--threads', '0'], /`--threads`/],
    ['another dtype', ['--prompt', 'a', '--dtype', 'int8'], /`--dtype`/],
  ])('%s', (_, args, message) => {
    const failure = failureOfCommand(['score', '--model', model, ...args]);
    expect(failure).toMatchObject({ code: 'invalid_argument', exitCode: 2 });
    expect(failure.message).toMatch(message);
  });

  it('a model without a head, telling how one is trained', () => {
    const failure = failureOfCommand(['score', '--model', textFolder, '--prompt', 'a cat']);
    expect(failure).toMatchObject({ code: 'invalid_argument', exitCode: 2 });
    expect(failure.message).toMatch(/a model with a reward head but this one has none\. .*recipe `joint`/);
  });

  it('a file of rows and pairs, in a file and through a pipe', async () => {
    const both = [records[0]!, pairRecords[0]!];
    const failure = failureOfCommand(['score', '--model', model, '--input', await fileOf(both)]);
    expect(failure).toMatchObject({ code: 'bad_data', exitCode: 1 });
    expect(failure.message).toMatch(/received both: a row at records\.jsonl:1, a pair at records\.jsonl:2\./);
    const piped = gavel(['--model', model, '--input', '-'], both.map((record) => JSON.stringify(record)).join('\n'));
    expect(piped.stderr).toMatch(/received both: a row at line 1, a pair at line 2\. .*\[bad_data\]/);
  });

  it.each([
    ['{"prompt": ', /stdin:2 but received: not UTF-8 JSON/, 'bad_data'],
    ['{"prompt": "a cat", "more": 1}', /stdin:2 but received: .*more/, 'bad_data'],
    ['{"prompt": "<image> a"}', /stdin:2/, 'image_count_mismatch'],
    ['{"prompt": "<image> a", "images": ["../a.png"]}', /stdin:2 .*outside of/, 'bad_data'],
    ['{"prompt": "<image> a", "images": ["gone.png"]}', /stdin:2 .*gone\.png" does not exist/, 'bad_data'],
    [JSON.stringify({ prompt: '<image> a', images: [onePixel] }), /The row stands at stdin:2\./, 'unsupported'],
  ])('a bad line of a pipe, by its number: %s', (bad, message, code) => {
    const { status, stdout, stderr } = gavel(
      ['--model', model, '--input', '-'],
      `${JSON.stringify(records[0])}\n${bad}\n`,
    );
    expect(status).toBe(1);
    expect(stdout.split('\n').map((line) => line && (JSON.parse(line) as RowLine).id)).toEqual(['r0', '']);
    expect(stderr).toMatch(message);
    expect(stderr.trim().endsWith(`[${code}]`)).toBe(true);
  });

  it('pictures elsewhere, but by --image-folder, which --prompt and `gavel eval` of a benchmark do not take', async () => {
    const pictures = await temporaryFolder();
    await writeFile(join(pictures, 'one.png'), Buffer.from(onePixel.split(',')[1]!, 'base64'));
    const input = await fileOf([{ prompt: '<image> a', images: ['one.png'], solution: 'Image 1 is better' }]);
    for (const name of ['score', 'eval']) {
      const args = [name, '--model', model, '--input', input, ...(name === 'eval' ? ['--one-order'] : [])];
      expect(failureOfCommand(args).message).toMatch(/one\.png" does not exist/);
      // Found there; this model takes no pictures.
      expect(failureOfCommand([...args, '--image-folder', pictures])).toMatchObject({ code: 'unsupported' });
    }
    const prompt = ['score', '--model', model, '--prompt', 'a', '--image-folder', pictures];
    expect(failureOfCommand(prompt)).toMatchObject({ code: 'invalid_argument' });
    const benchmark = ['eval', '--model', model, '--benchmark', 'mmrb2', '--data', input, '--image-folder', pictures];
    expect(failureOfCommand(benchmark).message).toMatch(/--input only for `--image-folder`/);
    expect(failureOfCommand(['eval', '--model', model, '--input', input, '--threads', '0']).message).toMatch(
      /Expected an integer >= 1 for `--threads`/,
    );
  });

  it('a file that is not there', () => {
    expect(failureOfCommand(['score', '--model', model, '--input', join(folder, 'none.jsonl')])).toMatchObject({
      code: 'io',
      exitCode: 1,
    });
  });
});

/** The command, still running, and what it has said. */
function started(input: string): {
  child: ChildProcessWithoutNullStreams;
  said: { stdout: string; stderr: string };
  ended: Promise<number | null>;
} {
  const child = spawn(process.execPath, [command, 'score', '--model', model, '--input', input]);
  onTestFinished(() => void child.kill('SIGKILL'));
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const)
    child[name].setEncoding('utf8').on('data', (text: string) => (said[name] += text));
  return { child, said, ended: new Promise((resolve) => child.on('close', resolve)) };
}

it('an interrupt in a long file leaves whole lines', async () => {
  const { child, said, ended } = started(
    await fileOf(Array.from({ length: 20_000 }, (_, id) => ({ id, prompt: words[id % words.length] }))),
  );
  child.stdout.once('data', () => child.kill('SIGINT'));
  expect(await ended, said.stderr).toBe(130);
  expect(said.stderr).toContain('gavel: interrupted; the lines printed so far are whole.');
  expect(said.stdout.endsWith('\n')).toBe(true);
  const lines = said.stdout.trim().split('\n');
  expect(lines.length).toBeLessThan(20_000);
  expect(lines.map((line) => (JSON.parse(line) as RowLine).id)).toEqual(lines.map((_, id) => String(id)));
});

describe('standard input that stays open', () => {
  it('is answered line by line, and an interrupt ends the waiting', async () => {
    const { child, said, ended } = started('-');
    for (const [i, record] of records.slice(0, 2).entries()) {
      child.stdin.write(`${JSON.stringify(record)}\n`);
      await vi.waitFor(() => expect(said.stdout.split('\n')).toHaveLength(i + 2), { timeout: 20_000 });
    }
    child.kill('SIGINT');
    expect(await ended).toBe(130);
    expect(
      said.stdout
        .trim()
        .split('\n')
        .map((line) => (JSON.parse(line) as RowLine).id),
    ).toEqual(['r0', 'r1']);
    expect(said.stderr).toContain('gavel: interrupted; the lines printed so far are whole.');
  });

  it('does not keep a failed command', async () => {
    const { child, said, ended } = started('-');
    child.stdin.write(`${JSON.stringify(records[0])}\n{"id": 1}\n`);
    expect(await ended).toBe(1);
    expect(said.stderr).toMatch(/stdin:2 .*\[bad_data\]\s*$/);
  });

  it('ends quietly when the reader of the lines goes away', async () => {
    const { child, said, ended } = started('-');
    child.stdout.destroy();
    child.stdin.on('error', () => undefined);
    child.stdin.end(records.map((record) => `${JSON.stringify(record)}\n`).join(''));
    expect(await ended).toBe(0);
    expect(said.stderr).not.toMatch(/EPIPE/);
  });
});
