/** `gavel judge --task`: the row each task becomes, what is refused, and what a reply says. */
import { describe, expect, it } from 'vitest';
import { judgeTaskRow, readJudged, type JudgeTaskOptions } from '../../src/cli/judge-task.js';
import { judgingKindSchema, judgingRow } from '../../src/data/judging-rows.js';
import { checkImageCount } from '../../src/data/rows.js';

const nothing = { prompt: 'a dog', image: [], video: [], answer: [] };
const given: Record<string, JudgeTaskOptions> = {
  'image-pair': { ...nothing, task: 'image-pair', image: ['a.png', 'b.png'] },
  'video-pair': { ...nothing, task: 'video-pair', video: ['a.mp4', 'b.mp4'] },
  'answer-pair': { ...nothing, task: 'answer-pair', answer: ['A dog.', 'A cat.'], image: ['a.png'], video: ['a.mp4'] },
  'image-score': { ...nothing, task: 'image-score', image: ['a.png'] },
  'video-score': { ...nothing, task: 'video-score', video: ['a.mp4'] },
  'answer-score': { ...nothing, task: 'answer-score', answer: ['A dog.'] },
};

describe('a task', () => {
  it.each(judgingKindSchema.options)('%s is the row of that kind, with reasons or without', (kind) => {
    const row = judgeTaskRow(given[kind]!);
    checkImageCount(row);
    expect(row.meta!['task']).toBe(kind);
    expect(row.prompt).toContain('a dog');
    expect(row.prompt).toContain('<think>');
    const direct = judgeTaskRow({ ...given[kind]!, direct: true });
    expect(direct.prompt).not.toContain('<think>');
    expect([direct.images, direct.videos]).toEqual([row.images, row.videos]);
  });

  it('is worded as training rows are', () => {
    const images = [{ path: 'a.png' }, { path: 'b.png' }] as const;
    const trained = judgingRow({ kind: 'image-pair', caption: 'a dog', images }, { id: 'prompt' });
    expect(judgeTaskRow(given['image-pair']!)).toEqual(trained);
  });

  it.each([
    [{ ...nothing, task: 'picture-pair' }, /one of image-pair, .* for `--task` but received "picture-pair"/],
    [{ ...given['image-pair']!, image: ['a.png'] }, /Expected 2 with --task image-pair for `--image` but received "1"/],
    [{ ...given['image-pair']!, answer: ['x'] }, /Expected none with --task image-pair for `--answer`/],
    [{ ...given['video-score']!, image: ['a.png'] }, /Expected none with --task video-score for `--image`/],
    [{ ...given['answer-pair']!, answer: ['x', 'y', 'z'] }, /Expected 2 .* "3"\. Give --answer twice/],
    [{ ...given['answer-score']!, answer: [] }, /Expected 1 .* "0"\. Give --answer once/],
  ])('with other candidates is refused: %#', (options, message) => {
    expect(() => judgeTaskRow(options)).toThrow(
      expect.objectContaining({ code: 'invalid_argument', message: expect.stringMatching(message) as string }),
    );
  });
});

describe('a reply', () => {
  it('names a candidate of a pair, and gives one candidate a score', () => {
    expect(readJudged('video-pair', '', 'Video 2 is better')).toEqual({ task: 'video-pair', choice: 'second' });
    expect(readJudged('answer-pair', '', 'perhaps')).toEqual({ task: 'answer-pair', choice: null });
    expect(readJudged('answer-pair', '', null)).toEqual({ task: 'answer-pair', choice: null });
    expect(readJudged('image-score', '<answer>7/10</answer>', '7/10')).toEqual({ task: 'image-score', score: 7 });
    expect(readJudged('image-score', 'seven', null)).toEqual({ task: 'image-score', score: null });
  });
});
