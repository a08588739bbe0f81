/** Judging tasks as rows, their exchange, and pointwise scores. */
import { describe, expect, it } from 'vitest';
import { exchangeCandidates, judgingRow, verdictText, type JudgingTask } from '../../src/data/judging-rows.js';
import { checkImageCount } from '../../src/data/rows.js';
import { hasStrictFormat } from '../../src/rewards/format.js';
import { parseScore, preferByScore, scoreReward, scoreVerifier } from '../../src/rewards/pointwise.js';
import { swapCandidates } from '../../src/rewards/swap.js';

const a = { path: 'a.png' };
const b = { path: 'b.png' };
const videoA = { frames: [a, a] };
const videoB = { frames: [b, b] };

const pairs: JudgingTask[] = [
  { kind: 'image-pair', caption: 'a dog', images: [a, b] },
  { kind: 'video-pair', caption: 'a dog runs', videos: [videoA, videoB] },
  { kind: 'answer-pair', question: 'What is it?', answers: ['A dog.', 'A small cat.'], images: [a] },
];
const scores: JudgingTask[] = [
  { kind: 'image-score', caption: 'a dog', image: a },
  { kind: 'video-score', caption: 'a dog runs', video: videoA },
  { kind: 'answer-score', question: 'What is it?', answer: 'A dog.', videos: [videoA] },
];

describe('judging rows', () => {
  it.each([...pairs, ...scores].map((task) => [task.kind, task] as const))(
    '%s has one mark a picture or video, and a form to reply in',
    (_, task) => {
      const row = judgingRow(task, { id: 'x' });
      checkImageCount(row);
      expect(row.prompt).toContain('<think>');
      expect(judgingRow(task, { id: 'x', reasons: false }).prompt).not.toContain('<think>');
    },
  );

  it.each(pairs.map((task) => [task.kind, task] as const))(
    '%s: exchanging the candidates of the task and of the row are the same',
    (_, task) => {
      const row = judgingRow(task, { id: 'x', gold: 1 });
      expect(row.solution).toBe(verdictText(task.kind, 1));
      const exchanged = judgingRow(exchangeCandidates(task), { id: 'x', gold: 2 });
      expect(swapCandidates(row)).toEqual(exchanged);
      expect(swapCandidates(exchanged)).toEqual(row);
    },
  );

  it('refuses a gold value that the task cannot have, and the exchange of one candidate', () => {
    expect(() => judgingRow(pairs[0]!, { id: 'x', gold: 3 })).toThrow(/Expected 1 or 2 for `gold` but received 3/);
    expect(() => judgingRow(scores[0]!, { id: 'x', gold: 11 })).toThrow(/score from 1 to 10/);
    expect(() => exchangeCandidates(scores[0]!)).toThrow(/two candidates/);
    expect(() => swapCandidates(judgingRow(scores[1]!, { id: 'x', gold: 4 }))).toThrow(/two images or two videos/);
  });

  it('asks for the form that the strict format accepts', () => {
    const completion = `<think>Total score: 12\nTotal score: 9</think><answer>${verdictText('video-pair', 1)}</answer>`;
    expect(hasStrictFormat(completion)).toBe(true);
  });
});

describe('pointwise scores', () => {
  it.each([
    ['<think>x</think><answer>7</answer>', 7],
    ['<answer> 7.5 </answer>', 7.5],
    ['<answer>8/10</answer>', 8],
    ['<answer>about 7</answer>', null],
    ['<answer>7 or 8</answer>', null],
    ['7', null],
    ['<answer></answer>', null],
  ])('reads %s as %s', (text, score) => {
    expect(parseScore(text)).toBe(score);
  });

  it('verifies within a tolerance, rewards by distance, prefers by difference', async () => {
    const verify = scoreVerifier(1);
    expect(verify('<answer>6</answer>', '7')).toEqual({ correct: true, answer: '6' });
    expect(verify('<answer>5.9</answer>', '7').correct).toBe(false);
    expect(verify('nothing', '7')).toEqual({ correct: false, answer: null });
    expect(() => verify('<answer>6</answer>', 'good')).toThrow(/a number/);
    const row = { id: 'r', prompt: 'p', images: [], solution: '7' };
    const input = { row, tokens: new Int32Array(0), finishReason: 'stop' };
    const reward = scoreReward();
    expect(await reward({ ...input, completion: '<answer>7</answer>' })).toBe(1);
    expect(await reward({ ...input, completion: '<answer>4</answer>' })).toBeCloseTo(2 / 3, 12);
    expect(await reward({ ...input, completion: 'no score' })).toBe(0);
    expect(preferByScore(7, 5)).toBe('first');
    expect(preferByScore(5, 5.4, 0.5)).toBe('tie');
    expect(preferByScore(null, 5)).toBeNull();
  });
});
