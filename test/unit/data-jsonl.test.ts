import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { JsonlDataset, type BadRow } from '../../src/data/jsonl.js';
import { RowScanner } from '../../src/data/row-scanner.js';
import type { Row } from '../../src/data/rows.js';

let folder = '';
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-jsonl-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(text: string | Uint8Array, extension = 'jsonl'): Promise<string> {
  const path = join(folder, `data-${count++}.${extension}`);
  await writeFile(path, text);
  return path;
}

async function rowsOf(path: string, options = {}): Promise<Row[]> {
  await using dataset = await JsonlDataset.open(path, { checkMedia: false, ...options });
  return Promise.all(Array.from({ length: dataset.size }, (_, index) => dataset.row(index)));
}

const lines = (...rows: unknown[]): string => rows.map((row) => JSON.stringify(row)).join('\n');

describe('jsonl', () => {
  it('reads rows at any index, blank lines and CRLF included', async () => {
    const path = await write(
      `\ufeff\n{"prompt":"a","solution":"x"}\r\n\r\n{"id":"two","prompt":"日本","meta":{"k":[1]}}`,
    );
    const [first, second] = await rowsOf(path);
    expect(first).toEqual({ id: `${path.split('/').at(-1)}:2`, prompt: 'a', solution: 'x', images: [] });
    expect(second).toEqual({ id: 'two', prompt: '日本', images: [], meta: { k: [1] } });
  });

  it('imports LLaVA conversations', async () => {
    const [single, several] = await rowsOf(
      await write(
        lines(
          {
            id: 5,
            image: 'a.png',
            model: 'x',
            conversations: [
              { from: 'human', value: '<image>\nWhat?' },
              { from: 'gpt', value: '<think>t</think>\n<answer>Image 1 is better</answer>' },
            ],
          },
          {
            images: ['a.png', 'sub/b.png'],
            conversations: [
              { from: 'system', value: 'S' },
              { from: 'human', value: '<image>1' },
              { from: 'gpt', value: 'A' },
              { from: 'human', value: '<image>2' },
            ],
          },
        ),
      ),
    );
    expect(single).toEqual({
      id: '5',
      prompt: '<image>\nWhat?',
      images: [{ path: join(folder, 'a.png') }],
      completion: '<think>t</think>\n<answer>Image 1 is better</answer>',
      meta: { model: 'x' },
    });
    expect(several!.prompt).toHaveLength(4);
    expect(several!.completion).toBeUndefined();
    expect(several!.images[1]).toEqual({ path: join(folder, 'sub/b.png') });
  });

  it('imports UnifiedReward GRPO rows from a JSON array, images before the text', async () => {
    const rows = [
      { problem: 'Which? [a, "b"] \\ }', solution: 'Image 1 is better', images: ['1.png', '2.png'] },
      {
        problem: '<image> then <image>',
        solution: '<answer> Image 2 is better </answer>',
        images: ['1.png', '2.png'],
        extra: 1,
      },
    ];
    const path = await write(`  ${JSON.stringify(rows, null, 2)}\n`, 'json');
    const [first, second] = await rowsOf(path);
    expect(first).toMatchObject({ prompt: '<image><image>Which? [a, "b"] \\ }', solution: 'Image 1 is better' });
    expect(second).toMatchObject({ prompt: '<image> then <image>', solution: 'Image 2 is better', meta: { extra: 1 } });
  });

  it('reads chats, their pictures and videos beside the messages or inside, the last answer as the completion', async () => {
    const user = (content: unknown) => ({ role: 'user', content });
    const parts = [
      { type: 'image', image: 'a.png' },
      { type: 'video', video: { frames: ['b.png', 'c.png'], fps: 2 } },
      { type: 'image_url', image_url: { url: 'd.png' } },
      { type: 'text', text: 'What is <image>?' },
    ];
    const rows = await rowsOf(
      await write(
        lines(
          {
            id: 'beside',
            messages: [user('<image> is it <video>?')],
            images: ['x.png'],
            videos: ['v.mp4'],
            completion: 'yes',
          },
          {
            id: 7,
            messages: [{ role: 'system', content: 'S' }, user(parts), { role: 'assistant', content: 'An answer.' }],
          },
          { id: 'open', messages: [user('a'), { role: 'assistant', content: 'b' }, user('c')] },
        ),
      ),
    );
    const at = (name: string) => join(folder, name);
    expect(rows[0]).toEqual({
      id: 'beside',
      prompt: [user('<image> is it <video>?')],
      images: [{ path: at('x.png') }],
      videos: [{ path: at('v.mp4') }],
      completion: 'yes',
    });
    expect(rows[1]).toEqual({
      id: '7',
      prompt: [
        { role: 'system', content: 'S' },
        user([{ type: 'image' }, { type: 'video' }, { type: 'image' }, { type: 'text', text: 'What is <image>?' }]),
      ],
      images: [{ path: at('a.png') }, { path: at('d.png') }],
      videos: [{ frames: [{ path: at('b.png') }, { path: at('c.png') }], fps: 2 }],
      completion: 'An answer.',
    });
    expect(rows[2]!.completion).toBeUndefined();
    expect(rows[2]!.prompt).toHaveLength(3);
  });

  it('reads videos of every form, and LLaVA rows that mark theirs as images', async () => {
    const rows = await rowsOf(
      await write(
        lines(
          { prompt: '<video><video>', videos: [{ path: 'v.mp4' }, { folder: 'frames', fps: 1 }] },
          {
            video: 'v.mp4',
            conversations: [
              { from: 'human', value: '<image>\nWhat?' },
              { from: 'gpt', value: 'This.' },
            ],
          },
          { videos: ['a.mp4', 'b.mp4'], problem: 'Which?', solution: '<answer>A</answer>' },
        ),
      ),
    );
    const at = (name: string) => join(folder, name);
    expect(rows[0]!.videos).toEqual([{ path: at('v.mp4') }, { folder: at('frames'), fps: 1 }]);
    expect(rows[1]).toMatchObject({ prompt: '<video>\nWhat?', completion: 'This.', videos: [{ path: at('v.mp4') }] });
    expect(rows[2]).toMatchObject({ prompt: '<video><video>Which?', solution: 'A', images: [] });
  });

  it.each([
    ['{"prompt":"a"}\n{"prompt":\n', 2, 'JSON'],
    ['{"prompt":"a","imagse":[]}', 1, 'imagse'],
    ['{"prompt":"a","images":["x.png"]}', 1, '0 "<image>" marks in the prompt but 1 images'],
    ['{"prompt":[{"role":"user","content":7}]}', 1, 'prompt'],
    ['\n\n{"prompt":"<image>","images":["../x.png"]}', 3, 'outside'],
    ['{"prompt":"<image>","images":["/etc/passwd"]}', 1, 'absolute'],
    ['{"prompt":"<image>","images":["https://example.org/x.png"]}', 1, 'not a local file'],
    ['{"prompt":"<image>","images":["data:text/html;base64,AAAA"]}', 1, 'data: URI'],
    ['{"problem":"x","images":[]}', 1, 'solution'],
    ['{"problem":"<image>","solution":"y","video":"v.mp4"}', 1, '1 "<image>" marks in the prompt but 0 images'],
    ['{"prompt":"a","videos":["v.mp4"]}', 1, '0 "<video>" marks in the prompt but 1 videos'],
    ['{"prompt":"<video>","videos":["../v.mp4"]}', 1, 'outside'],
    ['{"prompt":"<video>","videos":[{"folder":"/tmp"}]}', 1, 'absolute'],
    ['{"prompt":"<video>","videos":[{"frames":["a.png","../b.png"]}]}', 1, 'outside'],
    ['{"prompt":"<video>","videos":["https://example.org/x.mp4"]}', 1, 'not a local file'],
    ['{"prompt":"<video>","videos":[{"frames":[]}]}', 1, 'videos'],
    ['{"messages":[{"role":"user","content":"<image>"}]}', 1, '1 "<image>" marks in the prompt but 0 images'],
    ['{"messages":[{"role":"assistant","content":"x"}]}', 1, 'no turn before the answer'],
    ['{"messages":[{"role":"user","content":[{"type":"audio"}]}]}', 1, 'messages[0].content'],
    ['{"messages":[{"role":"user","content":[{"type":"image","image":"a.png"}]}],"images":["b.png"]}', 1, 'both'],
    ['{"conversations":[{"from":"bot","value":""}]}', 1, 'conversations[0].from'],
    ['{"id":"a","prompt":"x"}\n{"id":"a","prompt":"y"}', 2, 'already stands in line 1'],
    ['[{"prompt":"a"},{"prompt":"b"}', 1, 'does not end'],
    ['[{"prompt":"a"}] {"prompt":"b"}', 1, 'after the end'],
    ['7', 1, 'not a JSON object'],
  ])('names line and reason of %j', async (text, line, reason) => {
    const path = await write(text);
    await expect(JsonlDataset.open(path)).rejects.toMatchObject({
      code: reason.includes(' marks in the prompt but ') ? 'image_count_mismatch' : 'bad_data',
      message: expect.stringMatching(/ or set `onBadRow` to "skip"\.$/) as string,
      fields: { file: path, line, reason: expect.stringContaining(reason) as string },
    });
    // Where nobody can set it, it is not advised.
    await expect(JsonlDataset.open(path, { canSkip: false })).rejects.toThrow(/Correct the row, or leave it out\.$/);
  });

  it.each([
    ['{"prompt":7}', 'prompt must be a string or a list but is 7'],
    ['{"prompt":""}', 'prompt must not be empty but is ""'],
    ['{"images":[]}', 'prompt must be a string or a list but is missing'],
    ['{"prompt":[{"role":"user"}]}', 'prompt[0].content must be a string or a list but is missing'],
    ['{"prompt":"a","imagse":[]}', 'has the unknown key "imagse"'],
    ['{"prompt":"<video>","videos":[{"frames":[]}]}', 'videos[0].frames must not be empty but is []'],
    [
      '{"conversations":[{"from":"bot","value":""}]}',
      'conversations[0].from must be one of "human", "gpt", "user", "assistant", "system" but is "bot"',
    ],
    ['{"prompt":"a","meta":[]}', 'meta must be an object but is []'],
  ])('says what is wrong with %s in plain words', async (text, reason) => {
    await expect(JsonlDataset.open(await write(text))).rejects.toMatchObject({ fields: { reason } });
  });

  it('skips, counts and reports bad rows when asked to', async () => {
    const path = await write('{"prompt":"a"}\nnonsense\n{"prompt":"b"}\n{"prompt":""}\n');
    const seen: BadRow[] = [];
    await using dataset = await JsonlDataset.open(path, { onBadRow: 'skip', onSkip: (bad) => seen.push(bad) });
    expect([dataset.size, dataset.numSkipped]).toEqual([2, 2]);
    expect(seen.map(({ line }) => line)).toEqual([2, 4]);
    expect(dataset.skipped).toEqual(seen);
    expect((await dataset.row(1)).prompt).toBe('b');
  });

  it.each(['', '\n \n', '[]', ' [ ] '])('refuses an empty data set (%j)', async (text) => {
    await expect(JsonlDataset.open(await write(text))).rejects.toMatchObject({ code: 'bad_data' });
    await expect(JsonlDataset.open(await write('bad'), { onBadRow: 'skip' })).rejects.toMatchObject({
      code: 'bad_data',
    });
  });

  it('fails typed on a missing file, a folder, a bad index, and a file that changed', async () => {
    await expect(JsonlDataset.open(join(folder, 'missing.jsonl'))).rejects.toMatchObject({ code: 'io' });
    await expect(JsonlDataset.open(folder)).rejects.toMatchObject({ code: 'io' });
    const path = await write('{"prompt":"first"}\n{"prompt":"second"}\n');
    await using dataset = await JsonlDataset.open(path);
    for (const index of [-1, 2, 0.5])
      await expect(dataset.row(index)).rejects.toMatchObject({ code: 'invalid_argument' });
    await writeFile(path, 'x');
    await expect(dataset.row(0)).rejects.toMatchObject({ code: 'bad_data', fields: { line: 1 } });
  });

  it('follows no link out of the image folder', async () => {
    const inside = join(folder, 'inside');
    await mkdir(inside);
    await writeFile(join(folder, 'secret.png'), 'x');
    await writeFile(join(inside, 'own.png'), 'x');
    await symlink(join(folder, 'secret.png'), join(inside, 'out.png'));
    await symlink(join(inside, 'own.png'), join(inside, 'in.png'));
    const path = await write(
      lines({ prompt: '<image>', images: ['out.png'] }, { prompt: '<image>', images: ['in.png'] }),
    );
    await expect(JsonlDataset.open(path, { imageFolder: inside })).rejects.toMatchObject({
      fields: { line: 1, reason: expect.stringContaining('is a link out of') as string },
    });
    await using dataset = await JsonlDataset.open(path, { imageFolder: inside, checkMedia: false });
    await expect(dataset.row(0)).rejects.toMatchObject({ code: 'bad_data', fields: { line: 1 } });
    expect((await dataset.row(1)).images).toEqual([{ path: join(inside, 'in.png') }]);
  });

  it('decodes data: URIs', async () => {
    const [row] = await rowsOf(await write(lines({ prompt: '<image>', images: ['data:image/png;base64,AQID'] })));
    expect(row!.images).toEqual([{ bytes: new Uint8Array([1, 2, 3]) }]);
  });

  it('has a fingerprint of its content', async () => {
    const open = async (text: string, options = {}): Promise<string> => {
      await using dataset = await JsonlDataset.open(await write(text), options);
      return dataset.fingerprint;
    };
    const one = await open('{"prompt":"a"}\n');
    expect(await open('{"prompt":"a"}\n')).toBe(one);
    expect(await open('{"prompt":"b"}\n')).not.toBe(one);
  });

  it('finds the same rows however the bytes are cut, in lines and in arrays', () => {
    const value = fc.oneof(fc.object({ maxDepth: 2 }), fc.string(), fc.integer());
    fc.assert(
      fc.property(
        fc.array(value, { maxLength: 6 }),
        fc.boolean(),
        fc.boolean(),
        fc.integer({ min: 1, max: 9 }),
        (values, array, pretty, step) => {
          const text = array
            ? JSON.stringify(values, null, pretty ? 1 : 0)
            : values.map((row) => JSON.stringify(row)).join('\n');
          const bytes = Buffer.from(text);
          const found: unknown[] = [];
          const scanner = new RowScanner((row, offset, line) => {
            expect(bytes.subarray(offset, offset + row.length)).toEqual(row);
            expect(text.slice(0, bytes.subarray(0, offset).toString().length).split('\n')).toHaveLength(line);
            found.push(JSON.parse(row.toString()));
          });
          for (let at = 0; at < bytes.length; at += step) scanner.push(Buffer.from(bytes.subarray(at, at + step)));
          expect(scanner.end()).toBeUndefined();
          expect(found).toEqual(JSON.parse(JSON.stringify(values)));
        },
      ),
      { numRuns: 300 },
    );
  });
});
