// Damaged data files: every importer answers with rows, or with an error or a reason that says where. Seeded: a failure prints
// the seed and the path that repeat it.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { embeddedIndex } from '../../src/data/embedded.js';
import { dataFormats, importRecord } from '../../src/data/formats.js';
import { JsonlDataset, JsonlPairs } from '../../src/data/jsonl.js';
import { MediaFolder } from '../../src/data/media-folder.js';
import { ParquetDataset } from '../../src/data/parquet.js';
import { plainRecord } from '../../src/data/parquet-values.js';
import { readRecord } from '../../src/data/read-record.js';
import { GavelError } from '../../src/errors.js';
import { checkOutcome, damages, jsonChanges, mutate, mutateJson } from '../support/mutate.js';

const seed = 20261;
const timeoutMs = 120_000;
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-fuzz-data-'));
});
afterAll(() => rm(folder, { recursive: true }));

const turns = [
  { from: 'human', value: '<image>\nWhat?' },
  { from: 'gpt', value: 'This.' },
];
const messages = [
  {
    role: 'user',
    content: [
      { type: 'image_url', image_url: { url: 'a.png' } },
      { type: 'text', text: 'What?' },
    ],
  },
  { role: 'assistant', content: 'This.' },
];
const records: readonly object[] = [
  { id: 'a', prompt: '<image>p', images: ['a.png'], videos: [], completion: 'c', solution: 's', meta: { k: 1 } },
  { id: 'b', image: 'a.png', conversations: turns },
  {
    image: 'a.png',
    conversations: [
      { from: 'user', value: 'q' },
      { from: 'assistant', value: 'a' },
    ],
  },
  { messages, completion: 'x' },
  { problem: 'p', solution: '<answer>s</answer>', images: ['a.png'], video: { frames: ['1.png'], fps: 2 } },
  { imgname: 'a.png', query: 'q', label: ['1'] },
  { filename: 'a.png', question: 'q', answer: 3 },
  { id: 4, question: 'q', choices: ['x', 'y'], answer: 'y', unit: '$' },
  { id: 'm', image: 'a.png', question: 'q', context: 'c', choices: ['x', 'y'], answer: 'A' },
  {
    id: 1,
    first: { prompt: 'a' },
    second: { prompt: 'b' },
    preference: 'tie',
    scores: { first: { d: 1 }, second: { d: 2 } },
  },
  { prompt: messages.slice(0, 1), chosen: messages.slice(1), rejected: 'no' },
  { chosen: messages, rejected: [messages[0], { role: 'assistant', content: 'No.' }] },
  { conversations: turns.slice(0, 1), chosen: turns[1], rejected: turns[1], images: ['a.png'] },
  { prompt: 'p', path_src: 'a', path1: 'b', path2: 'c', model1_dim1_score: 1, model2_dim1_score: 2, tie_case: false },
];

describe('damaged data', () => {
  it('gives a row, a pair or a reason for any record, by its fields and by every name', () => {
    const media = new MediaFolder(folder);
    const counts = { used: 0, refused: 0, ambiguous: 0 };
    const named = fc.option(fc.constantFrom(...dataFormats), { freq: 2, nil: undefined });
    const inputs = fc.tuple(fc.nat(records.length - 1), jsonChanges, named);
    fc.assert(
      fc.property(inputs, ([index, changes, format]) => {
        const value: unknown = JSON.parse(mutateJson(JSON.stringify(records[index]), changes));
        const result = importRecord(value, format);
        if ('reason' in result) expect(result.reason.length).toBeGreaterThan(3);
        try {
          const read = readRecord(value, 'id', media, { kind: 'any', ...(format === undefined ? {} : { format }) });
          counts['reason' in read ? 'refused' : 'used']++;
        } catch (cause) {
          expect(GavelError.is(cause) && cause.code === 'bad_data', String(cause)).toBe(true);
          counts.ambiguous++;
        }
      }),
      { numRuns: 4000, seed },
    );
    expect(counts.used).toBeGreaterThan(150);
    expect(counts.refused).toBeGreaterThan(300);
  });

  it(
    'text files',
    async () => {
      const path = join(folder, 'damaged.jsonl');
      const forms = [
        records
          .slice(0, 4)
          .map((record) => JSON.stringify(record))
          .join('\n'),
        JSON.stringify(records.slice(4, 9), null, 1),
        JSON.stringify({ 1: records[7], 2: { ...records[7], id: 5 } }),
      ];
      const counts = { ok: 0, refused: 0 };
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...forms), damages, fc.boolean(), async (text, list, skip) => {
          await writeFile(path, mutate(Buffer.from(text), list));
          const outcome = await checkOutcome(async () => {
            await using data = await JsonlDataset.open(path, {
              onBadRow: skip ? 'skip' : 'fail',
              checkMedia: false,
            });
            for (let index = 0; index < data.size; index++) await data.row(index);
          }, ['damaged.jsonl']);
          counts[outcome]++;
        }),
        { numRuns: 800, seed },
      );
      expect(counts.ok).toBeGreaterThan(80);
      expect(counts.refused).toBeGreaterThan(80);
      const pairs = records
        .slice(9)
        .map((record) => JSON.stringify(record))
        .join('\n');
      await fc.assert(
        fc.asyncProperty(damages, async (list) => {
          await writeFile(path, mutate(Buffer.from(pairs), list));
          await checkOutcome(async () => {
            await using data = await JsonlPairs.open(path, { onBadRow: 'skip', checkMedia: false });
            for (let index = 0; index < data.size; index++) await data.pair(index);
          }, ['damaged.jsonl']);
        }),
        { numRuns: 300, seed },
      );
    },
    timeoutMs,
  );

  it.each(['snappy', 'gzip', 'chat'])(
    'Parquet files (%s), on a thread that survives them all',
    async (name) => {
      const goldens = join(import.meta.dirname, '../goldens/data');
      const bytes = await readFile(join(goldens, `${name}.parquet`));
      const path = join(folder, `damaged-${name}.parquet`);
      const counts = { ok: 0, refused: 0 };
      await using witness = await ParquetDataset.open(join(goldens, 'chat.parquet'), { checkMedia: false });
      await fc.assert(
        fc.asyncProperty(damages, fc.boolean(), async (list, footer) => {
          await writeFile(path, footer ? damageEnd(bytes, list) : mutate(bytes, list));
          const outcome = await checkOutcome(async () => {
            await using data = await ParquetDataset.open(path, { onBadRow: 'skip', checkMedia: false });
            for (let index = 0; index < data.size; index++) await data.row(index);
          }, [path]);
          counts[outcome]++;
        }),
        { numRuns: 200, seed },
      );
      expect(counts.refused).toBeGreaterThan(40);
      expect((await witness.row(2)).completion).toBe('Ho');
    },
    timeoutMs,
  );

  it('any decoded values', () => {
    const leaf = fc.oneof(
      fc.string(),
      fc.double(),
      fc.bigInt({ min: -(2n ** 70n), max: 2n ** 70n }),
      fc.uint8Array({ maxLength: 4 }),
      fc.date({ noInvalidDate: false }),
      fc.constantFrom(null, undefined, true, { bytes: null, path: null }, { bytes: new Uint8Array(2), path: 'x' }),
    );
    const value = fc.letrec((tie) => ({
      any: fc.oneof({ depthSize: 'small' }, leaf, fc.array(tie('any')), fc.dictionary(fc.string(), tie('any'))),
    })).any;
    const features = fc.constantFrom(
      undefined,
      { _type: 'ClassLabel', names: ['a'] },
      { _type: 'Sequence', feature: {} },
      [7],
    );
    fc.assert(
      fc.property(fc.dictionary(fc.string(), value), features, (record, feature) => {
        const { value: plain, embedded } = plainRecord(record, { a: feature, '': feature });
        const tokens: number[] = [];
        expect(foreign(plain, tokens)).toEqual([]);
        expect(tokens).toEqual(embedded.map((_, index) => index));
      }),
      { numRuns: 1000, seed },
    );
  });
});

/** Damages the last 60 % of a file, where the footer is. */
function damageEnd(bytes: Buffer, list: Parameters<typeof mutate>[1]): Buffer {
  const at = Math.floor(bytes.length * 0.4);
  return Buffer.concat([bytes.subarray(0, at), mutate(bytes.subarray(at), list)]);
}

/** What JSON could not have given; the pictures that tokens stand for are collected in order. */
function foreign(value: unknown, tokens: number[]): unknown[] {
  if (typeof value === 'string') {
    const index = embeddedIndex(value);
    if (index !== undefined) tokens.push(index);
    return [];
  }
  if (value === null || typeof value === 'number' || typeof value === 'boolean') return [];
  if (Array.isArray(value)) return value.flatMap((item: unknown) => foreign(item, tokens));
  const isPlain = typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype;
  return isPlain ? Object.values(value).flatMap((item: unknown) => foreign(item, tokens)) : [value];
}
