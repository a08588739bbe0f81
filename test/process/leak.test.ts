// Engines and models give back threads and memory, whether they are disposed of or forgotten.
import { describe, expect, it } from 'vitest';
import { runScript } from './child.js';

const measure = `
import { readFileSync } from 'node:fs';
const threads = () => Number(/^Threads:\\s+(\\d+)/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
const residentMiB = () => process.memoryUsage.rss() / 2 ** 20;
async function cycle(dispose) {
  const engine = await createEngine({ threads: 2 });
  const model = await engine.loadModel(textFolder);
  await model.sample([{ id: 1, promptTokens: prompt, count: 2, maxNewTokens: 4 }]);
  await model.forwardBackward([{ promptTokens: prompt, images: [], completions: [{ tokens: prompt }] }], [{ kind: 'nll' }]);
  await model.optimizerStep({ learningRate: 1e-3 });
  if (dispose) await engine.dispose();
}
`;

describe('leaks', () => {
  it('disposed engines leave no threads and no memory', async () => {
    const body = `${measure}
      for (let i = 0; i < 4; i++) await cycle(true);
      const [before, memoryBefore] = [threads(), residentMiB()];
      for (let i = 0; i < 24; i++) await cycle(true);
      globalThis.gc();
      console.log(JSON.stringify({ threads: threads() - before, grownMiB: residentMiB() - memoryBefore }));`;
    const { code, stdout, stderr } = await runScript(body, { nodeOptions: ['--expose-gc'], timeoutMs: 150_000 });
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const { threads, grownMiB } = JSON.parse(stdout) as { threads: number; grownMiB: number };
    expect(threads).toBe(0);
    // One leaked model of this size would be 3 MiB a cycle, 72 in all.
    expect(grownMiB).toBeLessThan(40);
  });

  it('forgotten engines are collected with their threads', async () => {
    const body = `${measure}
      await cycle(true);
      const before = threads();
      for (let i = 0; i < 6; i++) await cycle(false);
      const forgotten = threads() - before;
      for (let i = 0; i < 50 && threads() > before; i++) { globalThis.gc(); await soon(20); }
      console.log(forgotten > 0, threads() - before);`;
    const { code, stdout, stderr } = await runScript(body, { nodeOptions: ['--expose-gc'] });
    expect({ code, stdout, stderr }).toEqual({ code: 0, stdout: 'true 0\n', stderr: '' });
  });
});
