// Every form of data file, by rows written as the sets publish them (field names, nesting and habits of each; own content).
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { dataFormats, formatsOf, importRecord, type DataFormat } from '../../src/data/formats.js';
import { JsonlDataset, JsonlPairs } from '../../src/data/jsonl.js';

let folder = '';
let count = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-importers-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(text: string): Promise<string> {
  const path = join(folder, `data-${count++}.json`);
  await writeFile(path, text);
  return path;
}

const turn = (from: string, value: string): object => ({ from, value });
const png = 'data:image/png;base64,iVBORw0KGgo=';

/** A real-looking record of each form, and what it becomes. */
const cases: [string, DataFormat, object, object][] = [
  [
    'own rows',
    'gavel',
    { id: 'x', prompt: '<image>Sharp?', images: ['a.png'], solution: 'yes' },
    { row: { id: 'x', prompt: '<image>Sharp?', images: ['a.png'], solution: 'yes' } },
  ],
  [
    "UnifiedReward's cold start",
    'llava',
    {
      conversations: [
        turn('human', 'Given a caption and two images <image> <image>, judge them.'),
        turn('gpt', '<think>\n1. ...\n</think>\n<answer>Image 1 is better</answer>'),
      ],
      images: ['train/1.png', 'train/2.png'],
    },
    {
      row: {
        prompt: 'Given a caption and two images <image> <image>, judge them.',
        images: ['train/1.png', 'train/2.png'],
        completion: '<think>\n1. ...\n</think>\n<answer>Image 1 is better</answer>',
      },
    },
  ],
  [
    "LLaVA's several turns",
    'llava',
    {
      id: '000000033471',
      image: 'coco/train2017/000000033471.jpg',
      conversations: [
        turn('human', '<image>\nWhat are the colors of the bus?'),
        turn('gpt', 'White and red.'),
        turn('human', 'What feature is on its back?'),
        turn('gpt', 'An advertisement.'),
      ],
    },
    {
      row: {
        id: '000000033471',
        prompt: [
          { role: 'user', content: '<image>\nWhat are the colors of the bus?' },
          { role: 'assistant', content: 'White and red.' },
          { role: 'user', content: 'What feature is on its back?' },
        ],
        images: ['coco/train2017/000000033471.jpg'],
        completion: 'An advertisement.',
      },
    },
  ],
  [
    "R3V's warm-up rationales",
    'r3v',
    {
      image: '26746.png',
      conversations: [
        turn('user', "How much for an Akita and a Beagle? (Unit: $)\nLet's think step by step."),
        turn('assistant', '1. Akita: $2\n2. Beagle: $3\nAnswer: $5'),
      ],
    },
    {
      row: {
        prompt: "<image>How much for an Akita and a Beagle? (Unit: $)\nLet's think step by step.",
        images: ['26746.png'],
        completion: '1. Akita: $2\n2. Beagle: $3\nAnswer: $5',
      },
    },
  ],
  [
    "OpenAI's messages",
    'messages',
    {
      messages: [
        { role: 'system', content: 'Be short.' },
        {
          role: 'user',
          content: [
            { type: 'text', text: 'What is it?' },
            { type: 'image_url', image_url: { url: png, detail: 'low' } },
          ],
        },
        { role: 'assistant', content: 'A cat.' },
      ],
    },
    {
      row: {
        prompt: [
          { role: 'system', content: 'Be short.' },
          { role: 'user', content: [{ type: 'text', text: 'What is it?' }, { type: 'image' }] },
        ],
        images: [png],
        completion: 'A cat.',
      },
    },
  ],
  [
    "LLaMA-Factory's messages",
    'messages',
    {
      messages: [
        { content: '<image>Who are they?', role: 'user' },
        { content: 'Two players.', role: 'assistant' },
      ],
      images: ['mllm_demo_data/1.jpg'],
    },
    {
      row: {
        prompt: [{ role: 'user', content: '<image>Who are they?' }],
        images: ['mllm_demo_data/1.jpg'],
        completion: 'Two players.',
      },
    },
  ],
  [
    "UnifiedReward's GRPO items",
    'problem',
    { problem: 'Which is better?', solution: 'Image 2 is better', images: ['1.png', '2.png'] },
    {
      row: { prompt: '<image><image>Which is better?', images: ['1.png', '2.png'], solution: 'Image 2 is better' },
    },
  ],
  [
    "EasyR1's items",
    'problem',
    { images: ['g.png'], problem: '<image>Find x.', answer: '3' },
    { row: { prompt: '<image>Find x.', images: ['g.png'], solution: '3' } },
  ],
  [
    'ChartQA',
    'chartqa',
    { imgname: '41699051005347.png', query: 'How many food items?', label: '14' },
    { row: { prompt: '<image>How many food items?', images: ['41699051005347.png'], solution: '14' } },
  ],
  [
    'ChartQA in Parquet',
    'chartqa',
    { image: 'p.png', query: 'Ratio?', label: ['0.57'], human_or_machine: 'human' },
    { row: { prompt: '<image>Ratio?', images: ['p.png'], solution: '0.57', meta: { human_or_machine: 'human' } } },
  ],
  [
    'CLEVR-Math',
    'clevr-math',
    { filename: 'CLEVR_train_006841.png', question: 'Add 1 cube. How many?', answer: 3, template: 'addition' },
    {
      row: {
        prompt: '<image>Add 1 cube. How many?',
        images: ['CLEVR_train_006841.png'],
        solution: '3',
        meta: { template: 'addition' },
      },
    },
  ],
  [
    'CLEVR-Math in Parquet',
    'clevr-math',
    { template: 'subtraction', id: 'q1', question: 'How many are left?', image: 'c.png', label: 0 },
    {
      row: {
        id: 'q1',
        prompt: '<image>How many are left?',
        images: ['c.png'],
        solution: '0',
        meta: { template: 'subtraction' },
      },
    },
  ],
  [
    'TabMWP with choices',
    'tabmwp',
    {
      id: '8',
      question: 'Who baked the fewest?',
      choices: ['Whitney', 'Dakota'],
      answer: 'Dakota',
      unit: null,
      table_title: 'Cookies',
      grade: 3,
    },
    {
      row: {
        id: '8',
        prompt: '<image>Who baked the fewest?\nOptions:\n(A) Whitney\n(B) Dakota',
        images: ['tables/8.png'],
        solution: 'B',
        meta: { table_title: 'Cookies', grade: 3, unit: null, choices: ['Whitney', 'Dakota'] },
      },
    },
  ],
  [
    'M3CoT',
    'question',
    {
      id: 'physical-commonsense-1426',
      category: 'commonsense',
      image: 'images/p.png',
      question: 'What is the person doing?',
      choices: ['Taking medicine.', 'Eating.'],
      context: '',
      answer: 'A',
      rationale: 'First...',
      split: 'train',
    },
    {
      row: {
        id: 'physical-commonsense-1426',
        prompt: '<image>What is the person doing?\nOptions:\n(A) Taking medicine.\n(B) Eating.',
        images: ['images/p.png'],
        solution: 'A',
        meta: {
          category: 'commonsense',
          rationale: 'First...',
          split: 'train',
          choices: ['Taking medicine.', 'Eating.'],
        },
      },
    },
  ],
  [
    'geometry by the number of the choice',
    'question',
    { image: 'geo.png', question: 'Angle?', choices: ['30°', '45°', '60°'], answer: 2 },
    {
      row: {
        prompt: '<image>Angle?\nOptions:\n(A) 30°\n(B) 45°\n(C) 60°',
        images: ['geo.png'],
        solution: 'C',
        meta: { choices: ['30°', '45°', '60°'] },
      },
    },
  ],
  [
    'own pairs',
    'gavel-pairs',
    {
      id: 7,
      first: { prompt: '<image>p', images: ['a.png'], completion: 'r' },
      second: { prompt: '<image>p', images: ['b.png'], completion: 's' },
      preference: 'tie',
      dimensions: { style: 'second' },
      scores: { first: { style: 1 }, second: { style: 2.5 } },
    },
    {
      pair: {
        id: '7',
        first: { prompt: '<image>p', images: ['a.png'], completion: 'r' },
        second: { prompt: '<image>p', images: ['b.png'], completion: 's' },
        preference: 'tie',
        dimensions: { style: 'second' },
        scores: { first: { style: 1 }, second: { style: 2.5 } },
      },
    },
  ],
  [
    "TRL's preferences",
    'trl-preference',
    { prompt: 'What is it?', chosen: ' A cat.', rejected: ' A dog.', images: ['a.png'], source: 'x' },
    {
      pair: {
        first: { prompt: '<image>What is it?', images: ['a.png'], completion: ' A cat.' },
        second: { prompt: '<image>What is it?', images: ['a.png'], completion: ' A dog.' },
        preference: 'first',
        meta: { source: 'x' },
      },
    },
  ],
  [
    "TRL's messages with an implicit prompt",
    'trl-preference',
    {
      chosen: [
        { role: 'user', content: 'Sky?' },
        { role: 'assistant', content: 'Blue.' },
      ],
      rejected: [
        { role: 'user', content: 'Sky?' },
        { role: 'assistant', content: 'Green.' },
      ],
    },
    {
      pair: {
        first: { prompt: [{ role: 'user', content: 'Sky?' }], images: [], completion: 'Blue.' },
        second: { prompt: [{ role: 'user', content: 'Sky?' }], images: [], completion: 'Green.' },
        preference: 'first',
      },
    },
  ],
  [
    "LLaMA-Factory's preferences",
    'sharegpt-preference',
    {
      conversations: [turn('human', '<image>Describe it.')],
      chosen: turn('gpt', 'good'),
      rejected: turn('gpt', 'bad'),
      images: ['r.jpg'],
    },
    {
      pair: {
        first: { prompt: '<image>Describe it.', images: ['r.jpg'], completion: 'good' },
        second: { prompt: '<image>Describe it.', images: ['r.jpg'], completion: 'bad' },
        preference: 'first',
      },
    },
  ],
  [
    'EditReward',
    'editreward',
    {
      prompt: 'Make the donut an apple.',
      choice_dist: null,
      confidence: null,
      path_src: '1/source.png',
      path1: '1/ovis.png',
      path2: '1/flux.png',
      model1: 'ovis_u1_seed2025',
      model2: 'flux_kontext_seed2025',
      model1_dim1_score: 4,
      model1_dim2_score: 3,
      model1_overall_score: 7,
      model2_dim1_score: 3,
      model2_dim2_score: 3,
      model2_overall_score: 6,
      tie_case: false,
    },
    {
      pair: {
        first: { prompt: '<image><image>Make the donut an apple.', images: ['1/source.png', '1/ovis.png'] },
        second: { prompt: '<image><image>Make the donut an apple.', images: ['1/source.png', '1/flux.png'] },
        preference: 'first',
        dimensions: { dim1: 'first', dim2: 'tie' },
        scores: { first: { dim1: 4, dim2: 3, overall: 7 }, second: { dim1: 3, dim2: 3, overall: 6 } },
        meta: {
          choice_dist: null,
          confidence: null,
          model1: 'ovis_u1_seed2025',
          model2: 'flux_kontext_seed2025',
        },
      },
    },
  ],
];

describe('importers', () => {
  it.each(cases)('%s', (_, format, record, expected) => {
    expect(formatsOf(record as Record<string, unknown>)).toEqual([format]);
    expect(importRecord(record)).toEqual({ format, ...expected });
    expect(importRecord(record, format)).toEqual({ format, ...expected });
  });

  it('cover every form', () => {
    expect(new Set(cases.map(([, format]) => format))).toEqual(new Set(dataFormats));
  });

  it.each([
    ['problem', { problem: 'x', solution: 'a', answer: 'b' }, 'they differ'],
    ['problem', { problem: 'x' }, 'solution: missing'],
    ['question', { question: 'q', answer: 'Z', choices: ['a', 'b'] }, 'none of the choices'],
    ['question', { question: 'q', answer: 'a', choices: ['a', 'a'] }, 'none of the choices'],
    ['question', { question: 'q', answer: 9, choices: ['a', 'b'] }, 'none of the choices'],
    ['question', { question: 'q', answer: '', choices: null }, 'answer'],
    ['chartqa', { imgname: 'a.png', query: 'q', label: ['a', 'b'] }, 'label'],
    ['clevr-math', { filename: 'a.png', question: 'q' }, 'answer: missing'],
    ['tabmwp', { question: 'q', choices: null, answer: '1', unit: null }, 'id'],
    ['r3v', { conversations: [turn('assistant', 'x')] }, 'no turn before the answer'],
    ['trl-preference', { chosen: 'a', rejected: 'b' }, 'prompt: missing'],
    ['trl-preference', { prompt: 'p', chosen: [{ role: 'user', content: 'x' }], rejected: 'b' }, 'chosen'],
    [
      'trl-preference',
      { prompt: 'p', chosen: 'a', rejected: [{ role: 'assistant', content: [{ type: 'image' }] }] },
      'rejected',
    ],
    [
      'trl-preference',
      { chosen: [{ role: 'user', content: 'a' }], rejected: [{ role: 'user', content: 'b' }] },
      'begin with different messages',
    ],
    [
      'sharegpt-preference',
      { conversations: [turn('gpt', 'x')], chosen: turn('gpt', 'a'), rejected: turn('gpt', 'b') },
      'no question',
    ],
    [
      'editreward',
      { prompt: 'p', path_src: 'a', path1: 'b', path2: 'c', model1_dim1_score: 'four' },
      'model1_dim1_score',
    ],
    ['gavel-pairs', { first: { prompt: 'a' }, second: { prompt: 'b' }, preference: 'left' }, 'preference'],
    ['gavel-pairs', { first: { prompt: 'a' }, second: { prompt: 'b' }, preference: 'tie', winner: 1 }, 'winner'],
  ] as [DataFormat, object, string][])('%s refuses %j', (format, record, reason) => {
    expect(importRecord(record, format)).toEqual({ reason: expect.stringContaining(reason) as string });
  });

  it('takes a tie, and scores that only one candidate has', () => {
    const base = { prompt: 'p', path_src: 'a', path1: 'b', path2: 'c' };
    expect(importRecord({ ...base, tie_case: true, model1_dim1_score: 2, model2_dim1_score: null })).toMatchObject({
      pair: { preference: 'tie', scores: { first: { dim1: 2 }, second: {} } },
    });
    expect(importRecord(base)).not.toHaveProperty('pair.scores');
  });

  it.each([
    [{ messages: [], conversations: [] }, ['llava', 'messages']],
    [{ problem: 'p', solution: 's', question: 'q', answer: 'a' }, ['problem', 'question']],
    [{ prompt: 'p', problem: 'p' }, ['gavel', 'problem']],
    [{ prompt: 'p', path_src: '', path1: '', path2: '', chosen: '', rejected: '' }, ['trl-preference', 'editreward']],
  ] as [Record<string, unknown>, DataFormat[]][])(
    'names the forms of an ambiguous row: %j',
    async (record, formats) => {
      expect(formatsOf(record)).toEqual(formats);
      const path = await write(JSON.stringify([record]));
      const error = { code: 'bad_data', fields: { formats: formats.join(', ') } };
      await expect(JsonlDataset.open(path)).rejects.toMatchObject(error);
      // A form that nobody decided is no bad row: skipping would leave out whole files.
      await expect(JsonlDataset.open(path, { onBadRow: 'skip' })).rejects.toMatchObject(error);
    },
  );

  it('reads an ambiguous row by its named form', async () => {
    const record = { problem: 'p', solution: 's', question: 'q', answer: 's' };
    await using data = await JsonlDataset.open(await write(JSON.stringify(record)), { format: 'problem' });
    expect(await data.row(0)).toMatchObject({ prompt: 'p', solution: 's', meta: { question: 'q' } });
  });

  it('counts the marks of both candidates, and gives candidates ids', async () => {
    const bad = { first: { prompt: 'p' }, second: { prompt: '<image>', images: [] }, preference: 'first' };
    await expect(JsonlPairs.open(await write(JSON.stringify(bad)))).rejects.toMatchObject({
      fields: { line: 1, reason: 'second: 1 "<image>" marks in the prompt but 0 images' },
    });
    const path = await write(JSON.stringify({ id: 'a', prompt: 'p', chosen: 'x', rejected: 'y' }));
    await using pairs = await JsonlPairs.open(path);
    const pair = await pairs.pair(0);
    expect([pair.id, pair.first.id, pair.second.id]).toEqual(['a', 'a/1', 'a/2']);
    await expect(JsonlDataset.open(path)).rejects.toMatchObject({
      code: 'bad_data',
      message: expect.stringContaining('openPairs') as string,
      fields: { format: 'trl-preference' },
    });
  });

  it("reads TabMWP's object keyed by problem numbers, in lines, errors and skips", async () => {
    const problem = (question: string, answer: unknown): object => ({ question, choices: null, answer, unit: '$' });
    const text = JSON.stringify(
      { 1: problem('One?', '1'), 2: problem('Two {"}?', '2,000'), 7: problem('Seven?', null) },
      null,
      1,
    );
    const path = await write(text);
    await expect(JsonlDataset.open(path, { checkMedia: false })).rejects.toMatchObject({
      fields: { line: 14, reason: expect.stringContaining('answer') as string },
    });
    await using data = await JsonlDataset.open(path, { onBadRow: 'skip', checkMedia: false });
    expect([data.size, data.numSkipped]).toEqual([2, 1]);
    expect(await data.row(1)).toMatchObject({
      id: '2',
      prompt: '<image>Two {"}? (Unit: $)',
      solution: '2,000',
      images: [{ path: join(folder, 'tables/2.png') }],
    });
    const named = await write(JSON.stringify({ first: problem('One?', '1') }));
    await using other = await JsonlDataset.open(named, { format: 'tabmwp', checkMedia: false });
    expect((await other.row(0)).id).toBe('first');
    await expect(JsonlDataset.open(await write(text.slice(0, -2)))).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('puts an instruction below the last question', async () => {
    const rows = [
      { imgname: 'a.png', query: 'How many?', label: '3' },
      {
        messages: [
          { role: 'user', content: [{ type: 'text', text: 'a' }] },
          { role: 'assistant', content: 'b' },
        ],
      },
      {
        messages: [
          { role: 'user', content: 'c' },
          { role: 'assistant', content: 'd' },
          { role: 'user', content: 'e' },
        ],
      },
    ];
    await using data = await JsonlDataset.open(await write(JSON.stringify(rows)), {
      instruction: 'Think.',
      checkMedia: false,
    });
    // All on one line: ids stay distinct.
    expect((await data.row(2)).id).toMatch(/:1#3$/);
    expect((await data.row(0)).prompt).toBe('<image>How many?\nThink.');
    expect((await data.row(1)).prompt).toEqual([
      {
        role: 'user',
        content: [
          { type: 'text', text: 'a' },
          { type: 'text', text: '\nThink.' },
        ],
      },
    ]);
    expect((await data.row(2)).prompt).toMatchObject([{ content: 'c' }, { content: 'd' }, { content: 'e\nThink.' }]);
  });
});
