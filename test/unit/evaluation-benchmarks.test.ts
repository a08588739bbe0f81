/** Benchmark loaders on small files of the published forms, and on files that do not fit. */
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parquetRows } from '../../src/data/parquet-rows.js';
import { checkImageCount } from '../../src/data/rows.js';
import { headlinesOf } from '../../src/evaluation/benchmarks/headlines.js';
import { defaultTemplates, judgeRow } from '../../src/evaluation/benchmarks/judge-prompt.js';
import { benchmarkByName, benchmarkNames, loadBenchmark } from '../../src/evaluation/benchmarks/load.js';
import { vlRewardBenchGroup } from '../../src/evaluation/benchmarks/vl-reward-bench.js';
import { parseJudgement, type Judgement } from '../../src/evaluation/judgement.js';

const pixel = 'iVBORw0KGgo=';
const inline = { bytes: pixel, path: 'x.png' };

/** Files by name in a new folder. */
async function filesOf(files: Record<string, unknown>): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-benchmark-'));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    const lines = Array.isArray(content) && name.endsWith('.jsonl');
    await writeFile(
      join(folder, name),
      lines ? content.map((row) => JSON.stringify(row)).join('\n') : JSON.stringify(content),
    );
  }
  return folder;
}

const textOf = (prompt: unknown): string =>
  (prompt as { content: { type: string; text?: string }[] }[])[0]!.content
    .map(({ type, text }) => (type === 'text' ? text : `[${type}]`))
    .join('');

const judged = (item: string, subsets: Record<string, string>, correct: boolean, over: Partial<Judgement> = {}) =>
  parseJudgement(
    {
      item,
      subsets,
      correct,
      gold: 'g',
      goldChoice: 'first',
      answer: 'a',
      choice: correct ? 'first' : 'second',
      ...over,
    },
    'a test',
  );

describe('names', () => {
  it('are known, and another is refused, saying whose EditReward-Bench', () => {
    expect(benchmarkNames).toHaveLength(5);
    for (const name of benchmarkNames) expect(benchmarkByName(name).name).toBe(name);
    expect(() => benchmarkByName('edit-reward-bench')).toThrow(/Two benchmarks are called EditReward-Bench/);
    expect(() => benchmarkByName('coco')).toThrow(expect.objectContaining({ code: 'invalid_config' }));
  });
});

describe('VLRewardBench', () => {
  const row = (id: string, over = {}) => ({
    id,
    query: 'How many <image> cats?',
    response: ['Two.', 'Three.'],
    image: `images/${id}.png`,
    human_ranking: [0, 1],
    ...over,
  });

  it.each([
    ['RLAIF-V-82592', 'rlaif-v', 'hallucination'],
    ['RLHF-V-5665', 'rlhf-v', 'hallucination'],
    ['hallucination_pair-1003', 'povid', 'hallucination'],
    ['mathverse_2028', 'reasoning_tasks', 'reasoning'],
    ['mmmu_pro_test_Computer_Science_334', 'reasoning_tasks', 'reasoning'],
    ['wildvision-battle-6481', 'wildvision-battle', 'general'],
    ['svit-complex_reasoning-876', 'vlfeedback', 'general'],
    ['LRVInstruction-000000007746', 'vlfeedback', 'general'],
  ])('%s is of %s, %s', (id, source, group) => expect(vlRewardBenchGroup(id)).toEqual({ source, group }));

  it('is asked in both orders, with and without chain of thought', async () => {
    const folder = await filesOf({
      'test.jsonl': [row('mmmu_1'), row('svit-2', { human_ranking: [1, 0], image: inline })],
    });
    const set = await loadBenchmark('vl-reward-bench', join(folder, 'test.jsonl'), { direct: true });
    expect(set).toMatchObject({ size: 2, numTiesSkipped: 0 });
    const item = await set.item(0);
    expect(item).toMatchObject({ goldChoice: 'first', isSwapped: false, subsets: { group: 'reasoning' } });
    expect(item.row).toMatchObject({ id: 'mmmu_1', solution: 'Answer 1 is better' });
    expect(item.row.images).toEqual([{ path: join(folder, 'images/mmmu_1.png') }]);
    expect(item.swapped!.solution).toBe('Answer 2 is better');
    expect(item.directSwapped!.solution).toBe('Answer 2 is better');
    // What the question says is text, whatever it says.
    expect(textOf(item.row.prompt)).toContain(
      '[image]\nQuestion: How many <image> cats?\n\nAnswer 1:\nTwo.\n\nAnswer 2:\nThree.',
    );
    expect(textOf(item.swapped!.prompt)).toContain('Answer 1:\nThree.\n\nAnswer 2:\nTwo.');
    expect(textOf(item.direct!.prompt)).toContain('without reasoning');
    for (const asked of [item.row, item.swapped!, item.direct!, item.directSwapped!]) checkImageCount(asked);
    const second = await set.item(1);
    expect(second).toMatchObject({ goldChoice: 'second', row: { solution: 'Answer 2 is better' } });
    expect(second.row.images).toEqual([{ bytes: new Uint8Array(Buffer.from(pixel, 'base64')) }]);
  });

  it('numbers the pairs that its file gives one id', async () => {
    const folder = await filesOf({
      'a.jsonl': [row('mathverse_1'), row('mathverse_1', { query: 'Why?' }), row('mathverse_1')],
    });
    const set = await loadBenchmark('vl-reward-bench', folder);
    const items = await Promise.all([0, 1, 2].map((i) => set.item(i)));
    expect(items.map((item) => item.row.id)).toEqual(['mathverse_1', 'mathverse_1 #2', 'mathverse_1 #3']);
    expect(items.map(({ subsets }) => subsets['group'])).toEqual(['reasoning', 'reasoning', 'reasoning']);
  });

  it('reports groups, overall and macro', () => {
    const benchmark = benchmarkByName('vl-reward-bench');
    const marks = [
      ['general', true],
      ['hallucination', true],
      ['hallucination', true],
      ['hallucination', false],
      ['reasoning', false],
    ] as const;
    const judgements = marks.map(([group, correct], i) => judged(`i${i}`, { group }, correct));
    expect(headlinesOf(benchmark, judgements)).toEqual([
      { name: 'general', value: 1 },
      { name: 'hallucination', value: 2 / 3 },
      { name: 'reasoning', value: 0 },
      { name: 'overall', value: 3 / 5 },
      { name: 'macro', value: (1 + 2 / 3 + 0) / 3 },
    ]);
    expect(headlinesOf(benchmark, judgements.slice(0, 1)).at(-1)).toEqual({ name: 'macro', value: null });
  });

  it('with one order takes the order of a coin', async () => {
    const rows = Array.from({ length: 200 }, (_, i) => row(`mmmu_${i}`));
    const folder = await filesOf({ 'test.json': rows });
    const set = await loadBenchmark('vl-reward-bench', folder, { bothOrders: false, seed: 3 });
    const items = await Promise.all(rows.map((_, i) => set.item(i)));
    const swapped = items.filter(({ isSwapped }) => isSwapped);
    expect(swapped.length).toBeGreaterThan(70);
    expect(swapped.length).toBeLessThan(130);
    expect(swapped[0]).toMatchObject({ goldChoice: 'second', row: { solution: 'Answer 2 is better' } });
    expect(swapped[0]!.swapped).toBeUndefined();
  });

  it.each([
    ['a missing column', { query: undefined }, /column "query" at test\.jsonl:1 but received only id, response/],
    ['one response', { response: ['a'] }, /two texts in column "response"/],
    ['an odd ranking', { human_ranking: [1, 1] }, /\[0, 1\] or \[1, 0\]/],
    ['a picture outside', { image: '../x.png' }, /a path below/],
    ['a picture elsewhere', { image: 'https://x/y.png' }, /a path below/],
    ['no picture', { image: { width: 3 } }, /a picture/],
  ])('refuses %s', async (_, over, message) => {
    const folder = await filesOf({ 'test.jsonl': [row('mmmu_1', over)] });
    const load = loadBenchmark('vl-reward-bench', folder);
    await expect(load).rejects.toMatchObject({ code: 'bad_data' });
    await expect(load).rejects.toThrow(message);
  });

  it('refuses two of one id, an empty folder, a missing file, other kinds, no JSON', async () => {
    const load = (path: string) => loadBenchmark('vl-reward-bench', path);
    const empty = { response_content: [] };
    const pair = { id: 'p', prompt_content: [], response_a: empty, response_b: empty, chosen: 'A' };
    const twice = await filesOf({ 't2i.json': { pairs: [pair] }, 't2i.jsonl': [pair] });
    await expect(loadBenchmark('mmrb2', twice)).rejects.toThrow(/"t2i p" twice/);
    await expect(load(await filesOf({}))).rejects.toMatchObject({ code: 'bad_data' });
    await expect(load(join(await filesOf({}), 'none.jsonl'))).rejects.toMatchObject({ code: 'io' });
    await expect(load(join(await filesOf({ 'a.csv': 1 }), 'a.csv'))).rejects.toMatchObject({ code: 'unsupported' });
    await expect(load(join(await filesOf({ 'a.parquet': 1 }), 'a.parquet'))).rejects.toMatchObject({
      code: 'bad_data',
      message: expect.stringMatching(/^Expected a Parquet file at ".*a\.parquet" but received: /) as string,
    });
    await expect(load(await filesOf({ 'a.jsonl': [7] }))).rejects.toThrow(/a\.jsonl:1/);
    const broken = await filesOf({ 'a.jsonl': [row('a_1')] });
    await writeFile(join(broken, 'a.jsonl'), '{"id": ');
    await expect(load(broken)).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('takes rows of a Parquet reader that is plugged in', async () => {
    const folder = await filesOf({ 'test.parquet': 0 });
    async function* parquet() {
      yield row('mmmu_1', { image: { bytes: new Uint8Array([1]) }, human_ranking: new BigInt64Array([1n, 0n]) });
    }
    const set = await loadBenchmark('vl-reward-bench', folder, { parquet });
    expect(await set.item(0)).toMatchObject({
      goldChoice: 'second',
      row: { images: [{ bytes: new Uint8Array([1]) }] },
    });
  });
});

describe('Parquet files as the hub publishes them', () => {
  const published = (name: string): string => join(import.meta.dirname, '../goldens/data/benchmarks', name);
  const sha256 = (image: unknown): string =>
    createHash('sha256')
      .update((image as { bytes: Uint8Array }).bytes)
      .digest('hex');

  it('give the pairs, pictures and ids that the same rows give as JSON Lines', async () => {
    const folder = published('vl-reward-bench');
    const set = await loadBenchmark('vl-reward-bench', folder);
    expect(set).toMatchObject({ size: 5, numTiesSkipped: 0 });
    const items = await Promise.all(Array.from({ length: set.size }, (_, i) => set.item(i)));
    expect(items.map(({ row, goldChoice, subsets }) => [row.id, goldChoice, subsets['group']])).toEqual([
      ['mmmu_1', 'first', 'reasoning'],
      ['svit-2', 'second', 'general'],
      ['RLHF-V-3', 'first', 'hallucination'],
      ['RLHF-V-3 #2', 'second', 'hallucination'],
      ['wildvision-battle-5', 'first', 'general'],
    ]);
    // The same again as lines, the pictures as base64.
    const rows: Record<string, unknown>[] = [];
    for await (const values of parquetRows(join(folder, 'data/test-00000-of-00001.parquet'))) rows.push(values);
    expect(rows.map(({ id, human_ranking: ranking, judge }) => [id, ranking, judge])[1]).toEqual([
      'svit-2',
      [1, 0],
      undefined,
    ]);
    const lines = rows.map((values) => ({
      ...values,
      image: { bytes: Buffer.from(values['image'] as Uint8Array).toString('base64') },
    }));
    const fromLines = await loadBenchmark('vl-reward-bench', await filesOf({ 'test.jsonl': lines }));
    for (const [i, item] of items.entries()) {
      const other = await fromLines.item(i);
      expect(other.row.prompt).toEqual(item.row.prompt);
      expect(other.row.images.map(sha256)).toEqual(item.row.images.map(sha256));
    }
    expect(fromLines.fingerprint).toBe(set.fingerprint);
    expect(new Set(items.map(({ row }) => sha256(row.images[0]))).size).toBe(5);
    expect(textOf(items[0]!.row.prompt)).toContain('How many, 0? 日本\n\nAnswer 1:\nTwo.\n\nAnswer 2:\nThree 0.');
  });

  it('may hold lists of pictures, and names of classes', async () => {
    const set = await loadBenchmark('edit-reward-bench-editscore', published('edit-reward-bench-editscore'));
    expect(set.size).toBe(2);
    const { row, subsets } = await set.item(0);
    expect([row.id, subsets]).toEqual([
      'color_alter consistency 0a 0b',
      { dimension: 'consistency', task: 'color_alter', group: 'appearance' },
    ]);
    expect(new Set(row.images.map(sha256)).size).toBe(3);
  });

  it('of another benchmark are refused by row and column', async () => {
    await expect(loadBenchmark('genai-bench', published('vl-reward-bench'))).rejects.toMatchObject({
      code: 'bad_data',
      fields: { place: 'test-00000-of-00001.parquet:1' },
    });
  });

  it('that are cut off are refused, and an abort ends the reading', async () => {
    const folder = await filesOf({});
    const whole = await readFile(join(published('vl-reward-bench'), 'data/test-00000-of-00001.parquet'));
    await writeFile(join(folder, 'test.parquet'), whole.subarray(0, -20));
    await expect(loadBenchmark('vl-reward-bench', folder)).rejects.toMatchObject({ code: 'bad_data' });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(loadBenchmark('vl-reward-bench', published('vl-reward-bench'), { signal })).rejects.toThrow('enough');
    await expect(parquetRows(join(folder, 'none.parquet')).next()).rejects.toMatchObject({ code: 'io' });
  });
});

describe('MMRB2', () => {
  const built = {
    id: 'p1',
    prompt_source: 'blink',
    prompt_content: [
      ['text', 'Draw a cat'],
      ['image', 'input_images/a.png'],
    ],
    response_a: {
      response_content: [
        ['image', 'images/a.jpg'],
        ['text', 'a cat'],
      ],
    },
    response_b: { response_content: [['text', 'no cat']] },
    chosen: 'B',
  };
  const hub = {
    pair_id: 'p2',
    prompt_text: 'Look <image_0> and <image_1>.',
    prompt_images: [inline, inline],
    response_a_text: 'one',
    response_a_images: [],
    response_b_text: '',
    response_b_images: [inline],
    chosen: 'a',
    prompt_source: 'muirbench',
  };

  it('reads both published forms; the file or its folder names the task', async () => {
    const folder = await filesOf({
      'edit.json': { pairs: [built] },
      'reasoning/test-0.jsonl': [hub],
      'other.json': [],
    });
    const set = await loadBenchmark('mmrb2', folder);
    expect(set.size).toBe(2);
    const first = await set.item(0);
    expect(first).toMatchObject({ goldChoice: 'second', subsets: { task: 'edit', source: 'blink' } });
    expect(first.row.id).toBe('edit p1');
    expect(textOf(first.row.prompt)).toContain('Draw a cat[image]\n\nAnswer 1:\n[image]a cat\n\nAnswer 2:\nno cat');
    const second = await set.item(1);
    expect(second).toMatchObject({ goldChoice: 'first', subsets: { task: 'reasoning' } });
    expect(textOf(second.row.prompt)).toContain('Look[image]and[image].');
    checkImageCount(second.row);
  });

  it('counts parsed judgements of both orders, as its authors do', () => {
    const judgements = [
      judged('a', { task: 't2i' }, true),
      judged('a', { task: 't2i' }, false, { order: 'swapped' }),
      judged('b', { task: 't2i' }, false, { answer: null, choice: null }),
      judged('c', { task: 'edit' }, true),
    ];
    expect(headlinesOf(benchmarkByName('mmrb2'), judgements)).toEqual([
      { name: 't2i', value: 1 / 2 },
      { name: 'edit', value: 1 },
      { name: 'interleaved', value: null },
      { name: 'reasoning', value: null },
      { name: 'overall', value: 2 / 3 },
    ]);
  });

  it('refuses an unknown file name, a file without pairs, an unknown choice, places without pictures', async () => {
    const load = async (files: Record<string, unknown>, name: string) =>
      loadBenchmark('mmrb2', join(await filesOf(files), name));
    await expect(load({ 'x.json': { pairs: [built] } }, 'x.json')).rejects.toThrow(/Its name tells the task/);
    await expect(load({ 't2i.json': { rows: [] } }, 't2i.json')).rejects.toThrow(/list "pairs"/);
    await expect(load({ 't2i.json': { pairs: [{ ...built, chosen: 'C' }] } }, 't2i.json')).rejects.toThrow(/A or B/);
    await expect(load({ 't2i.jsonl': [{ ...hub, prompt_images: [inline] }] }, 't2i.jsonl')).rejects.toThrow(
      /2 pictures/,
    );
    await expect(load({ 't2i.jsonl': [{ ...built, response_b: undefined }] }, 't2i.jsonl')).rejects.toThrow(
      /"response_b"/,
    );
  });
});

describe('EditReward-Bench of EditScore', () => {
  const row = {
    key: ['k1', 'k2'],
    instruction: 'Make it red',
    input_image: inline,
    output_images: [inline, 'b.png'],
    task_type: 'color_alter',
    dimension: 'consistency',
  };

  it('prefers the first output and asks for one dimension', async () => {
    const set = await loadBenchmark('edit-reward-bench-editscore', await filesOf({ 'a.jsonl': [row] }));
    const item = await set.item(0);
    expect(item).toMatchObject({
      goldChoice: 'first',
      subsets: { dimension: 'consistency', task: 'color_alter', group: 'appearance' },
    });
    expect(item.row.images).toHaveLength(3);
    expect(textOf(item.row.prompt)).toContain('Judge only how well everything');
  });

  it('averages a dimension over task types, a group over its task types', () => {
    const of = (item: string, task: string, correct: boolean) => judged(item, { dimension: 'overall', task }, correct);
    const judgements = [
      of('a', 'subject-add', true),
      of('b', 'subject-add', true),
      of('c', 'subject-add', true),
      of('d', 'subject-remove', false),
      of('e', 'extract', true),
    ];
    const values = Object.fromEntries(
      headlinesOf(benchmarkByName('edit-reward-bench-editscore'), judgements).map(({ name, value }) => [name, value]),
    );
    expect(values).toMatchObject({
      overall: 2 / 3,
      'overall object': 1 / 2,
      'overall scene': 1,
      'overall advanced': null,
    });
    expect(values['prompt_following']).toBeNull();
  });

  it('refuses rows of the other EditReward-Bench and unknown task types', async () => {
    const load = async (over: object) =>
      loadBenchmark('edit-reward-bench-editscore', await filesOf({ 'a.jsonl': [over] }));
    await expect(load({ id: 'x', dataset: '2pair', ranking: 'A>B' })).rejects.toThrow(/column "key"/);
    await expect(load({ ...row, task_type: 'fold' })).rejects.toThrow(/one of subject-add/);
  });
});

describe('EditReward-Bench of TIGER-Lab', () => {
  const hub = (over: object) => ({
    id: 'ab_0',
    dataset: '2pair',
    instruction: 'Make it red',
    source_image: inline,
    candidate_1: inline,
    candidate_2: inline,
    ranking: 'A>B',
    ...over,
  });
  const name = 'edit-reward-bench-tiger';

  it.each([
    [{}, 'first'],
    [{ ranking: 'B>A' }, 'second'],
    [{ ranking: 'A<B' }, 'second'],
    [{ ranking: 'A=B' }, 'tie'],
    [{ ranking: 'A=B=Good' }, 'tie'],
    [{ dataset: '3pair', comparison_type: 'BvsC', ranking: 'C>B' }, 'second'],
    [{ dataset: '4pair', comparison_type: 'AvsD', ranking: 'A>D' }, 'first'],
  ])('of a comparison %j is %s', async (over, goldChoice) => {
    const set = await loadBenchmark(name, await filesOf({ 'a.jsonl': [hub(over)] }), { ties: 'ask' });
    expect(await set.item(0)).toMatchObject({ goldChoice });
  });

  it('of a ranking is every pair, in one cluster', async () => {
    const row = {
      prompt: 'Make it red',
      path_src: 's.png',
      paths_generated: ['a.png', 'b.png', 'c.png'],
      human_vote: { ranking: 'C>A>B' },
    };
    const set = await loadBenchmark(name, await filesOf({ 'EditReward_Bench_3pair.json': [row] }));
    const items = await Promise.all([0, 1, 2].map((i) => set.item(i)));
    expect(items.map(({ goldChoice }) => goldChoice)).toEqual(['first', 'second', 'second']);
    expect(new Set(items.map(({ cluster }) => cluster)).size).toBe(1);
    expect(items[0]!.subsets).toEqual({ size: '3pair' });
    expect(items[2]!.row.images.map((image) => 'path' in image && image.path.slice(-5))).toEqual([
      's.png',
      'b.png',
      'c.png',
    ]);
  });

  it('leaves gold ties out and counts them, or offers the judge a tie', async () => {
    const folder = await filesOf({ 'a.jsonl': [hub({}), hub({ id: 'ac_0', ranking: 'A=B' })] });
    expect(await loadBenchmark(name, folder)).toMatchObject({ size: 1, numTiesSkipped: 1 });
    const asked = await loadBenchmark(name, folder, { ties: 'ask' });
    expect(asked).toMatchObject({ size: 2, numTiesSkipped: 0 });
    const tie = await asked.item(1);
    expect([tie.row.solution, tie.swapped!.solution, tie.goldChoice]).toEqual(['Tie', 'Tie', 'tie']);
    expect(textOf(tie.row.prompt)).toContain('"Image 1 is better", "Image 2 is better", "Tie"');
  });

  it('counts a ranking when all its comparisons are right', () => {
    const of = (item: string, cluster: string, correct: boolean) =>
      judged(item, { size: '3pair' }, correct, { cluster });
    const judgements = [
      of('a', '1', true),
      of('b', '1', true),
      of('c', '2', true),
      of('d', '2', false),
      judged('e', { size: '2pair' }, true, { goldChoice: 'tie', choice: 'tie' }),
    ];
    expect(headlinesOf(benchmarkByName(name), judgements)).toEqual([
      { name: '2-pair, accuracy with ties', value: 1 },
      { name: '3-pair, all comparisons right', value: 1 / 2 },
      { name: '4-pair, all comparisons right', value: null },
      { name: 'single comparisons', value: 4 / 5 },
    ]);
    // With ties left out, no number is called one with ties.
    const strict = judged('f', { size: '2pair' }, true, { goldChoice: 'first', choice: 'first' });
    expect(headlinesOf(benchmarkByName(name), [strict])[0]).toEqual({ name: '2-pair, without ties', value: 1 });
  });

  it.each([
    [hub({ dataset: '5pair' }), /one of 2pair/],
    [hub({ ranking: 'left' }), /letters with/],
    [hub({ ranking: 'A>C' }), /a ranking of A and B/],
    [hub({ comparison_type: 'AB' }), /two letters/],
    [{ prompt: 'x', path_src: 's.png', paths_generated: ['a.png'], human_vote: { ranking: 'A' } }, /2 to 4 paths/],
    [{ prompt: 'x', path_src: 's.png', paths_generated: ['a.png', 'b.png'], human_vote: {} }, /human_vote\.ranking/],
    [{ prompt: 'x', path_src: 's', paths_generated: ['a', 'b', 'c'], human_vote: { ranking: 'A=B>C' } }, /by > alone/],
  ])('refuses %j', async (row, message) => {
    await expect(loadBenchmark(name, await filesOf({ 'a.jsonl': [row] }))).rejects.toThrow(message);
  });
});

describe('GenAI-Bench', () => {
  const rows = [
    { prompt: 'a cat', left_image: inline, right_image: 'r.png', vote_type: 'leftvote' },
    {
      instruct_prompt: 'make it red',
      source_image: inline,
      left_output_image: inline,
      right_output_image: inline,
      vote_type: 'rightvote',
    },
    { id: 0, prompt: 'a dog runs', video_left: 'l.mp4', video_right: 'r.mp4', vote_type: 'tievote' },
    { prompt: 'a dog runs', left_video: 'l.mp4', right_video: 'r.mp4', vote_type: 'bothbad_vote' },
  ];

  it('tells its tasks by their columns', async () => {
    const set = await loadBenchmark('genai-bench', await filesOf({ 'a.jsonl': rows }), { ties: 'ask' });
    const items = await Promise.all(rows.map((_, i) => set.item(i)));
    expect(items.map(({ subsets, goldChoice }) => [subsets['task'], goldChoice])).toEqual([
      ['image_generation', 'first'],
      ['image_edition', 'second'],
      ['video_generation', 'tie'],
      ['video_generation', 'tie'],
    ]);
    expect(items[2]!.row.videos).toHaveLength(2);
    for (const { row } of items) checkImageCount(row);
    expect(await loadBenchmark('genai-bench', await filesOf({ 'a.jsonl': rows }))).toMatchObject({
      size: 2,
      numTiesSkipped: 2,
    });
  });

  it('reports each task with and without ties', () => {
    const task = 'image_edition';
    const judgements = [
      judged('a', { task }, true),
      judged('b', { task }, false, { choice: 'tie' }),
      judged('c', { task }, true, { goldChoice: 'tie', choice: 'tie' }),
    ];
    expect(headlinesOf(benchmarkByName('genai-bench'), judgements)).toEqual([
      { name: 'image_generation, without ties', value: null },
      { name: 'image_edition, without ties', value: 1 / 2 },
      { name: 'image_edition, with ties (3 labels)', value: 2 / 3 },
      { name: 'video_generation, without ties', value: null },
    ]);
  });

  it('refuses an unknown vote and a row of no task', async () => {
    const load = async (row: object) => loadBenchmark('genai-bench', await filesOf({ 'a.jsonl': [row] }));
    await expect(load({ ...rows[0], vote_type: 'left' })).rejects.toThrow(/one of leftvote/);
    await expect(load({ prompt: 'x', vote_type: 'leftvote' })).rejects.toThrow(/column "left_image"/);
  });
});

describe('templates', () => {
  it('fill their slots, and what fills one is not filled again', () => {
    const pair = {
      noun: 'Answer',
      context: [{ text: '{first}' }],
      first: [{ text: 'a {second}' }],
      second: [{ text: 'b' }],
    } as const;
    const row = judgeRow('i', pair, {
      template: '{noun}: {context} {second} {first}',
      gold: 'second',
      hasTies: false,
      swapped: false,
    });
    expect(textOf(row.prompt)).toBe('Answer: {first} b a {second}');
    expect(row).toMatchObject({ solution: 'Answer 2 is better', images: [] });
  });

  it('without a slot, or with one twice, are refused', async () => {
    const folder = await filesOf({ 'a.jsonl': [] });
    const load = (templates: object) => loadBenchmark('genai-bench', folder, { templates });
    await expect(load({ reasoned: '{context} {first}' })).rejects.toMatchObject({ code: 'invalid_config' });
    await expect(load({ direct: `${defaultTemplates.direct}{first}` })).rejects.toThrow(/2 times/);
  });
});
