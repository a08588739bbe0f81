// Rows whose pictures or videos cannot be used: found when a file is opened, reported with file, line and reason.
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { JsonlDataset, type BadRow, type JsonlOptions } from '../../src/data/jsonl.js';
import { openData, openPairs } from '../../src/data/open-data.js';
import { ParquetDataset } from '../../src/data/parquet.js';
import { streamRecords } from '../../src/data/record-stream.js';
import { batches } from '../../src/data/shuffle.js';
import { DataThreads } from '../../src/data/threads.js';

const checkpoint = join(import.meta.dirname, '../goldens/micro-vl');
const parquet = join(import.meta.dirname, '../goldens/data/chat.parquet');
let folder = '';
let count = 0;
let jpeg: Buffer;
const at = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-media-'));
  const noise = Buffer.from(Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 7919) % 251));
  const picture = sharp(noise, { raw: { width: 64, height: 64, channels: 3 } });
  jpeg = await picture.clone().jpeg().toBuffer();
  await picture.clone().png().toFile(at('good.png'));
  await picture.clone().toColourspace('cmyk').jpeg().toFile(at('cmyk.jpg'));
  await writeFile(at('half.jpg'), jpeg.subarray(0, jpeg.length >> 1));
  await writeFile(at('header.jpg'), jpeg.subarray(0, 30));
  await writeFile(at('junk.png'), 'no picture');
  await writeFile(at('empty.png'), '');
  await mkdir(at('frames'));
  await mkdir(at('inner'));
  await symlink(at('good.png'), at('inner/out.png'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(rows: readonly unknown[]): Promise<string> {
  const path = at(`rows-${count++}.jsonl`);
  await writeFile(path, rows.map((row) => (typeof row === 'string' ? row : JSON.stringify(row))).join('\n'));
  return path;
}

const shows = (...images: string[]): object => ({ prompt: '<image>'.repeat(images.length), images });

/** What a file of the one row is refused for. */
async function reasonOf(row: object, options: JsonlOptions = {}): Promise<BadRow> {
  const bad: BadRow[] = [];
  const path = await write([{ prompt: 'a text' }, row]);
  await using data = await JsonlDataset.open(path, { ...options, onBadRow: 'skip', onSkip: (row) => bad.push(row) });
  expect([data.size, data.numSkipped, bad.length]).toEqual([1, 1, 1]);
  expect(bad[0]).toMatchObject({ file: path, line: 2, unit: 'line' });
  return bad[0]!;
}

describe('pictures and videos of rows, when a file is opened', () => {
  it.each([
    ['a missing file', 'gone.png', /^picture ".*gone\.png" does not exist$/],
    ['a folder', 'frames', /^picture ".*frames" is no file$/],
    ['junk', 'junk.png', /^picture ".*junk\.png" does not decode: .*unsupported image format/],
    ['an empty file', 'empty.png', /^picture ".*empty\.png" does not decode/],
    ['a header cut off', 'header.jpg', /^picture ".*header\.jpg" does not decode/],
    ['what would not decode as Pillow does it', 'cmyk.jpg', /^picture ".*cmyk\.jpg" is cmyk of uchar samples/],
    ['data that are no picture', 'data:image/png;base64,AQID', /^picture of 3 bytes does not decode/],
  ])('refuse %s', async (_name, image, reason) => {
    expect((await reasonOf(shows('good.png', image))).reason).toMatch(reason);
  });

  it('refuse links out of the folder, and videos that are not there', async () => {
    const options = { imageFolder: at('inner') };
    expect((await reasonOf(shows('out.png'), options)).reason).toMatch(/is a link out of/);
    const video = (value: unknown): object => ({ prompt: '<video>', videos: [value] });
    expect((await reasonOf(video('gone.mp4'))).reason).toMatch(/^video ".*gone\.mp4" does not exist$/);
    expect((await reasonOf(video({ folder: 'good.png' }))).reason).toMatch(/^video ".*good\.png" is no folder$/);
    expect((await reasonOf(video({ frames: ['good.png', 'junk.png'] }))).reason).toMatch(/junk\.png" does not decode/);
    await using data = await JsonlDataset.open(await write([video({ folder: 'frames' }), shows('good.png')]));
    expect(data.size).toBe(2);
  });

  it('stop at the first bad row of any kind with file and line, or leave all of them out in order', async () => {
    const rows = [shows('good.png'), shows('gone.png'), 'no JSON', shows('junk.png'), { prompt: 'last' }];
    const path = await write(rows);
    await expect(openData(path)).rejects.toMatchObject({
      code: 'bad_data',
      message: expect.stringContaining(`${path}:2`) as string,
      fields: { file: path, line: 2 },
    });
    const lines: number[] = [];
    await using data = await openData({ path, onBadRow: 'skip' }, { onSkip: ({ line }) => lines.push(line) });
    expect([data.size, data.numSkipped, lines]).toEqual([2, 3, [2, 3, 4]]);
    expect(data.skipped.map(({ line }) => line)).toEqual([2, 3, 4]);
    expect((await data.row(1)).prompt).toBe('last');
  });

  it('name the candidate of a pair', async () => {
    const path = await write([
      { first: shows('good.png'), second: shows('gone.png'), preference: 'first' },
      { first: shows('good.png'), second: shows('good.png'), preference: 'tie' },
    ]);
    await expect(openPairs(path)).rejects.toMatchObject({
      fields: { line: 1, reason: `second: picture "${at('gone.png')}" does not exist` },
    });
    await using pairs = await openPairs({ path, onBadRow: 'skip' });
    expect([pairs.size, (await pairs.pair(0)).preference]).toEqual([1, 'tie']);
  });

  it('are looked at in Parquet files too, those beside the file', async () => {
    await expect(ParquetDataset.open(parquet)).rejects.toMatchObject({
      fields: { file: parquet, row: 1, reason: expect.stringMatching(/^picture ".*b\.png" does not exist$/) as string },
    });
    await using data = await ParquetDataset.open(parquet, { onBadRow: 'skip' });
    expect([data.size, data.numSkipped]).toEqual([2, 1]);
  });

  it('change the fingerprint with the rows they leave out, and a cursor of other rows is refused', async () => {
    const path = await write([shows('late.png'), shows('later.png'), { prompt: 'a' }, { prompt: 'b' }]);
    const skipping = { path, onBadRow: 'skip' as const };
    const fingerprintOf = async (): Promise<string> => {
      await using data = await openData(skipping);
      return data.fingerprint;
    };
    await writeFile(at('late.png'), jpeg);
    await using data = await openData(skipping);
    const drawn = batches(data, { batchSize: 2, seed: 1, epochs: 2 });
    const { value: batch } = await drawn.next();
    await drawn.return();
    expect(await fingerprintOf()).toBe(data.fingerprint);
    // One row is left out now as before, but another one.
    await rm(at('late.png'));
    await writeFile(at('later.png'), jpeg);
    expect(await fingerprintOf()).not.toBe(data.fingerprint);
    await using other = await openData(skipping);
    const resumed = batches(other, { batchSize: 2, seed: 1, epochs: 2, cursor: batch!.cursor });
    await expect(resumed.next()).rejects.toMatchObject({ code: 'bad_data' });
    // With every picture there, looking at them leaves no trace.
    await writeFile(at('late.png'), jpeg);
    await using unchecked = await openData({ ...skipping, checkMedia: false });
    expect(await fingerprintOf()).toBe(unchecked.fingerprint);
  });

  it('that turn out to be damaged at use name file and line, in rows made of them too', async () => {
    const path = await write([{ prompt: 'a' }, shows('half.jpg')]);
    await using data = await openData({ path, onBadRow: 'skip' });
    expect(data.size).toBe(2);
    const row = await data.row(1);
    await using threads = await DataThreads.start(checkpoint, { threads: 1 });
    for (const used of [row, { ...row, id: 'other', images: [...row.images] }]) {
      await expect(threads.encode([used])).rejects.toMatchObject({
        code: 'image_unreadable',
        message: expect.stringContaining(`The row stands at ${path}:2.`) as string,
        fields: { id: used.id, file: path, line: 2 },
      });
    }
  });
});

describe('records of a stream', () => {
  it.each([
    ['no JSON', 'garbage', /not UTF-8 JSON/],
    ['a picture that is not there', JSON.stringify(shows('gone.png')), /does not exist/],
  ])('are given up to the first bad one: %s', async (_name, bad, reason) => {
    const piece = Buffer.from(`{"prompt":"one"}\n{"prompt":"two"}\n${bad}\n{"prompt":"never"}\n`);
    const prompts: unknown[] = [];
    const reading = (async () => {
      for await (const { rows } of streamRecords(only(piece), { name: 'stdin', folder }))
        prompts.push(...rows.map(({ prompt }) => prompt));
    })();
    await expect(reading).rejects.toMatchObject({
      code: 'bad_data',
      fields: { line: 3, reason: expect.stringMatching(reason) as string },
    });
    expect(prompts).toEqual(['one', 'two']);
  });
});

async function* only(piece: Buffer): AsyncGenerator<Buffer> {
  yield piece;
}
