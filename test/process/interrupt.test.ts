// Ctrl-C in commands that print as they go: exit status 130, whole lines, and a message that is true of the command.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

const root = join(import.meta.dirname, '../..');
const command = join(root, 'dist/cli/main.js');
const model = join(root, 'test/goldens/micro-text');

async function rowsFile(count: number): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-interrupt-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'rows.jsonl');
  const row = (id: number): string =>
    JSON.stringify({ id, prompt: 'which one', completion: 'this one', solution: 'this one' });
  await writeFile(path, Array.from({ length: count }, (_, i) => `${row(i)}\n`).join(''));
  return path;
}

/** Runs a command, sends SIGINT when it has said something on `stream`, and returns how it ended. */
async function interrupted(
  args: readonly string[],
  stream: 'stdout' | 'stderr',
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [command, ...args], { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => {
      if (name === stream && said[name] === '') child.kill('SIGINT');
      said[name] += text;
    });
  }
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { status, ...said };
}

describe('an interrupt', () => {
  it.each([
    ['sample', ['--group', '8', '--max-new-tokens', '64']],
    ['logprobs', []],
  ])('of gavel %s leaves whole lines and says so', async (name, more) => {
    const input = await rowsFile(20_000);
    const { status, stdout, stderr } = await interrupted([name, '--model', model, '--input', input, ...more], 'stdout');
    expect(status, stderr).toBe(130);
    expect(stderr).toContain('gavel: interrupted; the lines printed so far are whole.');
    expect(stdout.endsWith('\n')).toBe(true);
    const lines = stdout.trim().split('\n');
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.length).toBeLessThan(20_000);
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty('logprobs');
  });

  it('of gavel eval does not speak of resuming, which it cannot', async () => {
    const args = ['eval', '--model', model, '--input', await rowsFile(20_000), '--one-order', '--max-new-tokens', '64'];
    const { status, stdout, stderr } = await interrupted(args, 'stderr');
    expect(status, stderr).toBe(130);
    expect(stderr).toContain('gavel: interrupted; nothing was written. Run it again from the start.');
    expect(stderr).not.toContain('--resume');
    expect(stdout).toBe('');
  });
});
