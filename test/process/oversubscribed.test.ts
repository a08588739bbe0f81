// Engines whose threads together exceed the cores say so once in a process, on stderr, with a code.
import { expect, it } from 'vitest';
import { runScript } from './child.js';

it('warns once when the live engines have more threads than there are cores', async () => {
  const { stdout, stderr, code } = await runScript(
    `
    const { availableParallelism } = await import('node:os');
    const { deviceInfo } = await import(${JSON.stringify('./dist/index.js')});
    const warnings = [];
    process.on('warning', (warning) => warnings.push(warning));
    const turn = () => new Promise((resolve) => setImmediate(resolve));
    const cores = availableParallelism();
    const first = await createEngine();
    await turn();
    const before = warnings.length;
    const others = [await createEngine({ threads: 1 }), await createEngine({ threads: cores + 1 })];
    await turn();
    const live = deviceInfo().engineThreads;
    for (const engine of [first, ...others]) await engine.dispose();
    console.log(JSON.stringify([before, warnings.map(({ code, name }) => [code, name]), live - 2 * cores - 2, deviceInfo().engineThreads]));
  `,
    { tellsOversubscribed: true },
  );
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual([0, [['GAVEL_OVERSUBSCRIBED', 'GavelWarning']], 0, 0]);
  expect(stderr).toMatch(/GAVEL_OVERSUBSCRIBED.*Expected no more threads of engines than the \d+ cores/);
});
