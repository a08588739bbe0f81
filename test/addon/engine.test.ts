// Engine and addon gate: devices, arguments, life and death.
import { availableParallelism } from 'node:os';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, deviceInfo } from '../../src/engine/index.js';
import { nativeModule } from '../../src/engine/native-module.js';
import { errorCodes, GavelError } from '../../src/errors.js';
import { textFolder, textGroup } from './model-fixture.js';

describe('native module', () => {
  it('has the codes of errors.ts, in order', () => {
    expect([...nativeModule().codes]).toEqual([...errorCodes]);
  });

  it('names its version, build and machine', () => {
    expect(nativeModule().version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(nativeModule().buildId.startsWith(`${nativeModule().version}-`)).toBe(true);
    const info = deviceInfo();
    expect(info.isas.at(-1)).toBe('generic');
    expect(info.isas).toContain(info.isa);
    expect(info.hardwareThreads).toBeGreaterThanOrEqual(1);
    expect(info.cuda.available || info.cuda.reason.length > 10).toBe(true);
  });

  it('refuses a setErrorClass that is no function', () => {
    expect(() => nativeModule().setErrorClass(3 as never)).toThrow(
      /Expected a function for `errorClass` but received 3/,
    );
  });
});

describe('createEngine', () => {
  it.each([
    [{ device: 'gpu' }, /`options.device`.*"gpu"/],
    [{ threads: 0 }, /`options.threads`/],
    [{ threads: 1.5 }, /`options.threads`/],
    [{ thread: 2 }, /`options.thread`\. Did you mean `threads`\?/],
  ])('refuses %j', async (options, message) => {
    const refusal = createEngine(options as never);
    await expect(refusal).rejects.toThrow(message);
    await expect(refusal).rejects.toMatchObject({ name: 'GavelError', code: 'invalid_argument' });
  });

  it('never replaces a demanded device', async () => {
    const refusal = createEngine({ device: 'cuda:7' });
    await expect(refusal).rejects.toMatchObject({ code: 'device_unavailable' });
    await expect(refusal).rejects.toThrow(/cuda:7/);
  });

  it("takes the CPU for 'auto' and the threads it is given", async () => {
    const engine = await createEngine({ threads: 2 });
    expect(engine.device).toBe('cpu');
    expect(engine.threads).toBe(2);
    expect(engine.exactness).toBe('bitwise');
    await engine.dispose();
  });

  it('is refused in a mode that the processor does not have', async () => {
    await expect(createEngine({ exactness: 'fastest' })).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringMatching(/^Expected 'bitwise' for `exactness` on the CPU but received 'fastest'/) as string,
    });
  });
});

describe.runIf(process.platform === 'linux')('pinned threads', () => {
  it('are refused without a core each, and on cores there are not', async () => {
    const cores = availableParallelism();
    for (const options of [
      { threads: cores + 1, pinThreads: true },
      { pinThreads: [100_000] },
      { pinThreads: [0, 0] },
    ]) {
      await expect(createEngine(options)).rejects.toMatchObject({ code: 'invalid_argument' });
    }
    await expect(createEngine({ pinThreads: [100_000] })).rejects.toThrow(
      /cores of this process for `pinThreads` but received 100000\. Those it may run on are \d/,
    );
    await expect(createEngine({ pinThreads: [] })).rejects.toThrow(/`options.pinThreads`/);
  });

  it('compute what free ones do', async () => {
    const losses = [];
    for (const pinThreads of [false, true]) {
      await using engine = await createEngine({ threads: availableParallelism(), pinThreads });
      const model = await engine.loadModel(textFolder);
      losses.push((await model.forwardBackward([textGroup()], [{ kind: 'nll' }])).loss);
    }
    expect(losses[0]).toBe(losses[1]);
  });
});

describe('disposal', () => {
  it('is idempotent, also when asked twice at once', async () => {
    const engine = await createEngine({ threads: 1 });
    await Promise.all([engine.dispose(), engine.dispose()]);
    await engine.dispose();
    await expect(engine.loadModel(textFolder)).rejects.toMatchObject({ code: 'disposed' });
  });

  it('of a model leaves the engine; its verbs then say disposed', async () => {
    const engine = await createEngine({ threads: 1 });
    const model = await engine.loadModel(textFolder);
    const other = await engine.loadModel(textFolder);
    await Promise.all([model.dispose(), model.dispose()]);
    await model.dispose();
    expect(() => model.tensors()).toThrow(GavelError);
    await expect(model.logprobs([textGroup()])).rejects.toMatchObject({ code: 'disposed' });
    expect((await other.logprobs([textGroup()])).logprobs).toHaveLength(10);
    await engine.dispose();
    await expect(other.logprobs([textGroup()])).rejects.toMatchObject({ code: 'disposed' });
    await other.dispose();
  });

  it('of an engine aborts what runs and what waits', async () => {
    const engine = await createEngine({ threads: 1 });
    const model = await engine.loadModel(textFolder);
    const runs = Array.from({ length: 4 }, (_, id) =>
      model.sample([
        { id, promptTokens: Int32Array.of(1, 2, 3), count: 8, maxNewTokens: 20_000, stopTokens: new Int32Array(0) },
      ]),
    );
    const outcomes = Promise.allSettled(runs.map((run) => run.result));
    await engine.dispose();
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'aborted' } });
    }
  });

  it('works in await using blocks', async () => {
    const engine = await createEngine({ threads: 1 });
    await engine[Symbol.asyncDispose]();
    await expect(engine.loadModel(textFolder)).rejects.toMatchObject({ code: 'disposed' });
  });

  it('frees the memory of models', async () => {
    const engine = await createEngine({ threads: 1 });
    const model = await engine.loadModel(textFolder);
    expect(engine.memory().weightBytes).toBeGreaterThanOrEqual(119_360 * 4);
    await model.dispose();
    expect(engine.memory().weightBytes).toBe(0);
    await engine.dispose();
  });
});

describe('the gate', async () => {
  const engine = await createEngine({ threads: 1 });
  const model = await engine.loadModel(textFolder);
  afterAll(() => engine.dispose());
  const { native } = model.parts;
  const step = { maxTokensPerMicroBatch: 64, activationCheckpointing: false };
  const group = (change: object): never => [{ ...textGroup(), ...change }] as never;
  const completion = (change: object): never => group({ completions: [{ tokens: Int32Array.of(1, 2), ...change }] });

  it.each([
    ['a group list that is none', 7 as never, 'invalid_argument', 'Expected an array for `groups` but received 7.'],
    ['no group', [] as never, 'invalid_argument', 'Expected at least one group for `groups`'],
    [
      'tokens of another type',
      group({ promptTokens: 'text' }),
      'invalid_argument',
      'Expected Int32Array for `groups[0].promptTokens` but received "text".',
    ],
    [
      'tokens as floats',
      completion({ tokens: Float32Array.of(1) }),
      'invalid_argument',
      'Expected Int32Array for `groups[0].completions[0].tokens` but received Float32Array of 1 elements.',
    ],
    ['negative tokens', completion({ tokens: Int32Array.of(1, -2) }), 'invalid_argument', '-2 at index 1'],
    ['an empty prompt', group({ promptTokens: new Int32Array(0) }), 'invalid_argument', 'at least one token'],
    [
      'a mask of another length',
      completion({ mask: Uint8Array.of(1) }),
      'invalid_argument',
      '2 elements, one per token',
    ],
    ['a mask of twos', completion({ mask: Uint8Array.of(1, 2) }), 'invalid_argument', 'zeros and ones'],
    [
      'an advantage that is NaN',
      completion({ advantage: NaN }),
      'bad_data',
      '`groups[0].completions[0].advantage` but received NaN',
    ],
    ['a temperature of 0', completion({ temperature: 0 }), 'invalid_argument', 'a number > 0'],
    ['old log-probs with NaN', completion({ oldLogprobs: Float32Array.of(0, NaN) }), 'bad_data', 'NaN at index 1'],
    [
      'pixels that do not fit the grid',
      group({ images: [{ pixels: new Float32Array(7), grid: [1, 2, 2] }] }),
      'invalid_argument',
      '`groups[0].images[0].pixels`',
    ],
    [
      'a grid of two',
      group({ images: [{ pixels: new Float32Array(4), grid: [2, 2] }] }),
      'invalid_argument',
      '[time, height, width]',
    ],
  ])('refuses %s', (_name, groups, code, text) => {
    let caught: unknown;
    try {
      void native.logprobs(groups, { ...step, entropy: false }, 1);
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(GavelError);
    expect(caught).toMatchObject({ code });
    expect((caught as GavelError).message).toContain(text);
  });

  it('refuses pixels that are not finite, found on the job thread', async () => {
    const images = [{ pixels: new Float32Array(4).fill(NaN), grid: [1, 2, 2] as const }];
    await expect(model.logprobs([{ ...textGroup(), images }])).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('refuses a model of another engine, and things that are no model', async () => {
    const second = await createEngine({ threads: 1 });
    const foreign = await second.loadModel(textFolder);
    expect(() => native.copyWeightsFrom(foreign.parts.native)).toThrow(/a model of the same engine/);
    expect(() => native.copyWeightsFrom({} as never)).toThrow(/a model of the same engine/);
    await second.dispose();
  });

  it('lets nobody construct its classes', () => {
    const NativeModel = native.constructor as new () => unknown;
    expect(() => new NativeModel()).toThrow(/createModel/);
  });

  it("carries the caller's stack", async () => {
    const error: unknown = await model.readTensor('no.such.tensor').catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(GavelError);
    expect((error as GavelError).stack).toContain('engine.test.ts');
    expect((error as GavelError).stack?.startsWith('GavelError: ')).toBe(true);
  });

  it('copies its inputs, so that arrays may be reused at once', async () => {
    const first = await model.logprobs([textGroup()]);
    const reused = textGroup();
    const pending = model.logprobs([reused]);
    reused.promptTokens.fill(3);
    for (const { tokens } of reused.completions) tokens.fill(3);
    expect((await pending).logprobs).toEqual(first.logprobs);
  });
});
