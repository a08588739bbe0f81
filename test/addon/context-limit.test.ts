// Nothing is sampled or scored past max_position_embeddings: completions end there, what is given must fit.
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, estimateMemory, type Group } from '../../src/engine/index.js';
import { brokenCopy, editJson } from './bad-input.js';
import { goldens, sameBits, textFolder, visionFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const withConfig = (folder: string, change: Record<string, unknown>): Promise<string> =>
  brokenCopy(folder, (copy) => editJson(join(copy, 'config.json'), (config) => ({ ...config, ...change })));
const withPositions = (folder: string, positions: number): Promise<string> =>
  brokenCopy(folder, (copy) =>
    editJson(join(copy, 'config.json'), (config: Record<string, Record<string, unknown>>) => {
      (config['text_config'] ?? config)['max_position_embeddings'] = positions;
    }),
  );

const prompt = Int32Array.of(5, 9, 33, 21, 7);
const group = (numTokens: number): Group => ({
  promptTokens: prompt,
  images: [],
  completions: [{ tokens: new Int32Array(numTokens).fill(11), advantage: 1 }],
});
const endless = { stopTokens: [], seed: 1 };
const tooLong = (limit: number): object => ({
  code: 'prompt_too_long',
  message: expect.stringContaining(`Expected at most ${limit} positions`) as string,
});

describe('the positions of a model', () => {
  it('end a completion, with the tokens that it would have had', async () => {
    await using model = await engine.loadModel(await withPositions(textFolder, 12));
    await using free = await engine.loadModel(textFolder);
    const request = { id: 1, promptTokens: prompt, count: 2 };
    const [drawn, longer] = await Promise.all(
      [model, free].map((one) => one.sample([request], { ...endless, maxNewTokens: 20 }).completions()),
    );
    expect(drawn!.map(({ tokens, finishReason }) => [tokens.length, finishReason])).toEqual([
      [7, 'length'],
      [7, 'length'],
    ]);
    for (const [i, { tokens, logprobs }] of drawn!.entries()) {
      expect(tokens).toEqual(longer![i]!.tokens.slice(0, 7));
      expect(sameBits(logprobs, longer![i]!.logprobs.slice(0, 7))).toBe(true);
    }
    // What was sampled can be scored and trained on.
    const { logprobs } = await model.logprobs([
      { promptTokens: prompt, images: [], completions: drawn!.map(({ tokens }) => ({ tokens })) },
    ]);
    expect(logprobs).toEqual(Float32Array.from(drawn!.flatMap((one) => [...one.logprobs])));
  });

  it('refuse a completion that goes past them, in every verb, and keep the gradients clear', async () => {
    await using model = await engine.loadModel(await withPositions(textFolder, 12));
    await expect(model.logprobs([group(8)])).rejects.toMatchObject(tooLong(12));
    await expect(model.logits(group(8))).rejects.toMatchObject(tooLong(12));
    await expect(model.forwardBackward([group(7), group(8)], [{ kind: 'nll' }])).rejects.toMatchObject(tooLong(12));
    expect((await model.optimizerStep()).gradNorm).toBe(0);
    expect((await model.logprobs([group(7)])).logprobs).toHaveLength(7);
  });

  it('refuse a prompt that leaves none to draw at, before anything is drawn', async () => {
    await using model = await engine.loadModel(await withPositions(textFolder, 5));
    const short = { id: 1, promptTokens: prompt.slice(1) };
    const seen: number[] = [];
    const run = model.sample([short, { id: 2, promptTokens: prompt }], {
      ...endless,
      maxNewTokens: 1,
      onCompletions: (completions) => seen.push(completions.length),
    });
    await expect(run).rejects.toMatchObject(tooLong(5));
    expect(seen).toEqual([]);
    expect(await model.sample([short], { ...endless, maxNewTokens: 4 }).completions()).toMatchObject([
      { finishReason: 'length', tokens: { length: 1 } },
    ]);
  });

  it('are counted as rope counts them where there are pictures', async () => {
    // A picture of 4 x 8 patches: eight placeholders that take four positions.
    const promptTokens = Int32Array.of(5, 9, 506, ...new Array<number>(8).fill(508), 507, 7);
    const pixels = Float32Array.from({ length: 32 * 1176 }, (_, i) => Math.sin(i / 50));
    const images = [{ pixels, grid: [1, 4, 8] as const }];
    await using model = await engine.loadModel(await withPositions(visionFolder, 12));
    const request = { id: 1, promptTokens, images };
    const [drawn] = await model.sample([request], { ...endless, maxNewTokens: 9 }).completions();
    expect(drawn).toMatchObject({ finishReason: 'length', tokens: { length: 3 } });
    const scored = (numTokens: number): Group => ({ ...group(numTokens), promptTokens, images });
    expect((await model.logprobs([scored(3)])).logprobs).toHaveLength(3);
    await expect(model.logprobs([scored(4)])).rejects.toMatchObject(tooLong(12));
  });

  it('are stretched by linear and YaRN scaling', async () => {
    const micro = join(goldens, 'micro-llama');
    const rope = (type: string, more = {}): object => ({
      max_position_embeddings: 6,
      rope_parameters: { rope_type: type, rope_theta: 10000, factor: 2, ...more },
    });
    for (const [config, limit] of [
      [rope('linear'), 12],
      [rope('yarn', { original_max_position_embeddings: 4 }), 8],
      [rope('yarn', { original_max_position_embeddings: 3 }), 6],
    ] as const) {
      await using model = await engine.loadModel(await withConfig(micro, config as Record<string, unknown>));
      expect((await model.logprobs([group(limit - 5)])).logprobs).toHaveLength(limit - 5);
      await expect(model.logprobs([group(limit - 4)])).rejects.toMatchObject(tooLong(limit));
    }
  });

  it('bound the work that estimateMemory plans', async () => {
    await using model = await engine.loadModel(await withPositions(textFolder, 64));
    const training = { completions: 2, completionTokens: 32 };
    expect((await estimateMemory(model.config, { promptTokens: 32, training })).totalBytes).toBeGreaterThan(0);
    await expect(estimateMemory(model.config, { promptTokens: 33, training })).rejects.toMatchObject(tooLong(64));
  });
});
