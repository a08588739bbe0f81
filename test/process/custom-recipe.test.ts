// examples/custom-recipe as a user runs it: a recipe, a verifier and a reward that are not the package's own, killed in the
// middle of the recipe and resumed to the weights of a run that nobody disturbed.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as soon } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { followsFromItself, readRationale, soundVerifier } from '../../examples/custom-recipe/sound.mjs';
import { root, type Ending } from './child.js';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'gavel-custom-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

const linesOf = async (path: string): Promise<Record<string, unknown>[]> =>
  existsSync(path)
    ? (await readFile(path, 'utf8'))
        .split('\n')
        .slice(0, -1)
        .map((line) => JSON.parse(line) as Record<string, unknown>)
    : [];

/** The example, short; it is killed once its log has an event that `killAt` accepts. */
async function run(name: string, killAt?: (event: Record<string, unknown>) => boolean): Promise<Ending> {
  const out = join(base, name);
  const script = join(root, 'examples/custom-recipe/run.mjs');
  const child = spawn(process.execPath, [script, '--smoke', '--resume', '--out', out, '--threads', '2'], { cwd: root });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ending = new Promise<Ending>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  const timer = setTimeout(() => child.kill('SIGTERM'), 80_000);
  while (killAt !== undefined && child.exitCode === null && child.signalCode === null) {
    if ((await linesOf(join(out, 'events.jsonl'))).some(killAt)) child.kill('SIGKILL');
    await soon(10);
  }
  return ending.finally(() => clearTimeout(timer));
}

const weightsOf = (name: string): Promise<Buffer> => readFile(join(base, name, 'final/model.safetensors'));

interface Round {
  share: number;
  kept: number;
  steps: number;
  loss: number;
}

describe('examples/custom-recipe', () => {
  it('runs every stage, and goes on after kill -9 inside a stage of its own', async () => {
    const whole = await run('whole');
    expect(whole.code, whole.stderr).toBe(0);
    const [first, ...table] = whole.stdout.trim().split('\n');
    const rounds = JSON.parse(first!) as Round[];
    // Six items of four samples, which all count in a smoke run; equal ones of an item are one row.
    for (const { share, kept, steps, loss } of rounds) {
      expect(share).toBe(1);
      expect(kept).toBeGreaterThan(12);
      expect(steps).toBe(Math.ceil(kept / 4));
      expect(loss).toBeGreaterThan(0);
    }
    expect(rounds).toHaveLength(2);
    expect(table.map((line) => line.split(' ')[0])).toEqual(['stage', 'cold-start', 'expert-iteration', 'grpo']);
    const grpo = (await linesOf(join(base, 'whole/metrics.jsonl'))).filter(({ stage }) => stage === 'grpo');
    expect(grpo).toHaveLength(4);
    for (const metrics of grpo) expect(metrics['rewards/eyes/mean']).toBeTypeOf('number');

    const isInFit = ({ type, stage, step }: Record<string, unknown>): boolean =>
      type === 'step-end' && stage === 'expert-iteration/fit-2' && Number(step) >= 2;
    const killed = await run('killed', isInFit);
    expect(killed, killed.stderr).toMatchObject({ code: null, signal: 'SIGKILL' });
    const before = await linesOf(join(base, 'killed/samples/pool.jsonl'));
    const resumed = await run('killed');
    expect(resumed.code, resumed.stderr).toBe(0);
    expect(resumed.stderr).toContain('expert-iteration/draw-2 was complete already');
    expect(resumed.stdout.split('\n')[0]).toBe(first);
    const after = await linesOf(join(base, 'killed/samples/pool.jsonl'));
    expect(after.slice(0, before.length)).toEqual(before);
    expect(after).toHaveLength((await linesOf(join(base, 'whole/samples/pool.jsonl'))).length);
    expect((await weightsOf('killed')).equals(await weightsOf('whole'))).toBe(true);
  });

  const caption = ['dog', '_', 'pizza', 'cat'];
  const sound =
    '<think> dog ok _ ok pizza ok frog no 3 dog ok _ ok apple no frog no 2</think><answer>Image 1 is better</answer>';

  it('calls right what is right and follows from itself', () => {
    expect(soundVerifier(sound, 'Image 1 is better', { caption })).toEqual({
      ...{ correct: true, answer: 'Image 1 is better' },
    });
    expect(soundVerifier(sound, 'Image 2 is better', { caption }).correct).toBe(false);
    expect(readRationale(sound)![1]).toEqual({
      ...{ words: ['dog', '_', 'apple', 'frog'], marks: ['ok', 'ok', 'no', 'no'], count: 2 },
    });
  });

  it.each([
    ['a mark against word and caption', sound.replace('frog no 3', 'frog ok 3')],
    ['a count against the marks', sound.replace('no 2', 'no 1')],
    ['a verdict against the counts', sound.replace('Image 1', 'Image 2')],
    ['equal counts', sound.replace('apple no frog no 2', 'pizza ok frog no 3')],
    ['a rationale that is cut off', sound.replace('frog no 2', '')],
    ['no rationale', '<answer>Image 1 is better</answer>'],
  ])('does not take %s', (_, completion) => {
    expect(followsFromItself(completion, caption)).toBe(false);
  });
});
