// Ending a training run from outside: Ctrl-C checkpoints and says how to go on, a killed run goes on at its last checkpoint.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as soon } from 'node:timers/promises';
import { afterEach, describe, expect, it } from 'vitest';
import { root, runScript, type Ending } from './child.js';

const folders: string[] = [];
afterEach(async () => {
  await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true, force: true })));
});

async function runPath(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-quickstart-'));
  folders.push(folder);
  return join(folder, 'run');
}

interface Running {
  /** Standard error so far: progress goes there. */
  progress: () => string;
  kill: (signal: NodeJS.Signals) => void;
  ending: Promise<Ending>;
}

/** `gavel` with these arguments; killed when it does not end by itself. */
function gavel(...args: string[]): Running {
  const child = spawn(process.execPath, [join(root, 'dist/cli/main.js'), ...args], { cwd: root });
  const timer = setTimeout(() => child.kill('SIGKILL'), 90_000);
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  const ending = new Promise<Ending>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, stdout, stderr });
    });
  });
  return { progress: () => stderr, kill: (signal) => child.kill(signal), ending };
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; waited < 80_000; waited += 10) {
    if (await condition()) return;
    await soon(10);
  }
  throw new Error('what the test waits for did not happen in 80 s');
}

async function stagesOf(run: string): Promise<string[]> {
  const summary = JSON.parse(await readFile(join(run, 'summary.json'), 'utf8')) as { stages: { name: string }[] };
  return summary.stages.map(({ name }) => name);
}

interface Sample {
  checkpoint: string;
  item: string;
  sample: number;
}

const poolLines = async (run: string): Promise<string[]> => {
  const path = join(run, 'samples/pool.jsonl');
  return existsSync(path) ? (await readFile(path, 'utf8')).split('\n').slice(0, -1) : [];
};

/** Evaluations and GRPO keep their samples in the same pool. */
const isOfRejection = (line: string): boolean => {
  const { checkpoint, item } = JSON.parse(line) as Sample;
  return !checkpoint.startsWith('grpo@') && !item.startsWith('evaluation ');
};

const allStages = ['perception', 'cold-start', 'rejection', 'grpo'];

describe('gavel quickstart', () => {
  it('checkpoints on SIGINT, ends with 130, and what it prints resumes the run', async () => {
    const run = await runPath();
    const first = gavel('quickstart', '--smoke', '--seed', '3', '--out', run);
    await until(() => first.progress().includes('[cold-start] sft'));
    first.kill('SIGINT');
    const stopped = await first.ending;
    expect(stopped).toMatchObject({ code: 130, signal: null, stdout: '' });
    const said = /Stopped; the checkpoint is (\S+)\. To continue: npx gavel (.*)\n/.exec(stopped.stderr)!;
    expect(existsSync(join(said[1]!, 'manifest.json'))).toBe(true);
    const resumed = gavel(...said[2]!.split(' '));
    const { code, stderr } = await resumed.ending;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('[perception] was complete already');
    expect(await stagesOf(run)).toEqual(allStages);
  });

  it('goes on after kill -9 at the last checkpoint and draws no sample twice', async () => {
    const run = await runPath();
    const first = gavel('quickstart', '--smoke', '--seed', '4', '--out', run);
    await until(async () => (await poolLines(run)).some(isOfRejection));
    first.kill('SIGKILL');
    expect(await first.ending).toMatchObject({ code: null, signal: 'SIGKILL' });
    const before = await poolLines(run);
    const { code, stderr } = await gavel('quickstart', '--smoke', '--seed', '4', '--out', run, '--resume').ending;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('[cold-start] was complete already');
    expect(await stagesOf(run)).toEqual(allStages);
    const after = await poolLines(run);
    expect(after.slice(0, before.length)).toEqual(before);
    const samples = after.map((line) => JSON.parse(line) as Sample);
    const keys = samples.map(({ checkpoint, item, sample }) => `${checkpoint} ${item} ${sample}`);
    expect(new Set(keys).size).toBe(keys.length);
    // One set of weights drew for rejection, before the kill and after it: four samples of each of the 32 items.
    const pool = after.filter(isOfRejection).map((line) => JSON.parse(line) as Sample);
    expect(new Set(pool.map(({ checkpoint }) => checkpoint)).size).toBe(1);
    expect(pool).toHaveLength(32 * 4);
  });

  it('refuses a second writer, and a killed one leaves no lock behind', async () => {
    const run = await runPath();
    const first = gavel('quickstart', '--smoke', '--seed', '5', '--out', run);
    await until(() => first.progress().includes('[perception] sft'));
    const second = await gavel('quickstart', '--smoke', '--seed', '5', '--out', run, '--resume').ending;
    expect(second.code).toBe(1);
    expect(second.stderr).toContain('belongs to process');
    first.kill('SIGKILL');
    await first.ending;
    const third = gavel('quickstart', '--smoke', '--seed', '5', '--out', run, '--resume');
    await until(() => third.progress().includes('[perception] sft'));
    third.kill('SIGINT');
    expect((await third.ending).code).toBe(130);
  });
});

describe('an AbortSignal', () => {
  it('ends a training call within a micro-step, and a sampling call within a token', async () => {
    const body = `
      const engine = await createEngine({ threads: 2 });
      const model = await engine.loadModel(textFolder);
      const completion = { tokens: Int32Array.from({ length: 60 }, (_, i) => 3 + (i % 30)) };
      let groups = Array.from({ length: 600 }, () => ({ promptTokens: prompt, images: [], completions: [completion] }));
      const step = (signal) => model.forwardBackward(groups, [{ kind: 'nll' }], { maxTokensPerMicroBatch: 65, signal });
      const timed = async (work) => { const start = performance.now(); await work(); return performance.now() - start; };
      let whole = await timed(() => step());
      for (; whole < 800; whole = await timed(() => step())) groups = [...groups, ...groups];
      await model.zeroGradients();
      const reason = new Error('enough');
      const settle = async (start) => {
        const controller = new AbortController();
        const outcome = start(controller.signal).then(() => 'finished', (error) => (error === reason ? 'reason' : error));
        await soon(whole / 10);
        let settled;
        const ms = await timed(async () => { controller.abort(reason); settled = await outcome; });
        return [settled, ms];
      };
      const training = await settle(step);
      const sampling = await settle((signal) => model.sample([{ id: 1, promptTokens: prompt, count: 4, maxNewTokens: 30000, stopTokens: new Int32Array(0) }], { signal }).result);
      await engine.dispose();
      console.log(JSON.stringify({ whole, training, sampling }));`;
    const { code, stdout, stderr } = await runScript(body);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { whole, training, sampling } = JSON.parse(stdout) as Record<'training' | 'sampling', [string, number]> & {
      whole: number;
    };
    // One of 600 or more micro-steps is far below the bound; waiting for the call's end would be nine tenths of the whole.
    expect(training[0]).toBe('reason');
    expect(training[1]).toBeLessThan(whole / 3 + 100);
    expect(sampling[0]).toBe('reason');
    expect(sampling[1]).toBeLessThan(1000);
  });
});
