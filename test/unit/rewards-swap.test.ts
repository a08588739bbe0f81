import { describe, expect, it } from 'vitest';
import type { Row } from '../../src/data/rows.js';
import { balanceOrder, swapCandidates, swapCoin, swapNames } from '../../src/rewards/swap.js';

const a = { path: 'a.png' };
const b = { path: 'b.png' };
const row: Row = {
  id: 'pair',
  prompt: '<image><image>Which?',
  images: [a, b],
  completion: '<think>Image 1 shows a dog, image 2 a cat</think><answer>Image 1 is better</answer>',
  solution: 'Image 1 is better',
};

describe('position swap', () => {
  it('exchanges images, gold answer and rationale, and twice is nothing', () => {
    const swapped = swapCandidates(row);
    expect(swapped.images).toEqual([b, a]);
    expect(swapped.solution).toBe('Image 2 is better');
    expect(swapped.completion).toBe(
      '<think>Image 2 shows a dog, image 1 a cat</think><answer>Image 2 is better</answer>',
    );
    expect(swapCandidates(swapped)).toEqual(row);
    expect(row.images).toEqual([a, b]);
    expect(swapNames('Video 2, Answer 1, Image 12, Images 1')).toBe('Video 1, Answer 2, Image 12, Images 1');
  });

  it('exchanges frames of two videos behind a source picture', () => {
    const frames = [0, 1, 2, 3, 4].map((i) => ({ path: `${i}.png` }));
    const video: Row = { id: 'v', prompt: '<image>'.repeat(5), images: frames, solution: 'Video 1 is better' };
    const swapped = swapCandidates(video, {
      images: [
        [1, 2],
        [3, 4],
      ],
    });
    expect(swapped.images).toEqual([0, 3, 4, 1, 2].map((i) => frames[i]));
    expect(swapped.solution).toBe('Video 2 is better');
  });

  it('exchanges answers inside the prompt', () => {
    const answers: Row = {
      id: 't',
      prompt: '<image>Answer 1: a red car.\nAnswer 2: a dog',
      images: [a],
      solution: 'Answer 2 is better',
    };
    const swapped = swapCandidates(answers, { answers: ['a red car.', 'a dog'] });
    expect(swapped).toMatchObject({
      prompt: '<image>Answer 1: a dog\nAnswer 2: a red car.',
      solution: 'Answer 1 is better',
      images: [a],
    });
  });

  it.each<[string, Partial<Row>, Parameters<typeof swapCandidates>[1]]>([
    ['three images without indices', { images: [a, b, a] }, {}],
    ['an index that is not there', {}, { images: [[0], [2]] }],
    ['candidates of different length', { images: [a, b, a] }, { images: [[0], [1, 2]] }],
    ['overlapping candidates', {}, { images: [[0], [0]] }],
    ['a solution that names none', { solution: 'left' }, {}],
    ['an answer that is not in the prompt', {}, { answers: ['x', 'y'] }],
  ])('refuses %s, naming the row', (_, change, options) => {
    expect(() => swapCandidates({ ...row, ...change }, options)).toThrow(
      expect.objectContaining({ code: 'bad_data', fields: { id: 'pair' } }),
    );
  });

  it('tosses a fair coin that depends on seed and id alone', () => {
    const tosses = Array.from({ length: 4000 }, (_, i) => swapCoin(1, `item-${i}`));
    expect(tosses).toEqual(Array.from({ length: 4000 }, (_, i) => swapCoin(1, `item-${i}`)));
    // Five standard deviations of 4000 fair tosses are 158.
    expect(Math.abs(tosses.filter(Boolean).length - 2000)).toBeLessThan(158);
    const other = Array.from({ length: 4000 }, (_, i) => swapCoin(2, `item-${i}`));
    expect(Math.abs(tosses.filter((toss, i) => toss === other[i]).length - 2000)).toBeLessThan(158);
  });

  it('says which order it chose', () => {
    for (let seed = 0; seed < 20; seed++) {
      const balanced = balanceOrder({ ...row, meta: { k: 1 } }, seed);
      expect(balanced.meta).toEqual({ k: 1, swapped: swapCoin(seed, 'pair') });
      expect(balanced.images[0]).toBe(swapCoin(seed, 'pair') ? b : a);
    }
  });
});
