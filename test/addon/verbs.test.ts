// The verbs through the public Model: sampling as events, aborts, training steps, options.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, verbSchemas, type Completion, type Model } from '../../src/engine/index.js';
import { Tokenizer } from '../../src/data/tokenizer.js';
import { sameBits, textFolder, textGroup, visionFolder, visionGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());
const model = await engine.loadModel(textFolder);

const prompt = Int32Array.of(5, 9, 33, 21, 7);
const endless = { maxNewTokens: 30_000, stopTokens: [] };

describe('sample', () => {
  it('streams completions as they finish and ends with the statistics', async () => {
    const requests = [
      { id: 1, promptTokens: prompt, count: 3 },
      { id: 2, promptTokens: prompt.slice(1), count: 2, maxNewTokens: 4 },
    ];
    const run = model.sample(requests, { maxNewTokens: 12, seed: 7 });
    const seen: Completion[] = [];
    for await (const completion of run) seen.push(completion);
    const stats = await run;
    expect(seen).toHaveLength(5);
    expect(stats.completions).toBe(5);
    expect(stats.completionTokens).toBe(seen.reduce((sum, { tokens }) => sum + tokens.length, 0));
    for (const { request, tokens, logprobs, logKeptMass, finishReason } of seen) {
      expect(logprobs).toHaveLength(tokens.length);
      expect(logKeptMass).toHaveLength(tokens.length);
      expect(tokens.length).toBeLessThanOrEqual(request === 1 ? 4 : 12);
      expect(finishReason).toBe(tokens.at(-1) === 505 ? 'stop' : 'length');
    }
    expect(new Set(seen.map(({ request, sample }) => `${request}/${sample}`)).size).toBe(5);
  });

  it('ends a completion at a string of its text, and leaves the tokens before it as they are', async () => {
    const { tokenBytes } = await Tokenizer.load(textFolder).then((tokenizer) => ({
      tokenBytes: tokenizer.tokenBytes(),
    }));
    const request = { id: 5, promptTokens: prompt, count: 30 };
    const options = { maxNewTokens: 40, seed: 2, stopTokens: [] };
    const order = (a: Completion, b: Completion): number => a.sample - b.sample;
    const free = (await model.sample([request], options).completions()).sort(order);
    const stopStrings = ['e', 'th'];
    const cut = (await model.sample([request], { ...options, stopStrings, tokenBytes }).completions()).sort(order);
    const { bytes, offsets } = tokenBytes;
    let stopped = 0;
    for (const [i, { tokens, finishReason }] of cut.entries()) {
      expect([...free[i]!.tokens.subarray(0, tokens.length)]).toEqual([...tokens]);
      const texts = Array.from(tokens, (token) => Buffer.from(bytes.subarray(offsets[token], offsets[token + 1])));
      const has = (parts: Buffer[]): boolean => stopStrings.some((text) => Buffer.concat(parts).includes(text));
      expect(has(texts.slice(0, -1))).toBe(false);
      expect(finishReason).toBe(has(texts) ? 'stop' : 'length');
      stopped += finishReason === 'stop' ? 1 : 0;
    }
    expect(stopped).toBeGreaterThan(10);
    const refused = model.sample([request], { ...options, stopStrings });
    await expect(refused).rejects.toMatchObject({ code: 'invalid_argument' });
    await expect(refused).rejects.toThrow(/Give `tokenBytes` of the tokenizer/);
  });

  it('takes what a request leaves undefined from the call, and knows the keys of a request', async () => {
    const options = { maxNewTokens: 8, seed: 4, stopTokens: [], topP: 0.2, temperature: 2 };
    const request = { id: 8, promptTokens: prompt };
    const [plain] = await model.sample([request], options).completions();
    const undefinedKeys = { ...request, topP: undefined, stopStrings: undefined, count: undefined } as never;
    const [same] = await model.sample([undefinedKeys], options).completions();
    expect([...same!.tokens]).toEqual([...plain!.tokens]);
    const asked = (more: object) => () => model.sample([request, { ...request, ...more }], options);
    expect(asked({ stopString: ['a'] })).toThrow(/`requests\[1\]\.stopString`\. Did you mean `stopStrings`\?/);
    expect(asked({ topP: 0 })).toThrow(/`requests\[1\]\.topP`/);
  });

  it.each([
    ['no token', { bytes: new Uint8Array(0), offsets: Int32Array.of(0) }],
    ['offsets that fall', { bytes: new Uint8Array(2), offsets: Int32Array.of(0, 2, 1, 2) }],
    ['another end than that of the bytes', { bytes: new Uint8Array(4), offsets: Int32Array.of(0, 1, 3) }],
  ])('refuses token bytes with %s', (_, tokenBytes) => {
    const asked = (): unknown => model.sample([{ id: 1, promptTokens: prompt }], { stopStrings: ['a'], tokenBytes });
    expect(asked).toThrow(/valid `options\.tokenBytes\.offsets`.*one more than there are tokens, ascending/);
  });

  it('refuses options that are no object, and a signal that is none', async () => {
    const group = { promptTokens: prompt, images: [], completions: [{ tokens: Int32Array.of(3) }] };
    const verbs: Record<string, (options: never) => unknown> = {
      sample: async (options) => model.sample([], options),
      logprobs: (options) => model.logprobs([group], options),
      logits: (options) => model.logits(group, options),
      forwardBackward: (options) => model.forwardBackward([group], [{ kind: 'nll' }], options),
      optimizerStep: (options) => model.optimizerStep(options),
      load: (options) => model.load(textFolder, options),
    };
    for (const verb of Object.values(verbs)) {
      await expect(verb(null as never)).rejects.toThrow(
        /Expected a valid `options` but received null: it must be an object/,
      );
      await expect(verb({ signal: 'x' } as never)).rejects.toThrow(
        /Expected an AbortSignal for `options.signal` but received "x"/,
      );
    }
  });

  it('refuses steps that no weight survives', async () => {
    await expect(model.optimizerStep({ learningRate: 1e39 })).rejects.toThrow(
      /`options\.learningRate`.*received 1e\+39/,
    );
    await expect(model.optimizerStep({ learningRate: 0.1, weightDecay: 11 })).rejects.toThrow(
      /`options\.weightDecay`.*received 11: it must be at most 1 \/ `learningRate`/,
    );
  });

  it('says the most that an integer may be to whoever asks for more', async () => {
    const run = model.sample([{ id: 1, promptTokens: prompt }], { topK: 1e12 });
    await expect(run.result).rejects.toThrow(/an integer from 0 to 2147483647.*received 1000000000000/);
  });

  it('keeps prompts for later calls, within a bound, until weights change', async () => {
    const kept = await engine.loadModel(textFolder, { promptCacheBytes: 1_000_000 });
    const none = await engine.loadModel(textFolder, { promptCacheBytes: 0 });
    const request = { id: 3, promptTokens: prompt, count: 2 };
    const seen = [];
    for (const each of [kept, none]) {
      const first = each.sample([request], { maxNewTokens: 6 });
      const completions = (await first.completions()).sort((a, b) => a.sample - b.sample);
      const group = { promptTokens: prompt, images: [], completions };
      const scored = await each.logprobs([group]);
      const held = each.memory().promptCacheBytes;
      const again = await each.sample([request], { maxNewTokens: 6 });
      await each.forwardBackward([group], [{ kind: 'nll' }]);
      const after = await each.logprobs([group]);
      seen.push({
        scored: scored.logprobs,
        reused: [(await first).reused, scored.reused, again.reused, after.reused],
        held,
      });
      expect(each.memory().promptCacheBytes).toBe(0);
    }
    const [nothing, prompts] = [0, prompt.length].map((promptTokens) => ({ promptTokens, images: 0 }));
    expect(seen[0]!.reused).toEqual([nothing, prompts, prompts, nothing]);
    expect(seen[1]!.reused).toEqual([nothing, nothing, nothing, nothing]);
    expect(sameBits(seen[0]!.scored, seen[1]!.scored)).toBe(true);
    expect(seen[0]!.held).toBeGreaterThan(0);
    expect(seen[1]!.held).toBe(0);
    await Promise.all([kept.dispose(), none.dispose()]);
  });

  it('refuses more rows than the memory holds, says how many it holds, and goes on', async () => {
    const request = { id: 3, promptTokens: prompt, count: 2 ** 20, maxNewTokens: 30_000 };
    const refused = model.sample([request], { maxRows: 2 ** 20 });
    await expect(refused).rejects.toMatchObject({ code: 'out_of_memory' });
    const message =
      /Expected \d+ bytes for sampling \d+ rows at once but \d+ are available\. Lower `maxRows` \(about \d+/;
    await expect(refused).rejects.toThrow(message);
    expect((await model.sample([{ ...request, count: 2 }], { maxNewTokens: 3 })).completions).toBe(2);
  });

  it('gives the same tokens alone, beside others and later', async () => {
    const request = { id: 11, promptTokens: prompt, count: 4 };
    const options = { maxNewTokens: 10, seed: 3 };
    const alone = await model.sample([request], options).completions();
    const beside = await model.sample([{ id: 12, promptTokens: prompt }, request], options).completions();
    const later = await model.sample([{ ...request, count: 2, firstSample: 2 }], options).completions();
    expect(beside.filter((one) => one.request === 1).map(({ tokens }) => tokens)).toEqual(
      alone.map(({ tokens }) => tokens),
    );
    expect(later.map(({ tokens, logprobs }) => ({ tokens, logprobs }))).toEqual(
      alone.slice(2).map(({ tokens, logprobs }) => ({ tokens, logprobs })),
    );
  });

  it('stores the log-probs that logprobs() computes, bit for bit', async () => {
    const drawn = await model
      .sample([{ id: 1, promptTokens: prompt, count: 4 }], { maxNewTokens: 20, temperature: 0.8 })
      .completions();
    const completions = drawn.map(({ tokens }) => ({ tokens, temperature: 0.8 }));
    const { logprobs } = await model.logprobs([{ promptTokens: prompt, images: [], completions }]);
    expect(logprobs).toEqual(Float32Array.from(drawn.flatMap((one) => [...one.logprobs])));
  });

  it('hands completions to onCompletions in batches instead', async () => {
    const batches: number[] = [];
    const stats = await model.sample([{ id: 1, promptTokens: prompt, count: 6 }], {
      maxNewTokens: 5,
      onCompletions: (completions) => batches.push(completions.length),
    });
    expect(batches.reduce((sum, count) => sum + count, 0)).toBe(6);
    expect(stats.completions).toBe(6);
  });

  it('delivers every event before the promise settles', async () => {
    const order: string[] = [];
    const run = model.sample([{ id: 1, promptTokens: prompt, count: 4 }], {
      maxNewTokens: 3,
      onCompletions: () => order.push('event'),
    });
    await run.result.then(() => order.push('settled'));
    expect(order.at(-1)).toBe('settled');
    expect(order.indexOf('settled')).toBe(order.length - 1);
  });

  it('rejects with what onCompletions throws, and stops', async () => {
    const run = model.sample(
      [
        { id: 1, promptTokens: prompt, count: 1, maxNewTokens: 2 },
        { id: 2, promptTokens: prompt, count: 1, ...endless, stopTokens: new Int32Array(0) },
      ],
      {
        onCompletions: () => {
          throw new RangeError('from the callback');
        },
      },
    );
    await expect(run).rejects.toThrow(new RangeError('from the callback'));
  });

  it('rejects with the reason of its signal, at once when it was aborted before', async () => {
    const controller = new AbortController();
    const run = model.sample([{ id: 1, promptTokens: prompt }], { ...endless, signal: controller.signal });
    const reason = new Error('enough');
    setTimeout(() => controller.abort(reason), 50);
    const startedMs = performance.now();
    await expect(run).rejects.toBe(reason);
    expect(performance.now() - startedMs).toBeLessThan(5000);
    await expect(model.sample([{ id: 1, promptTokens: prompt }], { signal: controller.signal })).rejects.toBe(reason);
    await expect(model.logprobs([textGroup()], { signal: controller.signal })).rejects.toBe(reason);
  });

  it('leaves no gradients when a training call is aborted, whether it had begun or not', async () => {
    const fresh = await engine.loadModel(textFolder);
    const train = (signal?: AbortSignal): Promise<unknown> =>
      fresh.forwardBackward([textGroup()], [{ kind: 'nll' }], signal === undefined ? {} : { signal });
    const before = AbortSignal.abort(new Error('before'));
    const after = new AbortController();
    for (const abort of [
      (): Promise<unknown> => train(before),
      (): Promise<unknown> => {
        // Waits behind another one.
        const first = fresh.forwardBackward(
          Array.from({ length: 200 }, () => textGroup()),
          [{ kind: 'nll' }],
        );
        const run = train(after.signal);
        after.abort(new Error('after'));
        return first.then(() => run);
      },
    ]) {
      await train();
      await expect(abort()).rejects.toThrow(/before|after/);
      expect((await fresh.optimizerStep({ learningRate: 1e-3 })).gradNorm).toBe(0);
    }
    await fresh.dispose();
  });

  it('aborts a call that still waits without touching the one that runs', async () => {
    const controller = new AbortController();
    const running = model.sample([{ id: 1, promptTokens: prompt }], { maxNewTokens: 100, stopTokens: [] });
    const waiting = model.logprobs([textGroup()], { signal: controller.signal });
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
    expect((await running).completionTokens).toBe(100);
  });

  it('stops drawing when its loop is left', async () => {
    const requests = [
      { id: 1, promptTokens: prompt, maxNewTokens: 2 },
      { id: 2, promptTokens: prompt },
    ];
    const run = model.sample(requests, endless);
    for await (const completion of run) {
      expect(completion.request).toBe(0);
      break;
    }
    await expect(run.result).rejects.toMatchObject({ name: 'AbortError' });
  });

  it('takes the stop token of the checkpoint and bans placeholders', async () => {
    expect(model.stopTokens).toEqual([505]);
    const vision = await engine.loadModel(visionFolder);
    expect(vision.bannedTokens).toEqual([508, 509]);
    await vision.dispose();
  });

  it('leaves the event loop free while it works', async () => {
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    // Long enough to be seen, however fast the machine.
    for (const start = performance.now(); performance.now() - start < 200;) {
      await model.sample([{ id: 1, promptTokens: prompt, count: 64 }], { maxNewTokens: 60, stopTokens: [] });
    }
    delay.disable();
    expect(delay.count).toBeGreaterThan(3);
    expect(delay.max / 1e6).toBeLessThan(100);
  });
});

describe('training', () => {
  const norms = (target: Model): Promise<Float32Array> => target.readTensor('model.norm.weight');

  it('moves weights against the gradient and counts steps', async () => {
    const trained = await engine.cloneModel(model);
    const before = (await trained.logprobs([textGroup()])).logprobs;
    let loss = Infinity;
    for (let step = 1; step <= 3; step++) {
      const result = await trained.forwardBackward([textGroup()], [{ kind: 'nll' }]);
      expect(result.loss).toBeLessThan(loss);
      expect(result.completionTokens).toBe(10);
      expect(result.packedTokens).toBeGreaterThanOrEqual(10);
      loss = result.loss;
      const update = await trained.optimizerStep({ learningRate: 1e-3 });
      expect(update).toMatchObject({ applied: true, step });
      expect(update.gradNorm).toBeGreaterThan(0);
    }
    expect(trained.optimizerSteps).toBe(3);
    const after = (await trained.logprobs([textGroup()])).logprobs;
    const sum = (values: Float32Array): number => values.reduce((total, value) => total + value, 0);
    expect(sum(after)).toBeGreaterThan(sum(before));
    await trained.dispose();
  });

  it('leaves frozen tensors alone', async () => {
    const trained = await engine.cloneModel(model);
    trained.setTrainable(['model.layers.1.mlp.down_proj.weight']);
    expect(trained.tensors().filter(({ trainable }) => trainable)).toHaveLength(1);
    const before = await norms(trained);
    const mlp = await trained.readTensor('model.layers.1.mlp.down_proj.weight');
    await trained.forwardBackward([textGroup()], [{ kind: 'nll' }]);
    await trained.optimizerStep({ learningRate: 1e-2 });
    expect(await norms(trained)).toEqual(before);
    expect(await trained.readTensor('model.layers.1.mlp.down_proj.weight')).not.toEqual(mlp);
    expect(() => trained.setTrainable(['model.nope'])).toThrow(/`names\[0\]`.*"model.nope"/);
    await trained.dispose();
  });

  it('trains on images, with grpo', async () => {
    const vision = await engine.loadModel(visionFolder);
    const result = await vision.forwardBackward([visionGroup()], [{ kind: 'grpo', lossType: 'grpo' }]);
    expect(Number.isFinite(result.loss)).toBe(true);
    expect(result.metrics).toHaveProperty('clip_ratio/region_mean', 0);
    const gradient = await vision.readTensor('visual.patch_embed.proj.weight', 'gradient');
    expect(gradient.some((value) => value !== 0)).toBe(true);
    await vision.dispose();
  });

  it('does not apply a step whose gradient is not finite', async () => {
    const trained = await engine.cloneModel(model);
    await trained.forwardBackward([textGroup()], [{ kind: 'nll' }]);
    await trained.writeTensor('model.norm.weight', 'gradient', new Float32Array(64).fill(NaN));
    const before = await norms(trained);
    expect(await trained.optimizerStep({ learningRate: 1 })).toMatchObject({ applied: false });
    expect(await norms(trained)).toEqual(before);
    await trained.dispose();
  });

  it('starts a new optimizer on request', async () => {
    const first = await engine.cloneModel(model);
    const second = await engine.cloneModel(model);
    await first.forwardBackward([textGroup(1)], [{ kind: 'nll' }]);
    await first.optimizerStep({ learningRate: 1e-3 });
    await first.load(textFolder);
    expect(first.optimizerSteps).toBe(0);
    for (const one of [first, second]) {
      await one.forwardBackward([textGroup()], [{ kind: 'nll' }]);
      await one.optimizerStep({ learningRate: 1e-3 });
    }
    expect(await norms(first)).toEqual(await norms(second));
    const moments = (one: Model): Promise<Float32Array> => one.readTensor('model.embed_tokens.weight', 'moment2');
    expect(sameBits(await moments(first), await moments(second))).toBe(true);
    await first.dispose();
    await second.dispose();
  });

  it('gives logits whose log-softmax the log-probs are', async () => {
    const group = textGroup(0, 1);
    const logits = await model.logits(group);
    const { logprobs, entropies } = await model.logprobs([group], { entropy: true });
    expect(logits).toHaveLength(5 * 512);
    group.completions[0]!.tokens.forEach((token, row) => {
      const values = logits.subarray(row * 512, (row + 1) * 512);
      const normalizer = Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0));
      expect(logprobs[row]).toBeCloseTo(values[token]! - normalizer, 4);
      expect(entropies[row]).toBeGreaterThan(0);
    });
  });
});

describe('options', () => {
  it.each([
    [
      'sample',
      () => model.sample([], { maxNewToken: 5 } as never),
      /`options.maxNewToken`\. Did you mean `maxNewTokens`\?/,
    ],
    ['sample', () => model.sample([], { topP: 0 }), /`options.topP`/],
    ['forwardBackward', () => model.forwardBackward([textGroup()], []), /`objectives`/],
    [
      'forwardBackward',
      () => model.forwardBackward([textGroup()], [{ kind: 'grpo', lossType: 'cispo' }]),
      /explicit raw cap/,
    ],
    [
      'forwardBackward',
      () => model.forwardBackward([textGroup()], [{ kind: 'grpo', lossType: 'dr_grpo' }]),
      /longest completion/,
    ],
    [
      'forwardBackward',
      () => model.forwardBackward([textGroup()], [{ kind: 'ppo' }] as never),
      /`objectives\[0\]\.kind`/,
    ],
    ['optimizerStep', () => model.optimizerStep({ beta1: 1 }), /`options.beta1`/],
  ])('of %s are checked: case %#', async (_verb, call, message) => {
    const settled = (async () => call())();
    await expect(settled).rejects.toMatchObject({ code: 'invalid_argument' });
    await expect(settled).rejects.toThrow(message);
  });

  it('are exported as JSON Schema with a description each', () => {
    const schemas = verbSchemas() as Record<string, { properties?: Record<string, { description?: string }> }>;
    expect(Object.keys(schemas)).toEqual([
      'createEngine',
      'loadModel',
      'createModel',
      'sample',
      'logprobs',
      'score',
      'forwardBackward',
      'objectives',
      'optimizerStep',
      'save',
    ]);
    for (const { properties = {} } of Object.values(schemas)) {
      for (const [name, { description }] of Object.entries(properties)) expect(description, name).toMatch(/\w/);
    }
  });
});
