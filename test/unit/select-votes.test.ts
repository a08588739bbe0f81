import { describe, expect, it } from 'vitest';
import { majorityOf, sameVote, voteMarks, type Voter } from '../../src/recipes/select-votes.js';

const said = (...answers: (string | null)[]): Voter[] =>
  answers.map((answer) => ({ answer, correct: answer?.trim().toLowerCase() === 'b' }));

describe('majority vote', () => {
  it.each([
    [['a', 'b', 'b'], 'b'],
    [['a', 'b', 'c'], 'a'],
    [['c', 'b', 'a', 'b', 'a'], 'b'],
    [['a', ' B', 'b '], ' B'],
    [[null, null, 'b'], 'b'],
    [[null, 'a', null, 'b', 'b'], 'b'],
  ])('%j elects %j', (answers, winner) => {
    expect(majorityOf(said(...answers))!.answer).toBe(winner);
  });

  it('nobody without an answer; that is wrong', () => {
    expect(majorityOf(said(null, null))).toBeUndefined();
    expect(majorityOf([])).toBeUndefined();
    expect(voteMarks(said(null, null))).toEqual({ passAt1: 0, majority: 0, passAtN: 0 });
  });

  it('marks the mean, the majority and the best of the same samples', () => {
    expect(voteMarks(said('a', 'b', 'a'))).toEqual({ passAt1: 1 / 3, majority: 0, passAtN: 1 });
    expect(voteMarks(said('b', 'b', 'a', 'a'))).toEqual({ passAt1: 0.5, majority: 1, passAtN: 1 });
    expect(voteMarks(said('b'))).toEqual({ passAt1: 1, majority: 1, passAtN: 1 });
  });

  it('counts votes as it is told', () => {
    const numbers = said('5', '2', '2.0');
    expect(majorityOf(numbers)!.answer).toBe('5');
    expect(majorityOf(numbers, (answer) => String(Number(answer)))!.answer).toBe('2');
    expect(sameVote('  New\n York ')).toBe('new york');
  });
});
