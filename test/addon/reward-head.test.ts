// The reward head as users hold it: its token in tokenizer and embedding, its files, adapters beside it, and every refusal.
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, estimateMemory, type Group, type Model } from '../../src/engine/index.js';
import { sameBits, temporaryFolder, textFolder, visionFolder, visionGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const readJson = async (...path: string[]): Promise<any> => JSON.parse(await readFile(join(...path), 'utf8'));

/** One scored candidate: instruction, reward token, chain of thought. */
const row = (token: number, seed: number, cot = 4): Group => ({
  promptTokens: Int32Array.from([5 + seed, 9, 33, 21 + seed, token]),
  images: [],
  completions: cot === 0 ? [] : [{ tokens: Int32Array.from({ length: cot }, (_, i) => 40 + 3 * i + seed) }],
});
const rows = (model: Model): Group[] => [0, 1, 2, 3].map((seed) => row(model.rewardHead!.tokenId, seed));
const pairs = { chosen: [0, 3], rejected: [1, 2] };
const joint = [
  { kind: 'ranking' as const, loss: 'uncertainty' as const, weight: 0.3, pairs },
  { kind: 'nll' as const, weight: 0.7 },
];
const small = { hiddenSizes: [12, 8], names: ['following', 'quality'] };
const step = { learningRate: 1e-2, beta2: 0.95 };

async function train(model: Model, steps = 2): Promise<void> {
  for (let i = 0; i < steps; i++) {
    await model.forwardBackward(rows(model), joint);
    expect((await model.optimizerStep(step)).applied).toBe(true);
  }
}

const scoresOf = async (model: Model): Promise<[Float32Array, Float32Array]> => {
  const { mu, logSigma } = await model.score(rows(model));
  return [mu, logSigma];
};

async function sameScores(a: Model, b: Model): Promise<void> {
  const [mu, logSigma] = await scoresOf(a);
  const [otherMu, otherLogSigma] = await scoresOf(b);
  expect(sameBits(mu, otherMu) && sameBits(logSigma, otherLogSigma)).toBe(true);
}

describe('a new reward head', () => {
  it('grows embedding and config by its token, and leaves every other bit alone', async () => {
    for (const folder of [textFolder, visionFolder]) {
      const model = await engine.loadModel(folder, { rewardHead: small });
      const base = await engine.loadModel(folder);
      expect(model.rewardHead).toEqual({
        names: ['following', 'quality'],
        heads: 2,
        fusion: 'mean',
        token: '<|reward|>',
        tokenId: 512,
        hiddenSizes: [12, 8],
        seed: 0,
      });
      const tables = base.tensors().filter(({ name }) => /embed_tokens|lm_head/.test(name));
      expect(tables).toHaveLength(folder === textFolder ? 1 : 2);
      for (const { name } of base.tensors()) {
        const [grown, old] = [await model.readTensor(name), await base.readTensor(name)];
        expect(sameBits(grown.subarray(0, old.length), old), name).toBe(true);
        if (!tables.some((table) => table.name === name)) expect(grown.length).toBe(old.length);
        else {
          const width = old.length / 512;
          expect(grown.length).toBe(513 * width);
          for (const column of [0, width - 1]) {
            let sum = 0;
            for (let i = 0; i < 512; i++) sum += old[i * width + column]!;
            expect(grown[512 * width + column]).toBe(Math.fround(sum / 512));
          }
        }
      }
      const config = model.config as { vocab_size?: number; text_config?: { vocab_size: number } };
      expect(config.text_config?.vocab_size ?? config.vocab_size).toBe(513);
      await base.dispose();
      await model.dispose();
    }
  });

  it('takes a token that the tokenizer knows, an unused row, or an id', async () => {
    const known = await engine.loadModel(textFolder, { rewardHead: { ...small, token: '<video>' } });
    expect([known.rewardHead!.tokenId, known.config['vocab_size']]).toEqual([511, 512]);
    const given = await engine.loadModel(textFolder, { rewardHead: { ...small, token: 510 } });
    expect([given.rewardHead!.tokenId, given.rewardHead!.token]).toEqual([510, undefined]);

    const folder = await temporaryFolder();
    await cp(textFolder, folder, { recursive: true });
    const tokenizer = await readJson(folder, 'tokenizer.json');
    tokenizer.added_tokens.pop();
    await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer));
    const free = await engine.loadModel(folder, { rewardHead: small });
    expect([free.rewardHead!.tokenId, free.config['vocab_size']]).toEqual([511, 512]);
    const base = await engine.loadModel(folder);
    const name = 'model.embed_tokens.weight';
    expect(sameBits(await free.readTensor(name), await base.readTensor(name))).toBe(true);
  });

  it('begins as torch.nn.Linear does, with sigma 1 and mu near 0', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: { heads: 3, seed: 4 } });
    expect(model.rewardHead!.names).toEqual(['head_0', 'head_1', 'head_2']);
    const shapes = new Map(model.tensors().map(({ name, shape }) => [name, shape.join()]));
    expect(shapes.get('reward_head.2.0.weight')).toBe('1024,64');
    expect(shapes.get('reward_head.0.2.weight')).toBe('16,1024');
    expect(shapes.get('reward_head.1.4.bias')).toBe('2');
    const first = await model.readTensor('reward_head.0.0.weight');
    const bound = 1 / 8;
    expect(Math.max(...first)).toBeLessThanOrEqual(bound);
    expect(Math.min(...first)).toBeGreaterThanOrEqual(-bound);
    const variance = first.reduce((sum, value) => sum + value * value, 0) / first.length;
    expect(Math.abs(variance / (bound ** 2 / 3) - 1)).toBeLessThan(0.02);
    expect(sameBits(first, await model.readTensor('reward_head.1.0.weight'))).toBe(false);
    const { mu, logSigma, heads, count, rewards, states } = await model.score(rows(model), { states: true });
    expect([heads, count, mu.length, states.length, rewards.length]).toEqual([3, 4, 12, 4 * 64, 4]);
    expect(logSigma.every((value) => value === 0)).toBe(true);
    expect(mu.every((value) => Math.abs(value) < 1)).toBe(true);
    expect(new Set(mu).size).toBe(12);
    expect(rewards[1]).toBeCloseTo((mu[3]! + mu[4]! + mu[5]!) / 3, 6);
    const again = await engine.loadModel(textFolder, { rewardHead: { heads: 3, seed: 4 } });
    await sameScores(model, again);
  });

  it('is fp32 in a bf16 model and takes fp32 states of bf16 numbers', async () => {
    const model = await engine.loadModel(textFolder, { dtype: 'bf16', rewardHead: small });
    const weights = await model.readTensor('reward_head.0.0.weight');
    const low = new Uint32Array(weights.buffer, weights.byteOffset, weights.length).filter(
      (value) => (value & 0xffff) !== 0,
    );
    expect(low.length).toBeGreaterThan(weights.length / 2);
    const { states } = await model.score(rows(model), { states: true });
    expect(
      [...new Uint32Array(states.buffer, states.byteOffset, states.length)].every((value) => (value & 0xffff) === 0),
    ).toBe(true);
    await train(model);
    // Two bytes a weight for the model, four for the head.
    const count = (head: boolean): number =>
      model
        .tensors()
        .filter(({ rewardHead }) => rewardHead === head)
        .reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);
    expect(model.memory().weightBytes).toBeGreaterThanOrEqual((2 + 4) * count(false) + 4 * count(true));
  });

  it('is never drawn while sampling', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: { ...small, token: '<video>' } });
    const base = await engine.loadModel(textFolder);
    // Make the token far likelier than all others.
    const table = await base.readTensor('model.embed_tokens.weight');
    const { states } = await model.score([row(511, 0, 0)], { states: true });
    for (let i = 0; i < 64; i++) table[511 * 64 + i] = 50 * states[i]!;
    for (const one of [model, base]) await one.writeTensor('model.embed_tokens.weight', 'value', table);
    const draw = async (one: Model): Promise<number[]> => {
      const tokens: number[] = [];
      const request = { id: 1, promptTokens: Int32Array.of(5, 9, 33, 21) };
      for await (const completion of one.sample([request], { count: 8, maxNewTokens: 12, bannedTokens: [] }))
        tokens.push(...completion.tokens);
      return tokens;
    };
    expect(await draw(base)).toContain(511);
    expect(await draw(model)).not.toContain(511);
  });

  it('is part of the memory that is foretold', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: { ...small, token: 511 } });
    const options = {
      dtype: 'fp32',
      threads: 2,
      promptTokens: 5,
      prompts: 4,
      rewardHead: { ...small, token: 511 },
    } as const;
    const training = { completions: 1, completionTokens: 4 };
    const told = await estimateMemory(model.config, { ...options, training });
    await train(model, 1);
    const held = model.memory();
    expect([held.weightBytes, held.gradientBytes, held.optimizerBytes]).toEqual([
      told.weightBytes,
      told.gradientBytes,
      told.optimizerBytes,
    ]);
    expect(told.activationBytes).toBeGreaterThanOrEqual(held.activationBytes);
  });

  it('goes with pictures', async () => {
    const model = await engine.loadModel(visionFolder, { rewardHead: small });
    const token = model.rewardHead!.tokenId;
    const withPicture = visionGroup();
    const scored = { ...withPicture, promptTokens: Int32Array.of(...withPicture.promptTokens, token) };
    const whole = await model.score([scored, row(token, 2)]);
    const bare = await model.score([{ ...scored, completions: [] }]);
    expect(sameBits(whole.mu.slice(0, 2), bare.mu)).toBe(true);
    expect(whole.mu[0]).not.toBe(whole.mu[2]);
  });
});

describe('training a reward head', () => {
  it('ranks what it was shown, with every loss', async () => {
    for (const objective of [
      { loss: 'bradley_terry' as const, margin: 0.5, pairs },
      { loss: 'bradley_terry_ties' as const, pairs: { ...pairs, ties: [0, 0] } },
      { loss: 'uncertainty' as const, pairs },
      { loss: 'uncertainty' as const, form: 'expectation_log' as const, pairs: { ...pairs, labels: [1, -1, 2, 1] } },
      { loss: 'regression' as const, targets: [1, 1, -1, null, -1, -1, 1, 1] },
    ]) {
      const model = await engine.loadModel(textFolder, { rewardHead: small });
      const losses: number[] = [];
      let metrics: Record<string, number> = {};
      for (let i = 0; i < 12; i++) {
        const result = await model.forwardBackward(rows(model), [{ kind: 'ranking', ...objective }]);
        losses.push(result.loss);
        metrics = result.metrics;
        await model.optimizerStep(step);
      }
      expect(losses.at(-1)).toBeLessThan(0.7 * losses[0]!);
      expect(metrics['ranking_loss']).toBeCloseTo(losses.at(-1)!, 9);
      expect(metrics['max_reward']).toBeGreaterThan(metrics['min_reward']!);
      if (objective.loss !== 'regression') {
        expect(metrics['accuracy']).toBe(1);
        expect(metrics['margin']).toBeGreaterThan(0);
        expect(metrics['head/1/accuracy']).toBe(1);
      }
      await model.dispose();
    }
  });

  it('trains the head alone when the language model is frozen', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: small, freeze: ['model'] });
    const before = await model.readTensor('model.layers.0.mlp.down_proj.weight');
    const [mu] = await scoresOf(model);
    await model.forwardBackward(rows(model), [{ kind: 'ranking', loss: 'bradley_terry', pairs }]);
    await model.optimizerStep(step);
    expect(sameBits(await model.readTensor('model.layers.0.mlp.down_proj.weight'), before)).toBe(true);
    expect(sameBits((await scoresOf(model))[0], mu)).toBe(false);
  });

  it('trains beside an adapter, whose trainable tokens then hold the reward token', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: small, lora: { rank: 4, dropout: 0.1 } });
    expect(model.adapter!.trainableTokens).toEqual([512]);
    const frozen = await model.readTensor('model.layers.0.mlp.down_proj.weight');
    const trained = ['reward_head.1.0.weight', 'model.embed_tokens.trainable_tokens'];
    const before = await Promise.all(trained.map((name) => model.readTensor(name)));
    await train(model);
    for (const [i, name] of trained.entries())
      expect(sameBits(await model.readTensor(name), before[i]!), name).toBe(false);
    expect(sameBits(await model.readTensor('model.layers.0.mlp.down_proj.weight'), frozen)).toBe(true);

    const folder = await temporaryFolder();
    await model.save(join(folder, 'adapter'));
    const again = await engine.loadModel(textFolder, { adapter: join(folder, 'adapter') });
    expect(again.rewardHead).toEqual(model.rewardHead);
    await sameScores(model, again);
    // The optimizer goes on where it stood.
    await again.load(join(folder, 'adapter'));
    await train(model, 1);
    await train(again, 1);
    await sameScores(model, again);

    await model.exportHf(join(folder, 'merged'));
    const merged = await engine.loadModel(join(folder, 'merged'));
    const [mu] = await scoresOf(model);
    const [mergedMu] = await scoresOf(merged);
    for (const [i, value] of mergedMu.entries()) expect(value).toBeCloseTo(mu[i]!, 4);
  });
});

describe('the files of a reward head', () => {
  it.each(['fp32', 'bf16'] as const)('bring model, optimizer and token back bit for bit in %s', async (dtype) => {
    const model = await engine.loadModel(textFolder, { dtype, rewardHead: { ...small, fusion: 'min' } });
    await train(model);
    const folder = join(await temporaryFolder(), 'saved');
    await model.save(folder);
    expect(await readJson(folder, 'reward_head.json')).toEqual({
      dimensions: ['following', 'quality'],
      fusion: 'min',
      token: '<|reward|>',
      token_id: 512,
      hidden_sizes: [12, 8],
      seed: 0,
    });
    expect((await readJson(folder, 'config.json')).vocab_size).toBe(513);
    const { added_tokens: added } = await readJson(folder, 'tokenizer.json');
    expect(added.at(-1)).toMatchObject({ id: 512, content: '<|reward|>', special: true });

    const again = await engine.loadModel(folder);
    expect([again.rewardHead, again.dtype]).toEqual([model.rewardHead, dtype]);
    await sameScores(model, again);
    await again.load(folder);
    await train(model, 2);
    await train(again, 2);
    await sameScores(model, again);
    for (const { name } of model.tensors()) {
      expect(sameBits(await again.readTensor(name), await model.readTensor(name)), name).toBe(true);
    }
    // Saved once more, the token stands there once.
    await again.save(folder);
    const twice = await readJson(folder, 'tokenizer.json');
    expect(twice.added_tokens.filter((one: { content: string }) => one.content === '<|reward|>')).toHaveLength(1);
  });

  it('are copied with the model', async () => {
    const model = await engine.loadModel(textFolder, { dtype: 'bf16', rewardHead: small });
    await train(model);
    const frozen = await model.freeze();
    expect(frozen.tensors().some(({ trainable }) => trainable)).toBe(false);
    await sameScores(model, frozen);

    // The copy of an adapted model has its base, too: the reward token's row as it was before training.
    const adapted = await engine.loadModel(textFolder, { rewardHead: small, lora: { rank: 4 } });
    await train(adapted);
    const copy = await adapted.freeze();
    await sameScores(adapted, copy);
    const off = await adapted.score(rows(adapted), { adapter: 'off' });
    expect(sameBits((await copy.score(rows(adapted), { adapter: 'off' })).mu, off.mu)).toBe(true);
    expect(sameBits((await scoresOf(adapted))[0], off.mu)).toBe(false);
  });

  it('are refused when they are damaged, missing, or of another head', async () => {
    const folder = join(await temporaryFolder(), 'saved');
    const model = await engine.loadModel(textFolder, { rewardHead: small });
    await model.save(folder, { optimizer: false });
    const config = await readJson(folder, 'reward_head.json');
    const put = (value: unknown): Promise<void> => writeFile(join(folder, 'reward_head.json'), JSON.stringify(value));
    const load = () => engine.loadModel(folder);

    await expect(engine.loadModel(folder, { rewardHead: small })).rejects.toMatchObject({ code: 'invalid_argument' });
    for (const broken of [
      { ...config, fusion: 'most' },
      { ...config, dimensions: [] },
      { ...config, token_id: -1 },
      [],
      3,
    ]) {
      await put(broken);
      await expect(load()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    }
    for (const other of [
      { ...config, dimensions: ['one'] },
      { ...config, hidden_sizes: [12] },
      { ...config, hidden_sizes: [13, 8] },
    ]) {
      await put(other);
      await expect(load()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    }
    await put({ ...config, dimensions: ['other', 'names'] });
    await expect(model.load(folder)).rejects.toMatchObject({ code: 'invalid_argument' });
    await put(config);
    await rm(join(folder, 'reward_head.safetensors'));
    await expect(load()).rejects.toThrow(/reward_head.safetensors.*missing/);
    // A model without a head does not swallow a folder that has one, nor the other way round.
    await model.save(folder, { optimizer: false });
    const plain = await engine.loadModel(textFolder);
    await expect(plain.load(folder)).rejects.toThrow(/without a reward head/);
    await expect(model.load(textFolder)).rejects.toMatchObject({
      code: 'invalid_argument',
    });
  });
});

describe('bad input of a reward head', () => {
  const options = (rewardHead: object): { rewardHead: any } => ({ rewardHead });

  it('is refused in its options', async () => {
    for (const [bad, path] of [
      [{ heads: 0 }, 'heads'],
      [{ heads: 2, names: ['a'] }, 'heads'],
      [{ names: ['a', 'a'] }, 'names'],
      [{ names: [] }, 'names'],
      [{ hiddenSizes: [0] }, 'hiddenSizes'],
      [{ fusion: 'max' }, 'fusion'],
      [{ token: '' }, 'token'],
      [{ token: 512 }, 'token'],
      [{ token: -1 }, 'token'],
      [{ dimensions: 2 }, 'dimensions'],
    ] as const) {
      await expect(engine.loadModel(textFolder, options(bad))).rejects.toMatchObject({
        code: 'invalid_argument',
        message: expect.stringContaining(path),
      });
    }
    await expect(engine.loadModel(visionFolder, options({ token: 508 }))).rejects.toThrow(/stands for no picture/);
    const config = await readJson(textFolder, 'config.json');
    await expect(engine.createModel(config, options({}))).rejects.toThrow(/without tokenizer.json/);
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'model'));
    await cp(textFolder, join(folder, 'model'), { recursive: true });
    await writeFile(join(folder, 'model', 'tokenizer.json'), '{"model": {"vocab": 3}}');
    await expect(engine.loadModel(join(folder, 'model'), options({}))).rejects.toMatchObject({
      code: 'corrupt_checkpoint',
    });
    const made = await engine.createModel(config, options({ token: 7, hiddenSizes: [] }));
    expect((await made.score([row(7, 0)])).count).toBe(1);
  });

  it('is refused in calls', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: small });
    const plain = await engine.loadModel(textFolder);
    const token = model.rewardHead!.tokenId;
    const invalid = (what: RegExp) => ({ code: 'invalid_argument', message: expect.stringMatching(what) });
    await expect(plain.score([row(7, 0)])).rejects.toMatchObject(invalid(/reward head/));
    await expect(model.score([row(token, 0), row(7, 1)])).rejects.toMatchObject(invalid(/none in group 1/));
    await expect(model.score([])).rejects.toMatchObject(invalid(/at least one group/));
    await expect(model.score([row(600, 0)])).rejects.toMatchObject({
      code: expect.stringMatching(/invalid|tokenizer/),
    });
    await expect(model.score(rows(model), { steps: 1 } as object)).rejects.toMatchObject(invalid(/steps/));

    const rank = (more: object, groups = rows(model), on: Model = model) =>
      on.forwardBackward(groups, [{ kind: 'ranking', loss: 'bradley_terry', pairs, ...more } as never]);
    await expect(
      rank(
        {},
        rows(model).map((_, i) => row(7, i)),
        plain,
      ),
    ).rejects.toMatchObject(invalid(/reward head/));
    await expect(rank({ pairs: { chosen: [0, 3], rejected: [1, 4] } })).rejects.toMatchObject(invalid(/4 scores .* 4/));
    await expect(rank({ pairs: { chosen: [0, -1], rejected: [1, 2] } })).rejects.toMatchObject(invalid(/-1/));
    await expect(rank({ pairs: { chosen: [0], rejected: [1, 2] } })).rejects.toMatchObject(invalid(/rejected/));
    await expect(rank({ pairs: { chosen: [0, 2], rejected: [1, 2] } })).rejects.toMatchObject(invalid(/itself/));
    await expect(rank({ pairs: { chosen: [0], rejected: [1] } })).rejects.toMatchObject(invalid(/score 2 of group 2/));
    await expect(rank({ pairs: { chosen: [], rejected: [] } })).rejects.toMatchObject(invalid(/at least one pair/));
    await expect(rank({ pairs: { ...pairs, ties: [0, 1] } })).rejects.toMatchObject(invalid(/tie at pair 1/));
    await expect(rank({ pairs: { ...pairs, labels: [1, 1, 1] } })).rejects.toMatchObject(
      invalid(/4 values for `pairs.labels`/),
    );
    await expect(rank({ pairs: { ...pairs, labels: [1, 3, 1, 1] } })).rejects.toMatchObject(invalid(/labels/));
    await expect(rank({ pairs: { ...pairs, margins: [1] } })).rejects.toMatchObject(invalid(/margins/));
    await expect(rank({ pairs: { ...pairs, margins: Float32Array.of(1, NaN) } })).rejects.toMatchObject({
      code: 'bad_data',
    });
    await expect(rank({ headWeights: [1] })).rejects.toMatchObject(invalid(/headWeights/));
    await expect(rank({ pairs: undefined })).rejects.toMatchObject(invalid(/pairs/));
    await expect(rank({ targets: [1] })).rejects.toMatchObject(invalid(/targets/));
    await expect(rank({ loss: 'regression', pairs: undefined, targets: [1] })).rejects.toMatchObject(
      invalid(/8 values for `targets`/),
    );
    await expect(rank({ loss: 'hinge' })).rejects.toMatchObject(invalid(/loss/));
    await expect(rank({ loss: 'uncertainty', estimator: 'probit', form: 'expectation_log' })).rejects.toMatchObject(
      invalid(/form/),
    );
    await expect(rank({ loss: 'bradley_terry_ties', margin: 1 })).rejects.toMatchObject(invalid(/margin/));
    await expect(rank({ tieRatio: 1 })).rejects.toMatchObject(invalid(/tieRatio/));
    await expect(rank({ logSigmaMin: 3 })).rejects.toMatchObject(invalid(/logSigmaMin/));
    await expect(rank({}, [...rows(model), row(7, 5)])).rejects.toMatchObject(invalid(/none in group 4/));
    // Rows for the language model alone may stand beside them.
    const mixed = await model.forwardBackward([...rows(model), row(7, 5)], joint);
    expect(mixed.logprobs.length).toBe(20);
    // A group without completions is for scoring.
    await expect(model.logprobs([row(token, 0, 0)])).rejects.toMatchObject(invalid(/at least one completion/));
    await expect(model.forwardBackward([row(token, 0, 0)], [{ kind: 'nll' }])).rejects.toMatchObject(
      invalid(/at least one completion/),
    );
    await model.zeroGradients();
    const bare = [0, 1, 2, 3].map((seed) => row(token, seed, 0));
    expect((await rank({}, bare)).packedTokens).toBe(20);
    expect(Number.isFinite((await model.optimizerStep(step)).gradNorm)).toBe(true);
  });

  it('ends with an abort that leaves the weights alone', async () => {
    const model = await engine.loadModel(textFolder, { rewardHead: small });
    const controller = new AbortController();
    controller.abort(new Error('enough'));
    await expect(model.score(rows(model), { signal: controller.signal })).rejects.toThrow('enough');
    await model.dispose();
    await expect(model.score([row(512, 0)])).rejects.toMatchObject({ code: 'disposed' });
  });
});
