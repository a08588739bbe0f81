import { describe, expect, it } from 'vitest';
import { chatMessageSchema, checkImageCount, countMarks, fileRowSchema, toMessages } from '../../src/data/rows.js';

describe('rows', () => {
  it('turns a string prompt into one user turn with a part per mark', () => {
    expect(toMessages('<image><image>\nWhich is better?')).toEqual([
      { role: 'user', content: [{ type: 'image' }, { type: 'image' }, { type: 'text', text: '\nWhich is better?' }] },
    ]);
    expect(toMessages('Compare <image> and <image>.')[0]!.content).toHaveLength(5);
    expect(toMessages('<video>a<image>')[0]!.content).toEqual([
      { type: 'video' },
      { type: 'text', text: 'a' },
      { type: 'image' },
    ]);
    expect(toMessages('no picture')).toEqual([{ role: 'user', content: 'no picture' }]);
  });

  it('counts marks in strings, but not in literal text parts', () => {
    expect(countMarks('a<image>b<image><video>')).toEqual({ images: 2, videos: 1 });
    expect(
      countMarks([
        { role: 'user', content: '<image> x <video>' },
        { role: 'user', content: [{ type: 'text', text: '<image><video>' }, { type: 'image' }, { type: 'video' }] },
      ]),
    ).toEqual({ images: 2, videos: 2 });
  });

  it('names the row when marks and images differ', () => {
    const row = { id: 'row-7', prompt: '<image> one', images: [{ path: 'a.png' }, { path: 'b.png' }] };
    expect(() => checkImageCount(row)).toThrow(
      expect.objectContaining({ code: 'image_count_mismatch', fields: { id: 'row-7', marks: 1, images: 2 } }),
    );
    expect(() => checkImageCount({ ...row, prompt: 'no mark', images: [] })).not.toThrow();
    const film = { id: 'row-8', prompt: '<video>', images: [], videos: [] };
    expect(() => checkImageCount(film)).toThrow(
      expect.objectContaining({ code: 'image_count_mismatch', fields: { id: 'row-8', marks: 1, videos: 0 } }),
    );
    expect(() => checkImageCount({ ...film, videos: [{ path: 'a.mp4' }] })).not.toThrow();
  });

  it('refuses unknown keys and describes every field', () => {
    expect(fileRowSchema.safeParse({ prompt: 'x', imagse: [] }).success).toBe(false);
    for (const schema of [fileRowSchema, chatMessageSchema]) {
      for (const field of Object.values(schema.shape)) expect(field.description ?? '').not.toBe('');
    }
  });
});
