import { beforeAll, describe, expect, it } from 'vitest';
import { type EmojiBank, loadEmojiBank } from '../../src/emoji-judge/bank.js';
import { makePair } from '../../src/emoji-judge/pair.js';
import { goldRationale } from '../../src/emoji-judge/prompts.js';
import type { CellWords } from '../../src/emoji-judge/scene.js';
import { markTrace, meanMarks, parseTrace } from '../../src/emoji-judge/traces.js';

const words = ['dog', 'cat', 'car', 'key'];
const pair: Parameters<typeof markTrace>[1] = {
  caption: ['dog', '_', 'car', 'key'] satisfies CellWords,
  cells: [
    ['dog', '_', 'car', 'key'],
    ['dog', '_', 'cat', 'key'],
  ],
  verdict: 'Image 1 is better',
};
const mark = (completion: string) => markTrace(completion, pair, words);
const gold =
  '<think> dog ok _ ok car ok key ok 4 dog ok _ ok cat no key ok 3</think><answer>Image 1 is better</answer>';

describe('marks of a rationale', () => {
  it('are all full for the gold one', () => {
    expect(goldRationale(pair)).toBe(gold);
    expect(mark(gold)).toEqual({
      format: true,
      correct: true,
      readable: true,
      perception: 1,
      cellConsistency: 1,
      scoreConsistency: 1,
      verdictConsistency: 1,
    });
  });

  it('tell a cell seen wrongly from a mark that does not follow', () => {
    const misread = mark(gold.replace('cat no', 'dog no'));
    expect(misread).toMatchObject({ perception: 7 / 8, cellConsistency: 1, correct: true });
    const contradiction = mark(gold.replace('cat no', 'cat ok'));
    expect(contradiction).toMatchObject({ perception: 1, cellConsistency: 7 / 8, scoreConsistency: 0.5 });
  });

  it('catch a verdict against the stated scores, and call a tie a contradiction', () => {
    expect(mark(gold.replace('Image 1 is', 'Image 2 is'))).toMatchObject({ correct: false, verdictConsistency: 0 });
    expect(mark(gold.replace('ok 3<', 'ok 4<'))).toMatchObject({ correct: true, verdictConsistency: 0 });
  });

  it.each([
    ['two answers', `${gold}<answer>Image 1 is better</answer>`],
    ['text before', `well ${gold}`],
    ['no think block', '<answer>Image 1 is better</answer>'],
    ['a block in a block', gold.replace('4 dog', '<think> dog')],
    ['an unclosed answer', gold.replace('</answer>', '')],
  ])('refuse %s as format', (_name, completion) => {
    expect(mark(completion)).toMatchObject({ format: false, correct: false, readable: false, perception: null });
  });

  it('give format and correctness to a rationale they cannot read', () => {
    const free = '<think> the first one</think><answer>Image 1 is better</answer>';
    expect(mark(free)).toMatchObject({ format: true, correct: true, readable: false, scoreConsistency: null });
    expect(meanMarks([mark(free), mark(gold)])).toMatchObject({ readable: 0.5, perception: 1 });
  });

  it('allow white space around the blocks but not an unknown word inside', () => {
    expect(parseTrace(`\n${gold.replace('</think>', ' </think>\n')} `, words)?.pictures[1].score).toBe(3);
    expect(parseTrace(gold.replace('cat', 'cow'), words)).toBeNull();
  });
});

describe('composed items', () => {
  let bank: EmojiBank;
  beforeAll(async () => {
    bank = await loadEmojiBank();
  });

  it('have gold rationales that read back as themselves', () => {
    for (let i = 0; i < 100; i++) {
      const item = makePair(bank, { seed: 3, split: 'traces', artists: bank.artists, difficulty: 'hard' }, i);
      const marks = markTrace(goldRationale(item), item, bank.words);
      expect(Object.values(marks).every((value) => value === 1 || value === true)).toBe(true);
    }
  });
});
