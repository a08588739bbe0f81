// What Gavel exports, transformers and PEFT load and agree with, token by token: `gavel logprobs`, `gavel export` and
// scripts/verify_export.py as a user runs them. Needs Python with transformers (GAVEL_PYTHON); else it says what is missing.
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { createEngine } from '../../src/index.js';

const root = join(import.meta.dirname, '../..');
const command = join(root, 'dist/cli/main.js');
const script = join(root, 'scripts/verify_export.py');
const python = process.env['GAVEL_PYTHON'] ?? 'python3';
const textFolder = join(root, 'test/goldens/micro-text');
const visionFolder = join(root, 'test/goldens/micro-vl');
const onevisionFolder = join(root, 'test/goldens/micro-ov');
const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const missing = (module: string): string | undefined => {
  const { status, stderr, error } = spawnSync(python, ['-c', `import ${module}`], { encoding: 'utf8' });
  return status === 0 ? undefined : `${python}: ${error?.message ?? stderr.trim().split('\n').at(-1)}`;
};
const obstacle = missing('torch, transformers, PIL');
const peftObstacle = obstacle ?? missing('peft');
if (peftObstacle !== undefined) console.log(`verify_export: skipped: ${peftObstacle}`);

function skipWithout(context: TestContext, reason: string | undefined): void {
  if (reason !== undefined) context.skip(reason);
}

async function temporary(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-verify-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

function gavel(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });
  expect(status, stderr).toBe(0);
  return stdout;
}

function verify(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync(python, [script, ...args], {
    encoding: 'utf8',
    env: { ...process.env, HF_HUB_OFFLINE: '1', TRANSFORMERS_VERBOSITY: 'error' },
  });
  return { status, stdout, stderr };
}

/** Noise: every patch differs. */
async function picture(path: string, width: number, height: number): Promise<void> {
  let state = width;
  const next = (): number => (state = (state * 1103515245 + 12345) & 0x7fffffff) >> 16;
  const bytes = Buffer.from(Array.from({ length: width * height * 3 }, () => next() & 255));
  await sharp(bytes, { raw: { width, height, channels: 3 } })
    .png()
    .toFile(path);
}

async function writeRows(folder: string, rows: readonly object[]): Promise<string> {
  const path = join(folder, 'rows.jsonl');
  await writeFile(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}

const textRows = [
  { id: 'a', prompt: 'which one', completion: 'this one' },
  { id: 'b', prompt: [{ role: 'user', content: 'hello there' }], completion: 'a cat' },
];

async function visionRows(folder: string): Promise<string> {
  await picture(join(folder, 'a.png'), 84, 56);
  await picture(join(folder, 'b.png'), 140, 100);
  return writeRows(folder, [
    { id: 'one', prompt: '<image>which one', images: ['a.png'], completion: 'this one' },
    { id: 'two', prompt: '<image> or <image>?', images: ['a.png', 'b.png'], completion: 'a cat' },
  ]);
}

/** An adapter that has learnt something, so that its product is not zero. */
async function trainedAdapter(from: string, folder: string): Promise<void> {
  await using model = await engine.loadModel(from, { lora: { rank: 4, seed: 3 } });
  const completions = [{ tokens: Int32Array.of(11, 45, 3, 505) }];
  for (let step = 0; step < 3; step++) {
    await model.forwardBackward(
      [{ promptTokens: Int32Array.of(5, 9, 33, 21), images: [], completions }],
      [{ kind: 'nll' }],
    );
    await model.optimizerStep({ learningRate: 1e-2 });
  }
  await model.saveAdapter(folder);
}

describe('transformers agrees with an export', () => {
  it('of a text model, and disagrees with other numbers', async (context) => {
    skipWithout(context, obstacle);
    const folder = await temporary();
    const rows = await writeRows(folder, textRows);
    const lines = join(folder, 'logprobs.jsonl');
    await writeFile(lines, gavel('logprobs', '--model', textFolder, '--input', rows));
    gavel('export', '--model', textFolder, '--out', join(folder, 'out'));
    const same = verify('--export', join(folder, 'out'), '--logprobs', lines, '--tolerance', '2e-5');
    expect(same.status, same.stdout + same.stderr).toBe(0);
    expect(same.stdout).toMatch(/^max difference \d\.\d+e-0\d \(row [ab]\), \d+ tokens, 2 rows/m);
    const text = await readFile(lines, 'utf8');
    await writeFile(
      lines,
      text.replace(/"logprobs":\[(-[\d.]+)/, (_, value: string) => `"logprobs":[${Number(value) - 0.01}`),
    );
    expect(verify('--export', join(folder, 'out'), '--logprobs', lines).status).toBe(1);
  });

  it.for([
    ['Qwen2.5-VL', visionFolder],
    ['LLaVA-OneVision', onevisionFolder],
  ] as const)('of %s, with pictures through its own processor', async ([, visionFolder], context) => {
    skipWithout(context, obstacle);
    const folder = await temporary();
    const rows = await visionRows(folder);
    const lines = join(folder, 'logprobs.jsonl');
    await writeFile(lines, gavel('logprobs', '--model', visionFolder, '--input', rows));
    gavel('export', '--model', visionFolder, '--out', join(folder, 'out'));
    const same = verify('--export', join(folder, 'out'), '--logprobs', lines, '--rows', rows, '--tolerance', '2e-5');
    expect(same.status, same.stdout + same.stderr).toBe(0);
    expect(same.stdout).toMatch(/, Pillow \d+\.\d+/);
  });

  it.for([
    ['text', textFolder],
    ['vision-language', visionFolder],
  ] as const)('of a %s adapter in PEFT, and of the same one merged', async ([kind, from], context) => {
    skipWithout(context, peftObstacle);
    const folder = await temporary();
    await trainedAdapter(from, join(folder, 'adapter'));
    const rows = kind === 'text' ? await writeRows(folder, textRows) : await visionRows(folder);
    const lines = join(folder, 'logprobs.jsonl');
    await writeFile(lines, gavel('logprobs', '--model', join(folder, 'adapter'), '--input', rows));
    gavel('export', '--model', join(folder, 'adapter'), '--out', join(folder, 'alone'));
    gavel('export', '--model', join(folder, 'adapter'), '--out', join(folder, 'merged'), '--merge');
    for (const name of ['alone', 'merged']) {
      const same = verify('--export', join(folder, name), '--logprobs', lines, '--rows', rows, '--tolerance', '2e-5');
      expect(same.status, `${name}: ${same.stdout}${same.stderr}`).toBe(0);
    }
  });
});
