// The README's example is a file that runs: same text, exit code 0, and the reward rises as the README says.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');

describe('the README', () => {
  it('shows examples/grpo-loop.mjs word for word, in about 30 lines', () => {
    const example = readFileSync(join(root, 'examples/grpo-loop.mjs'), 'utf8');
    const blocks = [...readFileSync(join(root, 'README.md'), 'utf8').matchAll(/```js\n([\s\S]*?)```/g)];
    expect(blocks.map(([, block]) => block)).toContain(example);
    expect(example.trim().split('\n').length).toBeLessThanOrEqual(36);
  });

  it('has an example that runs and learns', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['examples/grpo-loop.mjs'], {
      cwd: root,
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const rewards = [...stdout.matchAll(/reward ([\d.]+)/g)].map(([, reward]) => Number(reward));
    expect(rewards).toHaveLength(20);
    const mean = (values: number[]): number => values.reduce((sum, value) => sum + value, 0) / values.length;
    expect(mean(rewards.slice(-5))).toBeGreaterThan(mean(rewards.slice(0, 5)) + 0.1);
  });
});

describe('docs/embedding.md', () => {
  it('has an example that streams, keeps a deadline and names a mistyped option', () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['examples/stream-with-deadline.mjs'], {
      cwd: root,
      encoding: 'utf8',
    });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout.match(/^\d (stop|length) \d+$/gm)).toHaveLength(4);
    expect(stdout).toContain('ended: TimeoutError\ninvalid_argument');
    expect(stdout).toContain('Did you mean `temperature`?');
  });
});
