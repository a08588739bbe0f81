// What a program says of its memory is its own, whatever the process held that started it.
import { expect, it } from 'vitest';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { peakMemoryBytes } from '../../src/runs/peak-memory.js';
import { root, runScript } from './child.js';

it('a peak is of the program, not of the one that started it', async () => {
  const held = Buffer.alloc(2 ** 29, 1);
  const program = pathToFileURL(join(root, 'dist/runs/peak-memory.js')).href;
  const { stdout } = await runScript(
    `const { peakMemoryBytes } = await import(${JSON.stringify(program)}); console.log(peakMemoryBytes());`,
  );
  expect(peakMemoryBytes()).toBeGreaterThan(held.length);
  expect(Number(stdout)).toBeGreaterThan(2 ** 24);
  expect(Number(stdout)).toBeLessThan(2 ** 28);
});
