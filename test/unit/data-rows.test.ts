import { describe, expect, it } from 'vitest';
import { chatMessageSchema, checkImageCount, countImageMarks, fileRowSchema, toMessages } from '../../src/data/rows.js';

describe('rows', () => {
  it('turns a string prompt into one user turn with a part per mark', () => {
    expect(toMessages('<image><image>\nWhich is better?')).toEqual([
      { role: 'user', content: [{ type: 'image' }, { type: 'image' }, { type: 'text', text: '\nWhich is better?' }] },
    ]);
    expect(toMessages('Compare <image> and <image>.')[0]!.content).toHaveLength(5);
    expect(toMessages('no picture')).toEqual([{ role: 'user', content: 'no picture' }]);
  });

  it('counts marks in strings, but not in literal text parts', () => {
    expect(countImageMarks('a<image>b<image>')).toBe(2);
    expect(
      countImageMarks([
        { role: 'user', content: '<image> x' },
        { role: 'user', content: [{ type: 'text', text: '<image>' }, { type: 'image' }] },
      ]),
    ).toBe(2);
  });

  it('names the row when marks and images differ', () => {
    const row = { id: 'row-7', prompt: '<image> one', images: [{ path: 'a.png' }, { path: 'b.png' }] };
    expect(() => checkImageCount(row)).toThrow(
      expect.objectContaining({ code: 'image_count_mismatch', fields: { id: 'row-7', marks: 1, images: 2 } }),
    );
    expect(() => checkImageCount({ ...row, prompt: 'no mark', images: [] })).not.toThrow();
  });

  it('refuses unknown keys and describes every field', () => {
    expect(fileRowSchema.safeParse({ prompt: 'x', imagse: [] }).success).toBe(false);
    for (const schema of [fileRowSchema, chatMessageSchema]) {
      for (const field of Object.values(schema.shape)) expect(field.description ?? '').not.toBe('');
    }
  });
});
