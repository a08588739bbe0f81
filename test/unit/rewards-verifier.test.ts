import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Row } from '../../src/data/rows.js';
import { accuracyReward } from '../../src/rewards/accuracy.js';
import { formatReward, hasLooseFormat, hasStrictFormat, parseCompletion } from '../../src/rewards/format.js';
import { evaluateRewards, type RewardInput } from '../../src/rewards/reward.js';
import { lenientVerifier, strictVerifier, verifierByName, verifierNames } from '../../src/rewards/verifier.js';

const gold = 'Image 1 is better';
const good = `<think>a 7, b 3</think><answer>${gold}</answer>`;
const input = (completion: string, row: Partial<Row> = {}): RewardInput => ({
  row: { id: 'item-1', prompt: 'p', images: [], solution: gold, ...row },
  completion,
  tokens: new Int32Array(0),
  finishReason: 'stop',
});

describe('format', () => {
  it.each([
    [good, true, true],
    [` \n${good}\n `, true, false],
    ['<think>a</think>\n\n<answer>b</answer>', true, true],
    ['<think></think><answer></answer>', true, true],
    [`${good} and more`, false, true],
    [`well: ${good}`, false, false],
    ['<think>a</think> so <answer>b</answer>', false, false],
    ['<think>a</think><answer>b</answer><answer>c</answer>', false, true],
    ['<think>a</think><think>b</think><answer>c</answer>', false, true],
    ['<think>a<think>b</think><answer>c</answer>', false, true],
    ['<think>a</think><answer>b<answer>c</answer></answer>', false, true],
    ['<answer>b</answer><think>a</think>', false, false],
    ['<think>a</think>', false, false],
    ['<think>a</think><answer>b', false, false],
    ['<answer>b</answer>', false, false],
    ['', false, false],
  ])('%j: strict %s, loose %s', async (text, strict, loose) => {
    expect([hasStrictFormat(text), hasLooseFormat(text)]).toEqual([strict, loose]);
    expect(await formatReward()(input(text))).toBe(strict ? 1 : 0);
    expect(await formatReward({ strict: false })(input(text))).toBe(loose ? 1 : 0);
  });

  it('equals the patterns it stands for', () => {
    const piece = fc.constantFrom('<think>', '</think>', '<answer>', '</answer>', ' ', '\n', 'x');
    const inner = '(?:(?!</?(?:think|answer)>)[\\s\\S])*';
    const strict = new RegExp(`^\\s*<think>${inner}</think>\\s*<answer>${inner}</answer>\\s*$`);
    const loose = /^<think>[\s\S]*?<\/think>\s*<answer>[\s\S]*?<\/answer>/;
    const first = /<answer>([\s\S]*?)<\/answer>/;
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
        const text = pieces.join('');
        expect(hasStrictFormat(text)).toBe(strict.test(text));
        expect(hasLooseFormat(text)).toBe(loose.test(text));
        expect(parseCompletion(text).answer).toBe(first.exec(text)?.[1]?.trim() ?? null);
      }),
      { numRuns: 3000 },
    );
  });

  it('takes linear time on hostile text', () => {
    const started = performance.now();
    for (const text of ['<think>'.repeat(200_000), '</think> '.repeat(150_000), '<answer>'.repeat(200_000)]) {
      hasStrictFormat(text);
      hasLooseFormat(`<think>${text}`);
      parseCompletion(text);
    }
    expect(performance.now() - started).toBeLessThan(2000);
  });
});

describe('verifiers', () => {
  it.each([
    [good, true, true],
    [`<answer>\n ${gold} </answer>`, true, true],
    [`<answer>${gold}.</answer>`, false, true],
    ['<answer>Image 2 is better</answer>', false, false],
    [`<answer>Image 2 is better</answer><answer>${gold}</answer>`, false, false],
    [`I think ${gold}`, false, true],
    [`${gold} <answer>Image 2 is better</answer>`, false, false],
    ['<answer>image 1 is better</answer>', false, false],
    ['', false, false],
  ])('%j: strict %s, lenient %s', async (text, strict, lenient) => {
    expect(strictVerifier(text, gold).correct).toBe(strict);
    expect(lenientVerifier(text, gold).correct).toBe(lenient);
    expect(await accuracyReward()(input(text))).toBe(strict ? 1 : 0);
    expect(await accuracyReward('lenient')(input(text))).toBe(lenient ? 1 : 0);
  });

  it('tells what could not be parsed, and never finds an empty gold', () => {
    expect(strictVerifier('no tags', gold)).toEqual({ correct: false, answer: null });
    expect(lenientVerifier('anything', '').correct).toBe(false);
  });

  it('are found by name only', () => {
    expect(verifierNames).toEqual(['strict', 'lenient', 'chartqa', 'clevr-math', 'geoqa', 'tabmwp']);
    expect(verifierByName('strict')).toBe(strictVerifier);
    for (const name of ['stict', 'toString']) {
      expect(() => verifierByName(name)).toThrow(expect.objectContaining({ code: 'invalid_config' }));
    }
  });

  it('refuse a row without a gold answer', () => {
    for (const solution of [undefined, '']) {
      const { solution: _, ...row } = input('').row;
      const bare = solution === undefined ? row : { ...row, solution };
      expect(() => accuracyReward()({ ...input(good), row: bare })).toThrow(
        expect.objectContaining({ code: 'bad_data', fields: { id: 'item-1' } }),
      );
    }
  });
});

describe('reward functions', () => {
  it('are evaluated in order, with names and weights, asynchronous ones too', async () => {
    const table = await evaluateRewards(
      [
        { name: 'format', reward: formatReward(), weight: 0.2 },
        { name: 'accuracy', reward: accuracyReward() },
        { name: 'length', reward: ({ completion }) => Promise.resolve(completion === '' ? null : completion.length) },
      ],
      [input(good), input('')],
    );
    expect(table).toEqual({
      names: ['format', 'accuracy', 'length'],
      weights: [0.2, 1, 1],
      values: [
        [1, 1, good.length],
        [0, 0, null],
      ],
    });
  });

  it.each([
    [NaN, 'NaN'],
    [Infinity, 'Infinity'],
    [undefined, 'undefined'],
    ['1', '"1"'],
  ])('a reward of %j stops, naming function and item', async (value, received) => {
    const reward = (): number => value as number;
    await expect(evaluateRewards([{ name: 'broken', reward }], [input(good)])).rejects.toMatchObject({
      code: 'non_finite',
      fields: { reward: 'broken', id: 'item-1', received },
    });
  });

  it('need distinct names and finite weights', async () => {
    const one = { name: 'a', reward: () => 1 };
    for (const rewards of [[], [one, one], [{ ...one, weight: NaN }]]) {
      await expect(evaluateRewards(rewards, [])).rejects.toMatchObject({ code: 'invalid_config' });
    }
  });
});
