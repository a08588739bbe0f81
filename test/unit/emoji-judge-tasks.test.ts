/** The further tasks on the composed pictures: one picture at a time for scorers, and questions with answers. */
import { beforeAll, describe, expect, it } from 'vitest';
import { loadEmojiBank, type EmojiBank } from '../../src/emoji-judge/bank.js';
import { makePair, type PairOptions } from '../../src/emoji-judge/pair.js';
import {
  makeQuestion,
  questionPerception,
  questionRationale,
  questionRow,
  questionWords,
} from '../../src/emoji-judge/questions.js';
import { makeRows } from '../../src/emoji-judge/row-maker.js';
import { emptyWord, type CellWords } from '../../src/emoji-judge/scene.js';
import { candidateRow, scoreRationale, scoreWord } from '../../src/emoji-judge/scoring.js';
import { judgeTokenizer, judgeVocabulary } from '../../src/emoji-judge/vocabulary.js';

let bank: EmojiBank;
beforeAll(async () => {
  bank = await loadEmojiBank();
});

const options = (): PairOptions => ({ seed: 3, split: 'tasks', artists: bank.seenArtists, difficulty: 'hard' });

describe('one picture at a time', () => {
  it('gives the better picture the higher number of right cells', () => {
    for (let index = 0; index < 50; index++) {
      const pair = makePair(bank, options(), index);
      const [first, second] = [candidateRow(pair, 0), candidateRow(pair, 1)];
      const right = [first, second].map(({ meta }) => meta!['right'] as number);
      expect(right[0]! > right[1]!).toBe(pair.verdict === 'Image 1 is better');
      expect(first.images).toHaveLength(1);
      expect(first.completion).toMatch(new RegExp(`^<think> ${right[0]} `));
    }
  });

  it('marks a cell ok when it shows the word of the caption', () => {
    const caption: CellWords = ['dog', emptyWord, 'car', 'key'];
    const cells: CellWords = ['dog', 'cat', 'car', emptyWord];
    expect(scoreRationale(caption, cells)).toBe('<think> 2 ok dog no cat ok car no _</think>');
  });
});

describe('questions', () => {
  it('have the answer that the cells give', () => {
    const kinds = new Set<string>();
    for (let index = 0; index < 200; index++) {
      const { kind, word, cells, answer } = makeQuestion(bank, options(), index);
      kinds.add(kind);
      const at = cells.indexOf(word);
      if (kind === 'count') expect(answer).toBe(String(cells.filter((cell) => cell === word).length));
      else {
        expect(cells.filter((cell) => cell === word)).toHaveLength(1);
        const step = { right: 1, left: -1, below: 2, above: -2 }[kind];
        expect(cells[at + step]).toBe(answer);
        // The neighbour is in the same row or column.
        if (step === 1 || step === -1) expect(Math.floor(at / 2)).toBe(Math.floor((at + step) / 2));
      }
    }
    expect([...kinds].sort()).toEqual(['above', 'below', 'count', 'left', 'right']);
  });

  it('come in three forms with one picture and in one with words, and the same on any thread', () => {
    const request = {
      split: 'tasks',
      index: 5,
      artists: bank.seenArtists,
      forms: ['question-ask', 'question-cot', 'question-direct', 'question-told'] as const,
    };
    const [ask, cot, direct, told] = makeRows(bank, 3, request);
    const item = makeQuestion(bank, options(), 5);
    expect(ask!.completion).toBeUndefined();
    expect(cot!.completion).toBe(`${questionRationale(item)}<answer> ${item.answer}</answer>`);
    expect(direct!.completion).toBe(`<answer> ${item.answer}</answer>`);
    expect(direct!.prompt).toContain('answer');
    expect(ask).toEqual(questionRow(item, 'ask'));
    expect([ask!, cot!, direct!].map(({ images }) => images.length)).toEqual([1, 1, 1]);
    expect(told).toMatchObject({ images: [], completion: cot!.completion });
    expect(told!.prompt).toBe(`${item.cells.join(' ')} ask ${item.kind} ${item.word}`);
  });

  it('say how much of a rationale is true', () => {
    const cells: CellWords = ['dog', emptyWord, 'car', 'dog'];
    const gold = questionRationale({ cells, word: 'dog' });
    expect(gold).toBe('<think> dog ok _ no car no dog ok</think>');
    expect(questionPerception(gold, cells)).toBe(1);
    expect(questionPerception('<think> cat ok _ no car no dog ok</think>', cells)).toBe(0.75);
    expect(questionPerception('no rationale', cells)).toBeNull();
  });

  it('add their words behind the vocabulary of the judge', () => {
    const judge = judgeVocabulary(bank.words);
    const further = judgeVocabulary(bank.words, [...questionWords, scoreWord]);
    for (const [token, id] of judge) expect(further.get(token)).toBe(id);
    expect(further.size).toBe(judge.size + questionWords.length + 1);
    expect(JSON.stringify(judgeTokenizer(bank.words, [scoreWord]))).toContain('\u2581score');
  });
});
