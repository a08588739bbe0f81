import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type {
  NativeCompletion,
  NativeEngine,
  NativeGroup,
  NativeImage,
  NativeModel,
} from '../../src/binding/contract.js';
import { job, makeEngine } from './checkpoint.js';
import { random } from './random.js';
import {
  firstWord,
  imageToken,
  smallFamilies,
  videoToken,
  vocabulary,
  type Media,
  type SmallFamily,
} from './small-families.js';

// The invariant the whole design rests on: the log-prob stored while sampling equals, bit for bit, the one any later forward
// computes, whatever shares the batch, wherever the prompt ends, however many threads run, images included.

interface GroupShape {
  textBefore: number;
  textAfter: number;
  images: Media[];
  count: number;
  maxNewTokens: number;
  temperature: number;
  topK: number;
  topP: number;
}

const groupShape: fc.Arbitrary<GroupShape> = fc.record({
  textBefore: fc.integer({ min: 1, max: 90 }),
  textAfter: fc.integer({ min: 0, max: 70 }),
  images: fc.array(
    fc.record({
      rows: fc.integer({ min: 1, max: 4 }),
      cols: fc.integer({ min: 1, max: 4 }),
      frames: fc.constantFrom(null, null, 1, 3),
    }),
    { maxLength: 2 },
  ),
  count: fc.integer({ min: 1, max: 5 }),
  maxNewTokens: fc.integer({ min: 1, max: 80 }),
  temperature: fc.constantFrom(1, 0.7, 1.3, 0),
  topK: fc.constantFrom(0, 0, 20),
  topP: fc.constantFrom(1, 1, 0.9),
});

function materialize(
  family: SmallFamily,
  shape: GroupShape,
  seed: number,
): { promptTokens: Int32Array; images: NativeImage[] } {
  const next = random(seed);
  const word = (): number => firstWord + Math.floor(next() * (vocabulary - firstWord));
  const tokens: number[] = Array.from({ length: shape.textBefore }, word);
  const images = (family.media === null ? [] : shape.images).map((media): NativeImage => {
    const made = family.media!(media, next);
    tokens.push(...made.tokens, word());
    return made.image;
  });
  tokens.push(...Array.from({ length: shape.textAfter }, word));
  return { promptTokens: Int32Array.from(tokens), images };
}

const bits = (values: Float32Array): Uint32Array => new Uint32Array(values.buffer, values.byteOffset, values.length);

function differing(got: Float32Array, want: Float32Array): number {
  expect(got.length).toBe(want.length);
  const a = bits(got);
  const b = bits(want);
  let count = 0;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) count++;
  return count;
}

const concatenate = (parts: Float32Array[]): Float32Array =>
  Float32Array.from(parts.flatMap((part) => Array.from(part)));

async function makeModel(
  engine: NativeEngine,
  family: SmallFamily,
  dtype: 'fp32' | 'bf16',
  seed: number,
): Promise<NativeModel> {
  const model = await engine.createModel({ ...family.spec, dtype });
  await model.initialize(seed, 0.15);
  return model;
}

const cases = smallFamilies.flatMap((family) =>
  (['fp32', 'bf16'] as const).map((dtype) => ({ family, name: family.name, dtype })),
);

describe.each(cases)('sampled and recomputed log-probs are equal bit for bit: $name in $dtype', ({ family, dtype }) => {
  const engines = [makeEngine(1), makeEngine(2)];
  const seed = 7;
  const models = Promise.all(engines.map((engine) => makeModel(engine, family, dtype, seed)));
  afterAll(() => Promise.all(engines.map((engine) => engine.dispose())));

  async function sample(
    model: NativeModel,
    shapes: GroupShape[],
    maxRows: number,
    base: number,
  ): Promise<NativeCompletion[][]> {
    const completions: NativeCompletion[][] = shapes.map(() => []);
    await model.sample(
      shapes.map((shape, id) => ({
        id: id + base,
        ...materialize(family, shape, id + base),
        count: shape.count,
        maxNewTokens: shape.maxNewTokens,
        seed: 11,
        temperature: shape.temperature,
        topK: shape.topK,
        topP: shape.topP,
        stopTokens: Int32Array.of(100, 101, 102),
      })),
      { maxRows, bannedTokens: Int32Array.of(imageToken, videoToken) },
      (finished) => {
        for (const one of finished) completions[one.request]![one.sample] = one;
      },
      job(),
    );
    return completions;
  }

  it('for random groups, compositions, slots, threads, images and prompt boundaries', async () => {
    const [one, two] = await models;
    let compared = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(groupShape, { minLength: 1, maxLength: 5 }),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 400 }),
        fc.integer({ min: 0, max: 1_000_000 }),
        async (shapes, maxRows, budget, base) => {
          const sampled = await sample(one!, shapes, maxRows, base);
          const again = await sample(two!, shapes, 64, base);
          const groups: NativeGroup[] = shapes.map((shape, i) => ({
            ...materialize(family, shape, i + base),
            completions: sampled[i]!.map(({ tokens }) => ({ tokens, temperature: shape.temperature || 1 })),
          }));
          const want = concatenate(sampled.flat().map(({ logprobs }) => logprobs));
          compared += want.length;

          // Other slots, other threads: the same tokens and the same bits.
          for (const [i, group] of sampled.entries()) {
            for (const [j, completion] of group.entries()) {
              expect(again[i]![j]!.tokens).toEqual(completion.tokens);
              expect(differing(again[i]![j]!.logprobs, completion.logprobs)).toBe(0);
            }
          }
          // Packed as groups, in one pack and in many.
          const options = { activationCheckpointing: false, entropy: false };
          const together = await two!.logprobs(groups, { ...options, maxTokensPerMicroBatch: 100_000 }, job());
          expect(differing(together.logprobs, want)).toBe(0);
          const split = await one!.logprobs(groups, { ...options, maxTokensPerMicroBatch: budget }, job());
          expect(differing(split.logprobs, want)).toBe(0);

          // Every completion alone, in reverse order.
          const alone = groups.flatMap((group) =>
            group.completions.map((completion) => ({ ...group, completions: [completion] })),
          );
          const reversed = await two!.logprobs(
            [...alone].reverse(),
            { ...options, maxTokensPerMicroBatch: 300 },
            job(),
          );
          const expected = concatenate(
            sampled
              .flat()
              .map(({ logprobs }) => logprobs)
              .reverse(),
          );
          expect(differing(reversed.logprobs, expected)).toBe(0);

          // The prompt ends later: the first half of each completion moves into it.
          const moved = alone.map((group) => {
            const { tokens, ...rest } = group.completions[0]!;
            const cut = tokens.length >> 1;
            const promptTokens = Int32Array.from([...group.promptTokens, ...tokens.subarray(0, cut)]);
            return { ...group, promptTokens, completions: [{ ...rest, tokens: tokens.subarray(cut) }] };
          });
          const later = await one!.logprobs(moved, { ...options, maxTokensPerMicroBatch: 500 }, job());
          const tails = concatenate(sampled.flat().map(({ logprobs }) => logprobs.subarray(logprobs.length >> 1)));
          expect(differing(later.logprobs, tails)).toBe(0);

          // The training forward.
          const trained = await two!.forwardBackward(
            groups,
            [{ kind: 'nll', weight: 1, normalization: 'tokens' }],
            { maxTokensPerMicroBatch: budget * 4, activationCheckpointing: base % 2 === 0 },
            job(),
          );
          expect(differing(trained.logprobs, want)).toBe(0);
          await two!.zeroGradients();
        },
      ),
      { numRuns: family.name === 'qwen2_5_vl' ? 12 : 6, seed: 20260101 },
    );
    expect(compared).toBeGreaterThan(500);
  }, 120_000);

  it('and the KL to a fresh copy is exactly 0, the ratio exactly 1', async () => {
    const [, two] = await models;
    const copy = await makeModel(engines[1]!, family, dtype, seed + 1);
    await copy.copyWeightsFrom(two!);
    const shapes: GroupShape[] = [3, 66, 20].map((textBefore) => ({
      textBefore,
      textAfter: 5,
      images: [
        { rows: 2, cols: 3, frames: null },
        { rows: 1, cols: 2, frames: 2 },
      ],
      count: 4,
      maxNewTokens: 24,
      temperature: 0.9,
      topK: 0,
      topP: 1,
    }));
    const sampled = await sample(two!, shapes, 5, 0);
    const plain: NativeGroup[] = shapes.map((shape, i) => ({
      ...materialize(family, shape, i),
      completions: sampled[i]!.map(({ tokens, logprobs }, j) => ({
        tokens,
        temperature: 0.9,
        advantage: j - 1.5,
        oldLogprobs: logprobs,
      })),
    }));
    const reference = await copy.logprobs(
      plain,
      { maxTokensPerMicroBatch: 999, activationCheckpointing: false, entropy: false },
      job(),
    );
    let at = 0;
    const groups = plain.map((group) => ({
      ...group,
      completions: group.completions.map((completion) => ({
        ...completion,
        referenceLogprobs: reference.logprobs.slice(at, (at += completion.tokens.length)),
      })),
    }));
    const result = await two!.forwardBackward(
      groups,
      [
        {
          kind: 'grpo',
          weight: 1,
          lossType: 'grpo',
          importanceSampling: 'token',
          epsilonLow: 0.2,
          epsilonHigh: 0.2,
          delta: 0,
          beta: 0.04,
          klBiasCorrection: false,
          klClamp: 10,
          maxCompletionLength: 24,
        },
      ],
      { maxTokensPerMicroBatch: 300, activationCheckpointing: false },
      job(),
    );
    expect(result.metrics['kl']).toBe(0);
    expect(result.metrics['clip_ratio/region_mean']).toBe(0);
    await two!.zeroGradients();
    await copy.dispose();
  });
});
