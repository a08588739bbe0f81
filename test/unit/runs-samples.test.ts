// The sample pool as a view (queries, a reader beside the writer, Parquet) and what is kept of its items for the page.
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { ItemStore, readItems, readPicture } from '../../src/runs/item-store.js';
import { SamplePool, type MarkedSample, type SampleEntry } from '../../src/runs/sample-pool.js';
import { samplesPage } from '../../src/runs/samples-page.js';
import { writeSamplesParquet } from '../../src/runs/samples-parquet.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-samples-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const sample = (item: string, checkpoint: string, index: number, more: Partial<MarkedSample> = {}): MarkedSample => ({
  item,
  checkpoint,
  sample: index,
  seed: 1,
  temperature: 0.9,
  recency: 0,
  text: `${item} ${checkpoint} ${index}`,
  numTokens: 3,
  finishReason: 'stop',
  rewards: { format: 1, accuracy: index % 2 },
  answer: index % 2 === 1 ? 'Image 1 is better' : null,
  correct: index % 2 === 1,
  ...more,
});

const fill = (pool: SamplePool): void => {
  for (const index of [0, 1]) pool.add(sample('a', 'step-1', index, { stage: 'rejection' }));
  for (const index of [0, 1]) pool.add(sample('b', 'step-1', index, { stage: 'rejection' }));
  for (const index of [0, 1, 2]) pool.add(sample('a', 'grpo@2', index, { recency: 2, advantage: 0.5 - index }));
  pool.add(sample('a', 'grpo@1', 0, { recency: 1 }));
};
const keysOf = (entries: readonly SampleEntry[]): string[] =>
  entries.map(({ checkpoint, item, sample: index }) => `${checkpoint} ${item}${index}`);

describe('queries', () => {
  it.each(['on disk', 'in memory', 'read-only'])(
    '%s: by item, weights, stage and verdict, in both orders',
    async (where) => {
      const path = join(folder, 'pool.jsonl');
      let pool = where === 'in memory' ? SamplePool.inMemory() : await SamplePool.open(path);
      fill(pool);
      if (where === 'read-only') {
        await pool.close();
        pool = await SamplePool.openReadOnly(path);
      }
      expect(pool.items()).toEqual(['a', 'b']);
      expect(pool.checkpoints()).toEqual(['step-1', 'grpo@2', 'grpo@1']);
      expect(keysOf(pool.select({ item: 'b' }))).toEqual(['step-1 b0', 'step-1 b1']);
      expect(keysOf(pool.select({ checkpoint: 'step-1', correct: true }))).toEqual(['step-1 a1', 'step-1 b1']);
      // A stage is told by the record, or by the name of weights within a stage.
      expect(keysOf(pool.select({ stage: 'grpo', correct: false }))).toEqual(['grpo@2 a0', 'grpo@2 a2', 'grpo@1 a0']);
      expect(keysOf(pool.select({ item: 'a', order: 'newest' }))).toEqual([
        ...['grpo@2 a2', 'grpo@2 a1', 'grpo@2 a0'],
        ...['grpo@1 a0', 'step-1 a1', 'step-1 a0'],
      ]);
      expect(keysOf(pool.select({ item: 'a', order: 'newest', limit: 1 }))).toEqual(['grpo@2 a2']);
      expect(pool.select({ item: 'none' })).toEqual([]);
      expect((await pool.read(pool.select({ stage: 'grpo' })[1]!)).text).toBe('a grpo@2 1');
      await pool.close();
    },
  );
});

describe('what an evaluation kept', () => {
  it('is neither right nor wrong', async () => {
    const pool = SamplePool.inMemory();
    fill(pool);
    pool.add(sample('e', 'step-9', 0, { stage: 'test', answer: null, correct: false, unmarked: true }));
    expect(keysOf(pool.select({ stage: 'test' }))).toEqual(['step-9 e0']);
    for (const correct of [true, false]) expect(pool.select({ stage: 'test', correct })).toEqual([]);
    const path = join(folder, 'samples.parquet');
    await writeSamplesParquet(path, pool, pool.select());
    const rows = await parquetReadObjects({ file: new Uint8Array(await readFile(path)).buffer });
    expect(rows.map((row) => row['correct'])).toEqual([false, true, false, true, false, true, false, false, null]);
  });
});

describe('a reader beside the writer', () => {
  it('sees whole lines, takes in new ones when asked, and cannot write', async () => {
    const path = join(folder, 'pool.jsonl');
    const writer = await SamplePool.open(path);
    writer.add(sample('a', 'w', 0));
    await writer.sync();
    await using reader = await SamplePool.openReadOnly(path);
    expect(reader.size).toBe(1);
    expect(() => reader.add(sample('x', 'w', 0))).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    writer.add(sample('ä', 'w', 1));
    await writer.sync();
    // A line that is being written, as another process may find it.
    const line = JSON.stringify(sample('c', 'w', 0));
    await appendFile(path, line.slice(0, 40));
    expect(await reader.refresh()).toBe(1);
    expect(await reader.refresh()).toBe(0);
    await appendFile(path, `${line.slice(40)}\n`);
    expect(await reader.refresh()).toBe(1);
    expect(keysOf(reader.select())).toEqual(['w a0', 'w ä1', 'w c0']);
    expect((await reader.read(reader.entries('w', 'c')[0]!)).text).toBe('c w 0');
    await writer.close();
  });

  it('finds nothing where there is no pool, and makes none', async () => {
    await using pool = await SamplePool.openReadOnly(join(folder, 'none', 'pool.jsonl'));
    expect(pool.size).toBe(0);
    expect(await readdir(folder)).toEqual([]);
  });

  it('names damaged lines and reads the others; the writer refuses them', async () => {
    const path = join(folder, 'pool.jsonl');
    const good = JSON.stringify(sample('a', 'w', 0));
    const foreign = JSON.stringify({ item: 'a', checkpoint: 'w', sample: 'one' });
    await writeFile(path, `not json\n${good}\n${foreign}\nnull\n${JSON.stringify(sample('a', 'w', 1))}\n`);
    const damage: string[] = [];
    await using pool = await SamplePool.openReadOnly(path, { onDamage: ({ message }) => damage.push(message) });
    expect(pool.size).toBe(2);
    expect(damage).toHaveLength(3);
    expect(damage[0]).toMatch(/^Expected JSON in line 1 of /);
    expect(damage[1]).toContain('a marked sample');
    await expect(SamplePool.openReadOnly(path)).rejects.toMatchObject({ code: 'bad_data' });
    await expect(SamplePool.open(path)).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('says so when the file no longer holds what it held', async () => {
    const path = join(folder, 'pool.jsonl');
    const writer = await SamplePool.open(path);
    fill(writer);
    await writer.close();
    await using pool = await SamplePool.openReadOnly(path);
    await writeFile(path, 'x'.repeat(5000));
    await expect(pool.read(pool.select()[0]!)).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('is told that a folder is no pool', async () => {
    await mkdir(join(folder, 'pool.jsonl'));
    await expect(SamplePool.openReadOnly(join(folder, 'pool.jsonl'))).rejects.toMatchObject({ code: 'io' });
  });
});

describe('Parquet', () => {
  it('holds every sample and a column a reward, in more than one group of rows', async () => {
    const pool = SamplePool.inMemory();
    const count = 5003;
    for (let i = 0; i < count; i++) pool.add(sample(`item ${i}`, 'w', 0, { text: `t\n${i}`, recency: i }));
    pool.add(sample('last', 'w', 1, { stage: 'r', step: 4, advantage: null, rewards: { style: 0.5, format: null } }));
    const path = join(folder, 'samples.parquet');
    const columns = await writeSamplesParquet(path, pool, pool.select());
    expect(columns.slice(-3)).toEqual(['rewards/format', 'rewards/accuracy', 'rewards/style']);
    const bytes = await readFile(path);
    const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
    const rows = await parquetReadObjects({ file });
    expect(rows).toHaveLength(count + 1);
    expect(rows[count - 1]).toMatchObject({ item: 'item 5002', text: 't\n5002', recency: 5002, seed: 1n, stage: null });
    const last = { stage: 'r', step: 4, advantage: null, 'rewards/format': null, 'rewards/style': 0.5, correct: true };
    expect(rows[count]).toMatchObject({ item: 'last', answer: 'Image 1 is better', ...last });
    expect(await readdir(folder)).toEqual(['samples.parquet']);
  });

  it('of no sample is a file with no row; an unwritable place is an error', async () => {
    const path = join(folder, 'empty.parquet');
    await writeSamplesParquet(path, SamplePool.inMemory(), []);
    const bytes = await readFile(path);
    expect(await parquetReadObjects({ file: new Uint8Array(bytes).buffer })).toEqual([]);
    await expect(
      writeSamplesParquet(join(folder, 'none', 'x.parquet'), SamplePool.inMemory(), []),
    ).rejects.toMatchObject({ code: 'io' });
  });
});

const rgb = (width: number, height: number, value: number): { rgb: Uint8Array; width: number; height: number } => ({
  rgb: new Uint8Array(width * height * 3).fill(value),
  width,
  height,
});

describe('items', () => {
  it('keep prompts of all and pictures of the first, shrunk, from every kind of source', async () => {
    const file = join(folder, 'picture.png');
    const encoded = await sharp({ create: { width: 900, height: 300, channels: 3, background: '#112233' } })
      .png()
      .toBuffer();
    await writeFile(file, encoded);
    const store = await ItemStore.open(folder, { maxPictured: 2, maxSide: 90 });
    store.add({
      id: '../a',
      prompt: '<image><image> which',
      images: [{ path: file }, { bytes: encoded }],
      solution: 'x',
    });
    store.add({ id: 'b', prompt: [{ role: 'user', content: 'hi' }], images: [rgb(8, 6, 7)] });
    store.add({ id: 'b', prompt: 'never', images: [] });
    store.add({ id: 'c', prompt: 'third', images: [{ path: file }, rgb(8, 6, 7)] });
    store.add({ id: 'd', prompt: 'text', images: [] });
    await store.close();
    const items = await readItems(folder);
    expect([...items.keys()].sort()).toEqual(['../a', 'b', 'c', 'd']);
    expect(items.get('c')!.pictures).toEqual([{ path: file }, {}]);
    expect(items.get('b')!.prompt).toEqual([{ role: 'user', content: 'hi' }]);
    expect(await readdir(join(folder, 'images'))).toHaveLength(3);
    const sizes = await Promise.all(
      [...items.get('../a')!.pictures, ...items.get('b')!.pictures].map(async (picture) => {
        const { width, height } = await sharp(await readPicture(folder, picture)).metadata();
        return [width, height];
      }),
    );
    expect(sizes).toEqual([
      [90, 30],
      [90, 30],
      [8, 6],
    ]);
    // A picture that was not kept is read where the data set has it, if it is still there.
    expect(await readPicture(folder, { path: file })).toBeInstanceOf(Buffer);
    expect(await readPicture(folder, { path: join(folder, 'gone.png') })).toBeUndefined();
    expect(await readPicture(folder, {})).toBeUndefined();
    expect(await readPicture(folder, { file: '../../picture.png' })).toBeUndefined();
  });

  it('know after reopening what they have, and keep again what a kill cut short', async () => {
    const first = await ItemStore.open(folder, { maxPictured: 2 });
    first.add({ id: 'a', prompt: 'p', images: [rgb(2, 2, 1)] });
    await first.close();
    await appendFile(join(folder, 'items.jsonl'), '{"item":"b","prom');
    const again = await ItemStore.open(folder, { maxPictured: 2 });
    for (const id of ['a', 'b', 'c']) again.add({ id, prompt: 'p', images: [rgb(2, 2, 1)] });
    await again.close();
    const items = await readItems(folder);
    expect([...items.values()].map(({ item, pictures }) => [item, pictures[0]!.file !== undefined])).toEqual([
      ['a', true],
      ['c', false],
      ['b', true],
    ]);
  });

  it('say why a picture could not be kept, and go on', async () => {
    const store = await ItemStore.open(folder);
    store.add({ id: 'a', prompt: 'p', images: [{ bytes: Uint8Array.of(1, 2, 3) }] });
    await store.close();
    expect((await readItems(folder)).get('a')!.pictures[0]!.error).toMatch(/unsupported image format/);
  });

  it('end with a typed error when the folder of pictures cannot be made', async () => {
    const store = await ItemStore.open(folder);
    await writeFile(join(folder, 'images'), 'a file');
    store.add({ id: 'a', prompt: 'p', images: [rgb(2, 2, 1)] });
    await expect(store.sync()).rejects.toMatchObject({ code: 'io' });
    await expect(store.close()).rejects.toMatchObject({ code: 'io' });
  });
});

describe('the page', () => {
  const group = {
    item: '<b>item</b>',
    checkpoint: 'w',
    place: 'stage grpo, step 3',
    prompt: '<script>alert(1)</script>',
    solution: 'Image 1 & more',
    pictures: ['data:image/png;base64,AAAA', null],
    samples: [
      sample('i', 'w', 0, { text: '<img src=x>', finishReason: 'length', advantage: -0.25 }),
      sample('i', 'w', 1, { rewards: { extra: null } }),
    ],
  };
  const page = samplesPage({ title: 'T<', introduction: ['"said"'], groups: [group] });

  it('escapes what it shows and needs neither scripts nor the network', () => {
    expect(page).not.toContain('<script');
    expect(page).not.toContain('<img src=x>');
    expect(page).toContain('&lt;script&gt;alert(1)&lt;/script&gt;');
    expect(page).toContain('&lt;b&gt;item&lt;/b&gt;');
    expect(page).not.toMatch(/(src|href)="(?!data:)/);
    expect(page).toContain('prefers-color-scheme: dark');
  });

  it('says verdicts in words, numbers of each reward, and which picture is missing', () => {
    expect(page).toContain('\u2717 wrong');
    expect(page).toContain('\u2713 right');
    expect(page).toContain('<td>-0.250</td>');
    expect(page).toContain('3 (cut)');
    expect(page).toContain('no picture kept');
    for (const name of ['format', 'accuracy', 'extra', 'advantage']) expect(page).toContain(`>${name}</th>`);
  });
});
