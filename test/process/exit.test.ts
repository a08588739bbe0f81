// Every way a process can end while the engine computes: it ends at once, with the right code, and never by a crash.
import { describe, expect, it } from 'vitest';
import { runScript } from './child.js';

const started = `
const engine = await createEngine({ threads: 2 });
const model = await engine.loadModel(textFolder);
`;

describe('a process with an engine', () => {
  it('ends by itself when the engine is idle, disposed or not', async () => {
    for (const last of ['', 'await engine.dispose();']) {
      expect(
        await runScript(
          `${started} await model.logprobs([{ promptTokens: prompt, images: [], completions: [{ tokens: prompt }] }]); ${last} console.log('end');`,
        ),
      ).toEqual({
        code: 0,
        signal: null,
        stdout: 'end\n',
        stderr: '',
      });
    }
  });

  it('stays alive until pending work is done, also when nobody awaits it', async () => {
    const body = `${started}
      model.sample([{ id: 1, promptTokens: prompt, maxNewTokens: 20, stopTokens: new Int32Array(0) }]).result.then((stats) => console.log(stats.completionTokens));`;
    expect(await runScript(body)).toMatchObject({ code: 0, stdout: '20\n', stderr: '' });
  });

  it('ends with the code of process.exit() in the middle of a run', async () => {
    const body = `${started} endless(model); endless(model, 2); await soon(100); process.exit(7);`;
    expect(await runScript(body)).toEqual({ code: 7, signal: null, stdout: '', stderr: '' });
  });

  it('ends with process.exit() called while completions are delivered', async () => {
    const body = `${started}
      const second = await createEngine({ threads: 1 });
      endless(await second.loadModel(textFolder), 2);
      const onCompletions = () => process.exit(4);
      model.sample([{ id: 1, promptTokens: prompt, count: 8, maxNewTokens: 2 }], { onCompletions });
      await soon(30000);`;
    expect(await runScript(body)).toEqual({ code: 4, signal: null, stdout: '', stderr: '' });
  });

  it('ends with code 1 after an uncaught exception', async () => {
    const body = `${started} endless(model).catch(() => {}); setTimeout(() => { throw new Error('planted'); }, 100); await soon(30000);`;
    const ending = await runScript(body);
    expect(ending).toMatchObject({ code: 1, signal: null });
    expect(ending.stderr).toContain('planted');
  });

  it("ends with code 1 when a rejection is not handled, and the stack is the caller's", async () => {
    const body = `${started} function userCode() { return model.readTensor('no.such.tensor'); } await userCode();`;
    const ending = await runScript(body);
    expect(ending).toMatchObject({ code: 1, signal: null });
    expect(ending.stderr).toContain("code: 'invalid_argument'");
    expect(ending.stderr).toContain('userCode');
  });

  it('dies of SIGTERM and SIGINT as any process does: handling them is up to the caller', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const ending = await runScript(`${started} endless(model); console.log('ready');`, { signalWhenReady: signal });
      expect(ending).toMatchObject({ code: null, signal });
    }
  });

  it('can turn SIGINT into an orderly end', async () => {
    const body = `${started}
      const controller = new AbortController();
      process.once('SIGINT', () => controller.abort(new Error('interrupted')));
      const run = model.sample([{ id: 1, promptTokens: prompt, maxNewTokens: 30000, stopTokens: new Int32Array(0) }], { signal: controller.signal });
      console.log('ready');
      await run.result.catch((error) => console.log(error.message));
      await engine.dispose();`;
    expect(await runScript(body, { signalWhenReady: 'SIGINT' })).toEqual({
      code: 0,
      signal: null,
      stdout: 'ready\ninterrupted\n',
      stderr: '',
    });
  });
});
