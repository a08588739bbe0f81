// Reward heads: a score is equal bit for bit with or without what follows its token, in any batch and any cut; objectives of
// weight 0 are not there; a joint gradient is the sum of its parts; scores, losses and gradients are PyTorch's.
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type { NativeNllObjective, NativeRankingObjective } from '../../src/binding/contract-objectives.js';
import type { NativeEngine, NativeGroup, NativeModel, NativeScores } from '../../src/binding/contract.js';
import { group, job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';
import { random } from './random.js';
import { Golden, maxAbsolute, relativeL2 } from './golden.js';
import { firstWord, smallFamilies, vocabulary, type SmallFamily } from './small-families.js';

const rewardToken = firstWord + 3;
const scoreOptions = { ...stepOptions, states: false };

async function scoringModel(
  engine: NativeEngine,
  family: SmallFamily,
  dtype: 'fp32' | 'bf16',
  heads = 2,
): Promise<NativeModel> {
  const model = await engine.createModel({ ...family.spec, dtype });
  await model.initialize(7, 0.15);
  await model.attachRewardHead({ heads, token: rewardToken, hiddenSizes: [24, 16], seed: 5 });
  // A fresh head has log sigma 0 everywhere, which would hide mistakes.
  for (let h = 0; h < heads; h++) {
    await model.writeTensor(
      `reward_head.${h}.4.weight`,
      'value',
      Float32Array.from({ length: 32 }, (_, i) => Math.sin(i + h)),
    );
  }
  return model;
}

interface Shape {
  before: number;
  after: number;
  pictures: { rows: number; cols: number; frames: number | null }[];
  completions: number[];
}

const shape: fc.Arbitrary<Shape> = fc.record({
  before: fc.integer({ min: 1, max: 80 }),
  after: fc.integer({ min: 0, max: 70 }),
  pictures: fc.array(
    fc.record({
      rows: fc.integer({ min: 1, max: 3 }),
      cols: fc.integer({ min: 1, max: 3 }),
      frames: fc.constantFrom(null, null, 2),
    }),
    { maxLength: 2 },
  ),
  completions: fc.array(fc.integer({ min: 1, max: 70 }), { maxLength: 3 }),
});

/** A row of the joint layout: pictures and instruction, reward token, chains of thought. */
function makeGroup(family: SmallFamily, { before, after, pictures, completions }: Shape, seed: number): NativeGroup {
  const next = random(seed);
  const words = firstWord + 4;
  const word = (): number => words + Math.floor(next() * (vocabulary - words));
  const tokens: number[] = Array.from({ length: before }, word);
  const images = (family.media === null ? [] : pictures).map((media) => {
    const made = family.media!(media, next);
    tokens.push(...made.tokens, word());
    return made.image;
  });
  tokens.push(...Array.from({ length: after }, word), rewardToken);
  return group(
    tokens,
    completions.map((length) => ({ tokens: Int32Array.from({ length }, word) })),
    images,
  );
}

const bare = (one: NativeGroup): NativeGroup => ({ ...one, completions: [] });
const bits = (values: Float32Array): number[] => [...new Uint32Array(values.buffer, values.byteOffset, values.length)];
const allBits = ({ mu, logSigma, states }: NativeScores): number[] => [mu, logSigma, states].flatMap(bits);

const cases = smallFamilies.flatMap((family) =>
  (['fp32', 'bf16'] as const).map((dtype) => ({ family, name: family.name, dtype })),
);

describe.each(cases)('scores of $name in $dtype', ({ family, dtype }) => {
  const engines = [makeEngine(1), makeEngine(2)];
  const models = Promise.all(engines.map((engine) => scoringModel(engine, family, dtype)));
  afterAll(() => Promise.all(engines.map((engine) => engine.dispose())));

  it('are equal bit for bit with and without a following chain of thought, in any batch, cut and number of threads', async () => {
    const [one, two] = await models;
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(shape, { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 300 }),
        fc.integer({ min: 0, max: 1_000_000 }),
        async (shapes, budget, seed) => {
          const groups = shapes.map((each, i) => makeGroup(family, each, seed + i));
          const options = { ...scoreOptions, states: true };
          const together = await two!.score(groups, { ...options, maxTokensPerMicroBatch: budget }, job());
          expect(together.count).toBe(groups.length);
          expect(together.mu.length).toBe(2 * groups.length);
          const alone = [];
          for (const each of groups) alone.push(await one!.score([bare(each)], options, job()));
          expect(bits(together.mu)).toEqual(alone.flatMap(({ mu }) => bits(mu)));
          expect(bits(together.logSigma)).toEqual(alone.flatMap(({ logSigma }) => bits(logSigma)));
          expect(bits(together.states)).toEqual(alone.flatMap(({ states }) => bits(states)));
          compared += together.count;
        },
      ),
      { numRuns: 8, seed: 17 },
    );
    expect(compared).toBeGreaterThan(8);
  });

  it('are those of the same tokens as a prompt when the reward token stands in, or ends, a completion', async () => {
    const [model] = await models;
    const next = random(4);
    const word = (): number => firstWord + 4 + Math.floor(next() * 200);
    const start = Array.from({ length: 67 }, word);
    const rest = [...Array.from({ length: 9 }, word), rewardToken];
    const more = [...rest, ...Array.from({ length: 5 }, word)];
    const options = { ...scoreOptions, states: true };
    const whole = await model!.score([group([...start, ...rest], [])], options, job());
    const split = await model!.score(
      [group(start, [{ tokens: Int32Array.from(rest) }, { tokens: Int32Array.from(more) }])],
      options,
      job(),
    );
    expect(split.count).toBe(2);
    expect(
      allBits({
        ...split,
        mu: split.mu.slice(0, 2),
        logSigma: split.logSigma.slice(0, 2),
        states: split.states.slice(0, 64),
      }),
    ).toEqual(allBits(whole));
    expect(bits(split.mu.slice(2))).toEqual(bits(whole.mu));
    // The row it ends with predicts nothing: log-probs are as long as ever.
    const { logprobs } = await model!.logprobs(
      [group(start, [{ tokens: Int32Array.from(rest) }])],
      { ...stepOptions, entropy: false },
      job(),
    );
    expect(logprobs.length).toBe(rest.length);
  });
});

const nll = (weight: number): NativeNllObjective => ({ kind: 'nll', weight, normalization: 'tokens' });

const ranking = (weight: number, more: Partial<NativeRankingObjective> = {}): NativeRankingObjective => ({
  kind: 'ranking',
  weight,
  loss: 'uncertainty',
  margin: 0,
  tieRatio: 5,
  estimator: 'quadrature',
  form: 'log_expectation',
  nodes: 64,
  samples: 64,
  seed: 3,
  logSigmaMin: -5,
  logSigmaMax: 2,
  centring: 0,
  fusion: 'mean',
  ...more,
});

const optimizer = {
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.95,
  eps: 1e-8,
  weightDecay: 0.01,
  decayParameters: 'matrices' as const,
  maxGradNorm: 1,
};

/** All tensors of a kind, by name. */
async function tensorsOf(model: NativeModel, kind: 'value' | 'gradient'): Promise<Map<string, Float32Array>> {
  const found = new Map<string, Float32Array>();
  for (const { name, trainable } of model.tensors()) {
    if (kind === 'value' || trainable) found.set(name, await model.readTensor(name, kind));
  }
  return found;
}

const textFamily = smallFamilies.find(({ name }) => name === 'qwen2')!;
const visionFamily = smallFamilies.find(({ name }) => name === 'qwen2_5_vl')!;

/** Four candidates of two pairs that are not neighbours, with pictures where the family has them. */
const candidates = (family: SmallFamily): NativeGroup[] =>
  [
    { before: 9, after: 5, pictures: [{ rows: 2, cols: 2, frames: null }], completions: [7] },
    { before: 40, after: 31, pictures: [], completions: [12] },
    { before: 3, after: 0, pictures: [{ rows: 1, cols: 3, frames: null }], completions: [3] },
    { before: 22, after: 60, pictures: [], completions: [20] },
  ].map((each, i) => makeGroup(family, each, 100 + i));
const pairs = { chosen: Int32Array.of(0, 3), rejected: Int32Array.of(2, 1) };

describe.each([
  { family: textFamily, name: textFamily.name, dtype: 'fp32' as const },
  { family: visionFamily, name: visionFamily.name, dtype: 'fp32' as const },
  { family: visionFamily, name: visionFamily.name, dtype: 'bf16' as const },
])('joint training of $name in $dtype', ({ family, dtype }) => {
  const engine = makeEngine();
  afterAll(() => engine.dispose());

  /** Gradients, and weights after two steps, of objectives on the same rows. */
  async function train(objectives: (NativeNllObjective | NativeRankingObjective)[], budget = 4096) {
    const model = await scoringModel(engine, family, dtype);
    const groups = candidates(family);
    const options = { ...stepOptions, maxTokensPerMicroBatch: budget };
    const result = await model.forwardBackward(groups, objectives, options, job());
    const gradients = await tensorsOf(model, 'gradient');
    await model.optimizerStep(optimizer, job());
    await model.forwardBackward(groups, objectives, options, job());
    await model.optimizerStep(optimizer, job());
    const values = await tensorsOf(model, 'value');
    await model.dispose();
    return { result, gradients, values };
  }

  it.each([
    {
      title: 'alpha 0 is the pure ranking loss',
      joint: [ranking(1, { pairs }), nll(0)],
      pure: [ranking(1, { pairs })],
    },
    { title: 'alpha 1 is pure language modelling', joint: [ranking(0, { pairs }), nll(1)], pure: [nll(1)] },
  ])('$title, bit for bit: gradients, and weights after steps', async ({ joint, pure }) => {
    const a = await train(joint);
    const b = await train(pure);
    expect(a.result.loss).toBe(b.result.loss);
    let moved = 0;
    for (const [name, value] of b.gradients) {
      expect(bits(a.gradients.get(name)!), name).toEqual(bits(value));
      if (value.some((one) => one !== 0)) moved++;
    }
    for (const [name, value] of b.values) expect(bits(a.values.get(name)!), name).toEqual(bits(value));
    expect(moved).toBeGreaterThan(5);
  });

  it('has the weighted sum of the single gradients, and of the losses', async () => {
    const joint = await train([ranking(0.3, { pairs }), nll(0.7)]);
    const rank = await train([ranking(1, { pairs })]);
    const language = await train([nll(1)]);
    expect(joint.result.loss).toBeCloseTo(0.3 * rank.result.loss + 0.7 * language.result.loss, 5);
    expect(joint.result.microBatches).toBe(1);
    expect(rank.result.logprobs.length).toBe(0);
    for (const [name, value] of joint.gradients) {
      const sum = value.map((_, i) => 0.3 * rank.gradients.get(name)![i]! + 0.7 * language.gradients.get(name)![i]!);
      const size = Math.sqrt(sum.reduce((total, one) => total + one * one, 0));
      if (size > 1e-4) expect(relativeL2(value, sum), name).toBeLessThan(dtype === 'fp32' ? 1e-4 : 0.1);
    }
    // The ranking loss reaches the backbone and both heads; language leaves the heads alone.
    for (const name of ['reward_head.0.0.weight', 'reward_head.1.4.bias', 'model.layers.0.mlp.down_proj.weight']) {
      expect(
        rank.gradients.get(name)!.some((one) => one !== 0),
        name,
      ).toBe(true);
    }
    expect(language.gradients.get('reward_head.0.0.weight')!.every((one) => one === 0)).toBe(true);
  });

  it('does not depend on the cut into micro-batches, which never splits a pair', async () => {
    const objectives = [ranking(0.3, { pairs, centring: 0.01 }), nll(0.7)];
    const whole = await train(objectives);
    const cut = await train(objectives, 1);
    // Four groups, but two units.
    expect([whole.result.microBatches, cut.result.microBatches]).toEqual([1, 2]);
    expect(cut.result.loss).toBeCloseTo(whole.result.loss, 5);
    expect(bits(cut.result.logprobs)).toEqual(bits(whole.result.logprobs));
    expect(cut.result.metrics['accuracy']).toBe(whole.result.metrics['accuracy']);
    for (const [name, value] of whole.gradients) {
      const size = Math.sqrt(value.reduce((total, one) => total + one * one, 0));
      if (size > 1e-4)
        expect(relativeL2(cut.gradients.get(name)!, value), name).toBeLessThan(dtype === 'fp32' ? 1e-4 : 0.1);
    }
  });

  it('draws the same samples for a pair in any cut', async () => {
    const objectives = [ranking(1, { pairs, estimator: 'monte_carlo', samples: 4 })];
    const whole = await train(objectives);
    const cut = await train(objectives, 1);
    expect(cut.result.loss).toBeCloseTo(whole.result.loss, 6);
  });
});

describe('a joint step of micro-text', () => {
  const engine = makeEngine();
  afterAll(() => engine.dispose());

  it('has the scores, losses and gradients of PyTorch in float64', async () => {
    const golden = await Golden.open('ranking');
    const token = golden.json.reward_token as number;
    const model = await loadGoldenModel(engine, 'micro-text');
    await model.attachRewardHead({ heads: 2, token, hiddenSizes: golden.json.hidden_sizes, seed: 0 });
    for (const { name, rewardHead } of model.tensors()) {
      if (!rewardHead) continue;
      const { data } = await golden.tensor(`joint.${name}`);
      await model.writeTensor(name, 'value', Float32Array.from(data));
    }
    const groups: NativeGroup[] = [];
    for (let i = 0; i < 4; i++) {
      const prompt = (await golden.tensor(`joint.prompt${i}`)).data;
      const cot = (await golden.tensor(`joint.cot${i}`)).data;
      groups.push(group([...prompt, token], [{ tokens: Int32Array.from(cot) }]));
    }
    const scores = await model.score(groups, scoreOptions, job());
    const want = (await golden.tensor('joint.scores')).data;
    expect(
      maxAbsolute(
        scores.mu,
        want.filter((_, i) => i % 2 === 0),
      ),
    ).toBeLessThan(2e-5);
    expect(
      maxAbsolute(
        scores.logSigma,
        want.filter((_, i) => i % 2 === 1),
      ),
    ).toBeLessThan(2e-5);

    const alpha = golden.json.alpha as number;
    const couples = { chosen: Int32Array.of(0, 2), rejected: Int32Array.of(1, 3) };
    const result = await model.forwardBackward(
      groups,
      [ranking(1 - alpha, { pairs: couples }), nll(alpha)],
      stepOptions,
      job(),
    );
    const rankLoss = (await golden.tensor('joint.rank_loss')).data[0]!;
    expect(result.metrics['ranking_loss']).toBeCloseTo(rankLoss, 5);
    expect(result.metrics['nll']).toBeCloseTo((await golden.tensor('joint.lm_loss')).data[0]!, 5);
    let compared = 0;
    for (const name of golden.names('joint_grad.')) {
      const gradient = await model.readTensor(name.slice('joint_grad.'.length), 'gradient');
      expect(relativeL2(gradient, (await golden.tensor(name)).data), name).toBeLessThan(2e-4);
      compared++;
    }
    expect(compared).toBe(16);
  });
});
