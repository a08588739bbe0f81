// worker_threads: every worker has its own engines; terminating one in the middle of a run harms nobody.
import { describe, expect, it } from 'vitest';
import { runScript } from './child.js';

// The worker runs the same prelude, handed over as text.
const workerPrelude = `
import { Worker } from 'node:worker_threads';
const imports = \`import { parentPort } from 'node:worker_threads';
import { createEngine } from '\${new URL('./dist/index.js', 'file://' + process.cwd() + '/').href}';
const prompt = Int32Array.of(5, 9, 33, 21, 7);
const engine = await createEngine({ threads: 2 });
const model = await engine.loadModel(\${JSON.stringify(textFolder)});\`;
const startWorker = (body) => new Worker(new URL('data:text/javascript,' + encodeURIComponent(imports + body)));
const message = (worker) => new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
const endlessBody = "model.sample([{ id: 1, promptTokens: prompt, count: 4, maxNewTokens: 30000, stopTokens: new Int32Array(0) }]).catch(() => {}); parentPort.postMessage('running');";
`;

describe('worker_threads', () => {
  it('terminate() in the middle of a run, again and again, leaves the process sound', async () => {
    const body = `${workerPrelude}
      for (let round = 0; round < 4; round++) {
        const worker = startWorker(endlessBody);
        await message(worker);
        await soon(30 * round);
        await worker.terminate();
      }
      const engine = await createEngine({ threads: 2 });
      const model = await engine.loadModel(textFolder);
      const stats = await model.sample([{ id: 1, promptTokens: prompt, maxNewTokens: 5, stopTokens: new Int32Array(0) }]);
      await engine.dispose();
      console.log(stats.completionTokens);`;
    expect(await runScript(body)).toEqual({ code: 0, signal: null, stdout: '5\n', stderr: '' });
  });

  it('process.exit() while workers compute ends the process', async () => {
    const body = `${workerPrelude}
      const workers = [startWorker(endlessBody), startWorker(endlessBody)];
      await Promise.all(workers.map(message));
      process.exit(5);`;
    expect(await runScript(body)).toEqual({ code: 5, signal: null, stdout: '', stderr: '' });
  });

  it('a worker that ends by itself leaves its engine behind without harm', async () => {
    const body = `${workerPrelude}
      const worker = startWorker("const { completions } = await model.sample([{ id: 1, promptTokens: prompt, maxNewTokens: 3 }]); parentPort.postMessage(completions);");
      console.log(await message(worker));
      console.log(await new Promise((resolve) => worker.once('exit', resolve)));`;
    expect(await runScript(body)).toEqual({ code: 0, signal: null, stdout: '1\n0\n', stderr: '' });
  });

  it('engines of two threads compute at once with the same results', async () => {
    const body = `${workerPrelude}
      const drawn = "const drawn = await model.sample([{ id: 1, promptTokens: prompt, count: 8 }], { maxNewTokens: 30, seed: 9 }).completions(); parentPort.postMessage(JSON.stringify(drawn.map(({ tokens }) => [...tokens])));";
      const texts = await Promise.all([startWorker(drawn), startWorker(drawn)].map(message));
      console.log(texts[0] === texts[1], texts[0].length > 50);`;
    expect(await runScript(body)).toEqual({ code: 0, signal: null, stdout: 'true true\n', stderr: '' });
  });
});
