// What the benchmarks' numbers rest on: goals, formulas of work, pairs of measurements, and stacks of a profile.
import { describe, expect, it, vi } from 'vitest';
import { decodeBytes, matrixParameters, trainFlop, updateFlop, workloads } from '../../bench/engine/shapes.mjs';
import { flameGraph } from '../../bench/flame-graph.mjs';
import { goalOf, met, rowsOf, unmeasured } from '../../bench/goals.mjs';
import { interleave, Session } from '../../bench/session.mjs';
import { foldStacks } from '../../bench/stacks.mjs';
import { clockOf, compare } from '../../bench/statistics.mjs';

describe('goals', () => {
  const row = (workload: string, peer: string | undefined, dtype: string): any => ({ workload, peer, dtype });

  it('go by workload, peer, dtype and rows at once', () => {
    expect(goalOf(row('grpo_step', 'TRL', 'fp32'))).toEqual({ goal: 3.5 });
    expect(goalOf(row('grpo_step', 'lean-prefix', 'fp32'))).toEqual({});
    expect(goalOf(row('decode', 'llama.cpp', 'bf16'), { rows: 64 })).toEqual({ goal: 2 });
    expect(goalOf(row('decode', 'llama.cpp', 'bf16'), { rows: 1 })).toEqual({ goal: 0.95 });
    expect(goalOf(row('train_step', undefined, 'bf16'))).toEqual({ goal: 0.8, goalOf: 'share' });
    expect(goalOf(row('train_step', 'torch', 'bf16'))).toEqual({ goal: 1.25 });
    const head = row('head_logprob extra memory', 'torch log_softmax', 'fp32');
    expect(goalOf(head, { goal: true, calls: 2 })).toEqual({ goal: 16, goalOf: 'most' });
    expect(goalOf(head, { calls: 2 })).toEqual({});
  });

  it('are met from the right side', () => {
    expect([met({ ratio: 2, goal: 2 }), met({ ratio: 1.99, goal: 2 }), met({ goal: 2 })]).toEqual([true, false, false]);
    expect([
      met({ shareOfLimit: 0.8, goal: 0.8, goalOf: 'share' }),
      met({ value: 17, goal: 16, goalOf: 'most' }),
    ]).toEqual([true, false]);
  });

  it('that nobody measured are named by case and threads', () => {
    const one = { row: { workload: 'decode', shape: 'one' }, about: { rows: 1 } };
    const many = { row: { workload: 'decode', shape: 'many' }, about: { rows: 64 } };
    const measured = (shape: string, peer: string, dtype: string, threads: number): object => ({
      ...{ workload: 'decode', shape, peer, dtype, threads, goal: 4 },
    });
    const rows = [
      measured('many', 'transformers generate', 'fp32', 1),
      measured('many', 'transformers generate', 'bf16', 1),
      measured('many', 'transformers generate', 'bf16', 2),
      measured('one', 'llama.cpp', 'bf16', 1),
    ];
    const found = unmeasured(rows, [one, many]).map(([row, threads]: any) => [row.shape, row.peer, row.dtype, threads]);
    expect(found).toEqual([
      ['many', 'transformers generate', 'fp32', [2]],
      ['many', 'llama.cpp', 'bf16', [2]],
      ['one', 'llama.cpp', 'bf16', [2]],
    ]);
  });

  it('cover every workload of an engine', () => {
    const peers = ['torch', 'TRL', 'transformers generate', 'llama.cpp', 'transformers'];
    for (const sizes of workloads) {
      const found = peers.map((peer) => goalOf(row(sizes.name, peer, 'bf16'), { rows: rowsOf(sizes) }));
      expect(found.filter(({ goal }: any) => goal !== undefined).length, sizes.name).toBeGreaterThan(0);
    }
  });
});

describe('formulas of work', () => {
  it('count 6 operations a parameter and token, and the attended pairs', () => {
    const [h, layers, tokens] = [384, 5, 7];
    expect(trainFlop('text10m', tokens, 0)).toBe(6 * matrixParameters('text10m') * tokens);
    expect(trainFlop('text10m', tokens, 3) - trainFlop('text10m', tokens, 0)).toBe(12 * h * layers * 3);
  });

  it('share the prompt of a group', () => {
    const sizes = { model: 'text10m', prompts: 1, P: 512, C: 64, G: 8 };
    expect(updateFlop({ ...sizes, G: 1 })).toBeCloseTo(updateFlop({ ...sizes, G: 1 }, false), -6);
    const ratio = updateFlop(sizes, false) / updateFlop(sizes);
    expect(ratio).toBeGreaterThan(3);
    expect(ratio).toBeLessThan((8 * 576) / 1024);
  });

  it('read weights once a step and keys once a row', () => {
    const sizes = { model: 'text39m', P: 500, C: 128, G: 8 };
    const perRow = (decodeBytes(sizes, 64, 2) - decodeBytes(sizes, 32, 2)) / 32;
    // 8 layers, keys and values of 2 heads of 64, bf16; a prompt is shared by 8 rows, completions are half done.
    expect(perRow).toBe(2 * 8 * 2 * 128 * (500 / 8 + 64));
  });
});

describe('measurements in turns', () => {
  const program = (body: string): [string, string[]] => [process.execPath, ['-e', body]];
  const answering = `const say = (x) => console.log(JSON.stringify(x));
    say({ ready: true }); console.log('noise');
    process.stdin.on('data', (text) => say({ wall: 1, cpu: 1, asked: String(text).trim() }));
    process.stdin.on('end', () => process.exit(0));`;

  it('leave out a peer that dies, and keep the others', async () => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    const dying = `console.log('{"ready":true}'); process.stdin.once('data', () => { console.error('no luck'); process.exit(3); });`;
    const missing = 'process.exit(1)';
    const sessions = [answering, dying, missing, answering].map(
      (body) => new Session(...program(body), { threads: 1 }),
    );
    const samples = await interleave(sessions, 3, { warm: '{"warm":true}' });
    expect(samples.map((one: any) => one?.length)).toEqual([3, undefined, undefined, 3]);
    expect(log.mock.calls.flat().join('\n')).toContain('no luck');
    log.mockRestore();
  });

  it('fail with the first session, which is ours', async () => {
    const sessions = ['process.exit(1)', answering].map((body) => new Session(...program(body), { threads: 1 }));
    await expect(interleave(sessions, 1)).rejects.toThrow(/it ended/);
  });

  it('make a ratio a pair, in CPU seconds where others were busy', () => {
    const samples = (wall: number[], cpu: number[], other: number): any =>
      wall.map((value, i) => ({ wall: value, cpu: cpu[i], other }));
    const busy = compare(samples([9, 9, 9], [1, 2, 4], 0.5), samples([1, 1, 1], [2, 2, 2], 0.5), 1);
    expect([busy.clock, busy.ratio, busy.ratioLow, busy.ratioHigh]).toEqual(['cpu', 1, 0.5, 2]);
    expect(clockOf(samples([1], [1], 0.5), 2).clock).toBe('none');
    expect(compare(samples([2], [1], 0), samples([4], [1], 0), 2).ratio).toBe(2);
  });
});

describe('stacks of a profile', () => {
  const script = [
    [
      'node 1',
      '\t  1a gavel::cpu::(anonymous namespace)::kernel_avx512<(gavel::DType)0, 14, 1>',
      '\t  2b gavel::cpu::linear_forward',
      '\t  3c gavel::JobThread::loop',
      '\t  4d clone3',
    ],
    [
      'node 1',
      '\tffffffff81b6ccb0 clear_page_erms',
      '\t  2b gavel::cpu::attention_backward',
      '\t  3c gavel::JobThread::loop',
    ],
    ['node 2', '\t  9f v8::internal::Execution::Call', '\t  4d clone3'],
  ];

  it("are those of the engine's thread, by kind of work", () => {
    expect(foldStacks(script.map((lines) => lines.join('\n')).join('\n\n'))).toEqual([
      { kind: 'linear layers', stack: ['linear_forward', 'kernel_avx512'] },
      { kind: 'operating system (fresh pages)', stack: ['attention_backward', '(operating system)'] },
    ]);
  });

  it('are drawn as wide as their share', () => {
    const svg = flameGraph('a < b', [['step', 'left'], ['step', 'right'], ['step', 'right'], ['other']]);
    expect(svg).toContain('a &lt; b');
    expect(svg).toContain('<title>step: 75.0 %</title>');
    expect(svg).toContain('<title>right: 50.0 %</title>');
  });
});
