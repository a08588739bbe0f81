/** Every row of R3V's table of items, with its borders, and the prompts that make rows of them. */
import { describe, expect, it } from 'vitest';
import { checkImageCount, type Row } from '../../src/data/rows.js';
import { chosenAnswer, itemsOf, type R3vItem, type Ranked } from '../../src/recipes/r3v-items.js';
import { r3vPrompts } from '../../src/recipes/r3v-prompts.js';
import { verifierByName } from '../../src/rewards/verifier.js';

const all = { candidates: 3, refine: true, select: true, seed: 0 };

/** Samples of one iteration, by sample index: + correct, - wrong. A second string is a second, newer iteration. */
const drawn = (...iterations: string[]): Ranked[] =>
  iterations.flatMap((marks, i) =>
    [...marks].map((mark, sample) => ({ sample, recency: i + 1, correct: mark === '+' })),
  );
const kindsOf = (samples: readonly Ranked[], options: Partial<typeof all> = {}): string[] =>
  itemsOf('q', samples, { ...all, ...options }).map(({ kind }) => kind);
const itemOf = <K extends R3vItem<Ranked>['kind']>(
  kind: K,
  samples: readonly Ranked[],
  options: Partial<typeof all> = {},
): Extract<R3vItem<Ranked>, { kind: K }> =>
  itemsOf('q', samples, { ...all, ...options }).find((item) => item.kind === kind) as Extract<
    R3vItem<Ranked>,
    { kind: K }
  >;
const place = ({ recency, sample }: Ranked): string => `${recency}:${sample}`;

describe('conditions of the items', () => {
  it.each([
    ['', []],
    ['-', []],
    ['---', []],
    ['+', ['selfCot']],
    ['+++', ['selfCot']],
    ['+-', ['selfCot', 'refine']],
    ['++-', ['selfCot', 'refine', 'selectA']],
    ['+--', ['selfCot', 'refine', 'selectB']],
    ['++--', ['selfCot', 'refine', 'selectA', 'selectB']],
  ])('%j gives %j', (marks, kinds) => {
    expect(kindsOf(drawn(marks))).toEqual(kinds);
  });

  it('a sample that could not be parsed is a wrong one', () => {
    const verify = verifierByName('clevr-math');
    const marked = ['<answer>3</answer>', 'I think three', '<answer>'].map((text, sample) => ({
      sample,
      recency: 1,
      correct: verify(text, '3').correct,
    }));
    expect(kindsOf(marked)).toEqual(['selfCot', 'refine', 'selectB']);
    expect(place(itemOf('refine', marked).wrong)).toBe('1:2');
    expect(kindsOf(marked.slice(1))).toEqual([]);
  });

  it('hold over the iterations together', () => {
    expect(kindsOf(drawn('-', '+', '+'))).toEqual(['selfCot', 'refine', 'selectA']);
    expect(kindsOf(drawn('+', '-', '-'))).toEqual(['selfCot', 'refine', 'selectB']);
  });

  it('are switched off one by one', () => {
    expect(kindsOf(drawn('++--'), { refine: false })).toEqual(['selfCot', 'selectA', 'selectB']);
    expect(kindsOf(drawn('++--'), { select: false })).toEqual(['selfCot', 'refine']);
    expect(kindsOf(drawn('++--'), { refine: false, select: false })).toEqual(['selfCot']);
  });

  it.each([
    [2, '+-', ['selectA']],
    [2, '++--', ['selectA']],
    [4, '++--', []],
    [4, '+++-', ['selectA']],
    [4, '+---', ['selectB']],
    [6, '+++++-', ['selectA']],
    [6, '++++-----', ['selectB']],
  ])('of %i candidates from %j: %j', (candidates, marks, kinds) => {
    expect(kindsOf(drawn(marks), { candidates }).filter((kind) => kind.startsWith('select'))).toEqual(kinds);
  });
});

describe('choice of samples', () => {
  it('self-CoT takes the most recent correct sample: iteration, then sample index', () => {
    expect(place(itemOf('selfCot', drawn('+++')).correct)).toBe('1:2');
    expect(place(itemOf('selfCot', drawn('+++', '+--')).correct)).toBe('2:0');
    expect(place(itemOf('selfCot', drawn('+-+', '---')).correct)).toBe('1:2');
    expect(place(itemOf('selfCot', [...drawn('-++', '+--')].reverse()).correct)).toBe('2:0');
  });

  it('refine takes the most recent correct and the most recent wrong sample', () => {
    const { correct, wrong } = itemOf('refine', drawn('+--', '++-', '-++'));
    expect([place(correct), place(wrong)]).toEqual(['3:2', '3:0']);
    const old = itemOf('refine', drawn('--+', '+++'));
    expect([place(old.correct), place(old.wrong)]).toEqual(['2:2', '1:1']);
  });

  it('select A takes the latest two correct and the latest wrong, select B the other way round', () => {
    const samples = drawn('++-', '+--', '-+-');
    const a = itemOf('selectA', samples);
    expect(a.correct.map(place)).toEqual(['3:1', '2:0']);
    expect(a.candidates.map(place).sort()).toEqual(['2:0', '3:1', '3:2']);
    const b = itemOf('selectB', samples);
    expect(b.correct.map(place)).toEqual(['3:1']);
    expect(b.candidates.map(place).sort()).toEqual(['3:0', '3:1', '3:2']);
  });

  it('at least one candidate is always correct and one wrong', () => {
    for (let candidates = 2; candidates <= 6; candidates++) {
      for (const item of itemsOf('q', drawn('+-+-+-', '-+-+-+'), { ...all, candidates })) {
        if (!('candidates' in item)) continue;
        expect(item.candidates).toHaveLength(candidates);
        expect(new Set(item.candidates.map(({ correct }) => correct)).size).toBe(2);
      }
    }
  });

  it('candidates are shuffled by seed and id: every order comes, the same key gives the same', () => {
    const samples = drawn('++-');
    const orders = (seed: number): string[] =>
      Array.from({ length: 200 }, (_, i) => {
        const item = itemsOf(`q${i}`, samples, { ...all, seed }).find(({ kind }) => kind === 'selectA');
        return (item as { candidates: Ranked[] }).candidates.map(place).join(' ');
      });
    expect(new Set(orders(1)).size).toBe(6);
    expect(orders(1)).toEqual(orders(1));
    expect(orders(1)).not.toEqual(orders(2));
    const first = orders(3).filter((order) => order.startsWith('1:2')).length;
    expect(first).toBeGreaterThan(40);
    expect(first).toBeLessThan(100);
  });

  it('the answer of a select item is the number nearest to gold, else the most recent', () => {
    expect(chosenAnswer(['104', '99'], '100')).toBe('99');
    expect(chosenAnswer(['99', '101'], '100')).toBe('99');
    expect(chosenAnswer(['B', 'A'], 'A')).toBe('B');
    expect(chosenAnswer(['7', ''], '7')).toBe('7');
    expect(chosenAnswer(['yes'], 'Yes')).toBe('yes');
  });
});

describe('prompts', () => {
  const question: Row = {
    id: 'q',
    prompt: '<image> How many?',
    images: [{ path: 'a.png' }],
    solution: '3',
    completion: 'old',
  };
  const prompts = r3vPrompts();

  it('keep id, pictures and solution, drop the completion', () => {
    for (const row of [
      prompts.direct(question),
      prompts.rationale(question),
      prompts.refine(question, 'no'),
      prompts.select(question, ['a', 'b']),
    ]) {
      expect(row).toMatchObject({ id: 'q', images: question.images, solution: '3' });
      expect(row.completion).toBeUndefined();
      expect(row.prompt).toContain('<image> How many?\n');
      checkImageCount(row);
    }
    expect(prompts.select(question, ['first', 'second']).prompt).toMatch(
      /Candidate solution 1:\nfirst\nCandidate solution 2:\nsecond\nWhich/,
    );
    expect(prompts.refine(question, 'a wrong one').prompt).toMatch(/Proposed solution:\na wrong one\nJudge/);
    expect(question.completion).toBe('old');
  });

  it('answers come in the form that verifiers read', () => {
    expect(prompts.answer('3')).toBe('<answer>3</answer>');
    expect(r3vPrompts('phrase').answer('3')).toBe('The answer is 3.');
    expect(r3vPrompts('phrase').rationale(question).prompt).toMatch(/The answer is/);
  });

  it('an image mark that a model wrote is text', () => {
    const row = prompts.refine(question, 'see <image> and <video>');
    checkImageCount(row);
    expect(row.prompt).toEqual([
      {
        role: 'user',
        content: [
          { type: 'image' },
          { type: 'text', text: expect.stringContaining(' How many?\nProposed solution:\nsee <image> and') as string },
        ],
      },
    ]);
  });

  it('a conversation gets the text at the end of its last user turn', () => {
    const chat: Row = {
      id: 'c',
      images: [],
      prompt: [
        { role: 'system', content: 'Be brief.' },
        { role: 'user', content: 'How many?' },
      ],
    };
    expect(prompts.direct(chat).prompt).toEqual([
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: expect.stringMatching(/^How many\?\nGive only/) as string },
    ]);
    const mute: Row = { ...chat, prompt: [{ role: 'system', content: 'Be brief.' }] };
    expect(() => prompts.direct(mute)).toThrow(expect.objectContaining({ code: 'bad_data', fields: { id: 'c' } }));
  });
});
