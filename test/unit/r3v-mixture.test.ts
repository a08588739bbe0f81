/** The rows of R3V's mixture, from a marked pool in memory. */
import { describe, expect, it } from 'vitest';
import { datasetFromRows } from '../../src/data/dataset.js';
import type { Row } from '../../src/data/rows.js';
import { r3vMixture, type MixtureParts } from '../../src/recipes/r3v-mixture.js';
import { r3vPrompts } from '../../src/recipes/r3v-prompts.js';
import { SamplePool } from '../../src/runs/sample-pool.js';

const question = (id: string): Row => ({ id, prompt: `How many in ${id}?`, images: [], solution: '100' });
const sampleOf = (item: string, sample: number, correct: boolean, answer: string | null) => ({
  ...{ item, checkpoint: 'w', sample, seed: 0, temperature: 1, recency: 1, text: `${item}${sample} says ${answer}` },
  ...{ numTokens: 1, finishReason: 'stop' as const, rewards: {}, answer, correct },
});

function poolOf(...records: ReturnType<typeof sampleOf>[]): SamplePool {
  const pool = SamplePool.inMemory();
  for (const record of records) pool.add(record);
  return pool;
}

const ones = { direct: 1, warmUp: 1, selfCot: 1, refine: 1, selectA: 1, selectB: 1 };
const pool = poolOf(
  sampleOf('a', 0, true, '104'),
  sampleOf('a', 1, true, '99'),
  sampleOf('a', 2, true, '103'),
  sampleOf('a', 3, false, '7'),
);
const parts = (overrides: Partial<MixtureParts> = {}): MixtureParts => ({
  name: 'mixture',
  data: datasetFromRows('d', [question('a'), question('b')]),
  warmUp: datasetFromRows('w', [{ ...question('w1'), completion: '<think>so</think><answer>100</answer>' }]),
  direct: true,
  prompts: r3vPrompts(),
  pool,
  weights: ['w'],
  selectTarget: 'gold',
  kindWeights: ones,
  candidates: 3,
  refine: true,
  select: true,
  seed: 0,
  signal: new AbortController().signal,
  ...overrides,
});

async function rowsOf(mixture: MixtureParts): Promise<Map<string, Row>> {
  const { data } = await r3vMixture(mixture);
  const rows = await Promise.all(Array.from({ length: data!.size }, (_, index) => data!.row(index)));
  return new Map(rows.map((row) => [row.id, row]));
}

describe('rows of the mixture', () => {
  it('are made of the samples each item names', async () => {
    const rows = await rowsOf(parts());
    expect([...rows.keys()].sort()).toEqual(
      ['a direct', 'a refine', 'a selectA', 'a selfCot', 'b direct', 'w1 warmUp'].sort(),
    );
    expect(rows.get('a direct')!.completion).toBe('<answer>100</answer>');
    expect(rows.get('w1 warmUp')!.completion).toBe('<think>so</think><answer>100</answer>');
    expect(rows.get('a selfCot')!.completion).toBe('a2 says 103');
    expect(rows.get('a refine')).toMatchObject({
      prompt: expect.stringContaining('a3 says 7') as string,
      completion: 'a2 says 103',
    });
    const select = rows.get('a selectA')!;
    for (const text of ['a1 says 99', 'a2 says 103', 'a3 says 7']) expect(select.prompt).toContain(text);
    expect(select.prompt).not.toContain('a0 says');
    expect(select.completion).toBe('<answer>100</answer>');
  });

  it('a select item says the answer of its chosen correct sample on demand', async () => {
    const rows = await rowsOf(parts({ selectTarget: 'sample' }));
    expect(rows.get('a selectA')!.completion).toBe('<answer>99</answer>');
    const mute = poolOf(sampleOf('a', 0, true, null), sampleOf('a', 1, true, '100'), sampleOf('a', 2, false, '7'));
    await expect(rowsOf(parts({ selectTarget: 'sample', pool: mute }))).rejects.toMatchObject({ code: 'bad_data' });
  });

  it('counts say how often each kind stands there; weights are copies and seeded shares', async () => {
    const questions = Array.from({ length: 400 }, (_, i) => question(`q${i}`));
    const many = parts({
      data: datasetFromRows('d', questions),
      warmUp: undefined,
      pool: poolOf(...questions.map(({ id }) => sampleOf(id, 0, true, '100'))),
    });
    expect((await r3vMixture(many)).counts).toEqual({
      ...ones,
      direct: 400,
      warmUp: 0,
      selfCot: 400,
      refine: 0,
      selectA: 0,
      selectB: 0,
    });
    const weighted = { ...many, kindWeights: { ...ones, direct: 0.25, selfCot: 2.5 } };
    const { counts, data } = await r3vMixture(weighted);
    expect(counts.direct).toBeGreaterThan(70);
    expect(counts.direct).toBeLessThan(130);
    expect(counts.selfCot).toBeGreaterThan(940);
    expect(counts.selfCot).toBeLessThan(1060);
    expect(data!.size).toBe(counts.direct + counts.selfCot);
    expect((await r3vMixture(weighted)).data!.fingerprint).toBe(data!.fingerprint);
    expect((await r3vMixture({ ...weighted, seed: 1 })).data!.fingerprint).not.toBe(data!.fingerprint);
    expect(new Set((await rowsOf(weighted)).keys()).size).toBe(data!.size);
  });

  it('nothing to train on is no data set; a warm-up row without rationale is bad data', async () => {
    const empty = await r3vMixture(parts({ warmUp: undefined, direct: false, weights: [] }));
    expect(empty.data).toBeUndefined();
    const bare = parts({ warmUp: datasetFromRows('w', [question('w1')]) });
    await expect(rowsOf(bare)).rejects.toMatchObject({ code: 'bad_data', fields: { id: 'w1' } });
  });
});
