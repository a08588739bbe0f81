// Parquet files that pyarrow and datasets wrote (test/goldens/data/make_parquet.py), read and compared with what pyarrow reads.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BadRow } from '../../src/data/bad-row.js';
import { ParquetFile } from '../../src/data/parquet-file.js';
import { ParquetDataset, ParquetPairs, type ParquetOptions } from '../../src/data/parquet.js';
import type { ImageSource, Row } from '../../src/data/rows.js';
import { batches } from '../../src/data/shuffle.js';

const goldens = join(import.meta.dirname, '../goldens/data');
const at = (name: string): string => join(goldens, name);
const sha256 = (image: ImageSource): string =>
  createHash('sha256')
    .update((image as { bytes: Uint8Array }).bytes)
    .digest('hex');

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-parquet-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function rowsOf(paths: string | string[], options: ParquetOptions = {}): Promise<Row[]> {
  await using data = await ParquetDataset.open(paths, { checkMedia: false, ...options });
  return Promise.all(Array.from({ length: data.size }, (_, index) => data.row(index)));
}

interface ExpectedRow {
  id: number;
  problem: string;
  solution: string;
  images: { bytes: { sha256: string } }[];
  difficulty: number;
  big: number;
  note: string | null;
}

const expectedRows = async (): Promise<ExpectedRow[]> =>
  (JSON.parse(await readFile(at('expected.json'), 'utf8')) as { snappy: ExpectedRow[] }).snappy;

describe('parquet', () => {
  it.each(['snappy', 'zstd', 'gzip', 'brotli', 'lz4'])('reads what pyarrow reads, compressed by %s', async (codec) => {
    const rows = await rowsOf(at(`${codec}.parquet`));
    const expected = await expectedRows();
    expect(rows).toHaveLength(23);
    for (const [index, row] of rows.entries()) {
      const known = expected[index]!;
      expect(row).toMatchObject({
        id: String(known.id),
        prompt: `<image><image>${known.problem}`,
        solution: `Image ${(index % 2) + 1} is better`,
      });
      expect(row.images.map(sha256)).toEqual(known.images.map(({ bytes }) => bytes.sha256));
      // 2^60 + index is no double: it stays exact as text. A null is a key that is not there.
      const note = known.note === null ? {} : { note: known.note };
      expect(row.meta).toEqual({ difficulty: index / 4, big: (2n ** 60n + BigInt(index)).toString(), ...note });
    }
  });

  it('is one data set over shards, with blocks to shuffle by', async () => {
    const shards = ['00000', '00001'].map((shard) => at(`hub/data/train-${shard}-of-00002.parquet`));
    await using data = await ParquetDataset.open(shards);
    expect([data.name, data.size, data.locality.rows]).toEqual(['data', 7, [4, 3]]);
    expect((await data.row(5)).id).toBe('5');
    expect(data.formats).toEqual(new Map([['problem', 7]]));
    await expect(ParquetDataset.open([...shards, shards[0]!])).rejects.toMatchObject({
      code: 'bad_data',
      fields: { file: shards[0], row: 0, reason: `id "0" already stands in ${shards[0]!} row 0` },
    });
  });

  it('reads chats, pictures by path and pictures inside', async () => {
    const [first, second, third] = await rowsOf(at('chat.parquet'));
    expect(first).toMatchObject({
      id: 'chat.parquet:0',
      prompt: [{ role: 'user', content: '<image>Who?' }],
      completion: 'A cat.',
    });
    expect(first!.images).toEqual([{ bytes: expect.any(Uint8Array) as Uint8Array }]);
    expect(second!.images).toEqual([{ path: join(goldens, 'sub/b.png') }]);
    expect(third).toEqual({
      id: 'chat.parquet:2',
      prompt: [{ role: 'user', content: 'Hi' }],
      completion: 'Ho',
      images: [],
    });
    const [, elsewhere] = await rowsOf(at('chat.parquet'), { imageFolder: folder });
    expect(elsewhere!.images).toEqual([{ path: join(folder, 'sub/b.png') }]);
  });

  it('respects the features that datasets writes', async () => {
    const [first, second] = await rowsOf(at('features.parquet'));
    expect(first).toMatchObject({
      prompt: '<image>How many?\nOptions:\n(A) 1\n(B) 2',
      solution: 'B',
      meta: { subject: 'tables', choices: ['1', '2'] },
    });
    expect(second).toMatchObject({ prompt: '<image>Which?', solution: 'seven', meta: { subject: 'geometry' } });
    expect(first!.images).toHaveLength(1);
  });

  it('gives preference pairs, whose nulls are absent keys', async () => {
    await using data = await ParquetPairs.open(at('preferences.parquet'));
    const pair = await data.pair(2);
    expect(pair).toMatchObject({
      id: 'preferences.parquet:2',
      preference: 'first',
      first: { id: 'preferences.parquet:2/1', completion: 'good' },
      second: { id: 'preferences.parquet:2/2', completion: 'bad' },
    });
    expect(pair.first.prompt).toEqual([
      { role: 'user', content: [{ type: 'image' }, { type: 'text', text: 'Describe 2.' }] },
    ]);
    expect(pair.first.images).toEqual(pair.second.images);
    await expect(ParquetDataset.open(at('preferences.parquet'))).rejects.toMatchObject({
      code: 'bad_data',
      fields: { format: 'trl-preference' },
    });
    await expect(ParquetPairs.open(at('snappy.parquet'))).rejects.toMatchObject({ fields: { format: 'problem' } });
  });

  it('names file, row and reason of bad rows, or skips and counts them', async () => {
    const file = at('bad.parquet');
    await expect(ParquetDataset.open(file)).rejects.toMatchObject({
      code: 'image_count_mismatch',
      message: expect.stringContaining(`${file} row 1`) as string,
      fields: { file, row: 1, reason: '2 "<image>" marks in the prompt but 1 images' },
    });
    const seen: BadRow[] = [];
    await using data = await ParquetDataset.open(file, { onBadRow: 'skip', onSkip: (bad) => seen.push(bad) });
    expect([data.size, data.numSkipped]).toEqual([2, 4]);
    expect(data.skipped).toEqual(seen);
    expect(seen.map(({ line, unit, reason }) => [line, unit, reason])).toEqual([
      [1, 'row', '2 "<image>" marks in the prompt but 1 images'],
      [2, 'row', expect.stringContaining('images[0]')],
      [3, 'row', expect.stringContaining('outside')],
      [5, 'row', `id "a" already stands in ${file} row 0`],
    ]);
    expect((await data.row(1)).id).toBe('e');
    await expect(ParquetDataset.open(at('not_utf8.parquet'))).rejects.toMatchObject({
      code: 'bad_data',
      fields: { row: 1, reason: 'bytes that are no UTF-8 text, where text belongs' },
    });
  });

  it('fails typed on what is no whole Parquet file', async () => {
    const bytes = await readFile(at('snappy.parquet'));
    const cases: [string, Buffer | string, RegExp][] = [
      ['text.parquet', '{"prompt":"a"}\n{"prompt":"b"}\n', /no "PAR1" at its start/],
      ['cut.parquet', bytes.subarray(0, bytes.length - 100), /cut off/],
      ['short.parquet', 'PAR1', /a file of 4 bytes/],
      ['encrypted.parquet', Buffer.concat([Buffer.from('PARE'), bytes.subarray(4)]), /encrypted/],
      ['footer.parquet', Buffer.concat([bytes.subarray(0, 4), bytes.subarray(-8)]), /footer of \d+ bytes/],
      // The pages are gone, the footer is whole.
      ['pages.parquet', Buffer.concat([bytes.subarray(0, 4), bytes.subarray(9000)]), /bytes|rows|Parquet/],
    ];
    for (const [name, content, reason] of cases) {
      const path = join(folder, name);
      await writeFile(path, content);
      await expect(ParquetDataset.open(path), name).rejects.toMatchObject({
        code: 'bad_data',
        message: expect.stringContaining(path) as string,
        fields: { path, reason: expect.stringMatching(reason) as string },
      });
    }
    await expect(ParquetDataset.open(join(folder, 'none.parquet'))).rejects.toMatchObject({ code: 'io' });
    await mkdir(join(folder, 'folder.parquet'));
    await expect(ParquetDataset.open(join(folder, 'folder.parquet'))).rejects.toMatchObject({ code: 'io' });
  });

  it('refuses bad indices, and calls after dispose', async () => {
    const data = await ParquetDataset.open(at('snappy.parquet'));
    for (const index of [-1, 23, 0.5])
      await expect(data.row(index)).rejects.toMatchObject({ code: 'invalid_argument' });
    await data.dispose();
    await data.dispose();
    await expect(data.row(0)).rejects.toMatchObject({ code: 'disposed' });
  });

  it('keeps one thread for several data sets, and starts a new one after the last', async () => {
    const first = await ParquetDataset.open(at('snappy.parquet'));
    const second = await ParquetDataset.open(at('chat.parquet'), { checkMedia: false });
    await first.dispose();
    expect((await second.row(2)).completion).toBe('Ho');
    await second.dispose();
    expect(await rowsOf(at('chat.parquet'))).toHaveLength(3);
  });

  it('can be called off', async () => {
    const reason = new Error('enough');
    await expect(ParquetDataset.open(at('snappy.parquet'), { signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const controller = new AbortController();
    const opening = ParquetDataset.open(at('snappy.parquet'), { signal: controller.signal });
    controller.abort(reason);
    await expect(opening).rejects.toBe(reason);
  });

  it('has a fingerprint of values, pictures and what is done with them', async () => {
    const open = async (path: string, options = {}): Promise<string> => {
      await using data = await ParquetDataset.open(path, options);
      return data.fingerprint;
    };
    const one = await open(at('snappy.parquet'));
    const copy = join(folder, 'copy.parquet');
    await copyFile(at('snappy.parquet'), copy);
    expect(await open(copy)).toBe(one);
    expect(await open(at('zstd.parquet'))).not.toBe(one);
    expect(await open(copy, { instruction: 'Think.' })).not.toBe(one);
    // One byte of the first picture's first page.
    const bytes = await readFile(copy);
    const place = bytes.indexOf(Buffer.from('IHDR'));
    expect(place).toBeGreaterThan(0);
    bytes[place + 20]! ^= 1;
    await writeFile(copy, bytes);
    expect(await open(copy)).not.toBe(one);
  });

  it('puts an instruction below prompts', async () => {
    const [row] = await rowsOf(at('features.parquet'), { instruction: 'Answer in <answer> tags.' });
    expect(row!.prompt).toBe('<image>How many?\nOptions:\n(A) 1\n(B) 2\nAnswer in <answer> tags.');
  });

  it('shuffles by seed and resumes from any cursor', async () => {
    await using data = await ParquetDataset.open(at('snappy.parquet'));
    const ids = async (options: Parameters<typeof batches>[1]): Promise<string[][]> => {
      const found: string[][] = [];
      for await (const { rows } of batches(data, options)) found.push(rows.map(({ id }) => id));
      return found;
    };
    const whole = await ids({ batchSize: 4, seed: 3, epochs: 2 });
    expect(await ids({ batchSize: 4, seed: 3, epochs: 2 })).toEqual(whole);
    expect(await ids({ batchSize: 4, seed: 4, epochs: 2 })).not.toEqual(whole);
    for (const epoch of [whole.slice(0, 6), whole.slice(6)]) {
      expect(
        epoch
          .flat()
          .map(Number)
          .sort((a, b) => a - b),
      ).toEqual(Array.from({ length: 23 }, (_, i) => i));
    }
    expect(whole.slice(0, 6)).not.toEqual(whole.slice(6));
    let third: Parameters<typeof batches>[1]['cursor'];
    let count = 0;
    for await (const { cursor } of batches(data, { batchSize: 4, seed: 3, epochs: 2 })) {
      if (++count === 3) third = cursor;
    }
    expect(await ids({ batchSize: 4, cursor: third!, epochs: 2 })).toEqual(whole.slice(3));
  });

  // Linux says how long the thread itself ran; what others take of the processor does not count.
  it.skipIf(process.platform !== 'linux')('leaves the event loop free while it decodes', async () => {
    const onThread = await longestTurnMs(async () => {
      expect(await rowsOf(at('zeros.parquet'))).toHaveLength(64);
    });
    expect(onThread).toBeLessThan(20);
    // The measure finds it: the same work on this thread takes the loop away.
    const here = await longestTurnMs(async () => {
      const file = await ParquetFile.open(at('zeros.parquet'));
      for (const block of file.blocks) expect(await file.read(block)).toHaveLength(16);
      await file.close();
    });
    expect(here).toBeGreaterThan(onThread);
  });
});

/** The longest time, in milliseconds of its own processor time, that this thread went without a turn of the event loop. */
async function longestTurnMs(work: () => Promise<void>): Promise<number> {
  const ran = (): number =>
    Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, 'latin1').split(' ')[0]) / 1e6;
  let longest = 0;
  let last = ran();
  const timer = setInterval(() => {
    const now = ran();
    longest = Math.max(longest, now - last);
    last = now;
  }, 1);
  await work();
  clearInterval(timer);
  return longest;
}
