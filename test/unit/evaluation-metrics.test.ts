/** Every metric against numbers computed by hand, at its edges, and under the changes that must not matter. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { agreementOf } from '../../src/evaluation/agreement.js';
import { otherOrder, parseJudgement, readChoice, type Choice, type Judgement } from '../../src/evaluation/judgement.js';
import { positionOf } from '../../src/evaluation/position.js';
import { compareSelections, majorityVote, passAtK } from '../../src/evaluation/samples.js';
import { clusterAccuracy, divisionAccuracy, itemAccuracy } from '../../src/evaluation/subsets.js';
import { summarize } from '../../src/evaluation/summary.js';
import { readTotals, totalsOf, verdictAgainstTotals } from '../../src/evaluation/totals.js';

const judgement = (over: Partial<Judgement> & { item: string }): Judgement =>
  parseJudgement({ gold: 'Image 1 is better', goldChoice: 'first', answer: 'x', correct: false, ...over }, 'a test');

/** A judgement of a pair whose better candidate and whose verdict are given by place in the data. */
function pairwise(item: string, order: Judgement['order'], best: Choice, says: Choice | null, over = {}): Judgement {
  const shown = (choice: Choice): Choice => (order === 'given' ? choice : otherOrder(choice));
  return judgement({
    item,
    order,
    goldChoice: shown(best),
    choice: says === null ? null : shown(says),
    answer: says,
    correct: says === best,
    ...over,
  });
}

describe('the candidate an answer names', () => {
  it.each([
    ['Image 1 is better', 'first'],
    ['Video 2 is better', 'second'],
    ['Answer 2', 'second'],
    ['answer 1 is better than answer 2.', 'first'],
    ['Image 2 is slightly better', 'second'],
    ['Both images are equally good', 'tie'],
    ['Tie', 'tie'],
    ['Image 1 and Image 2 are equal', 'tie'],
    ['Image 1 is better. No, Image 2 is better', null],
    ['Image 1, Image 2', null],
    ['Image 3 is better', null],
    ['', null],
  ])('of %j is %s', (answer, choice) => expect(readChoice(answer)).toBe(choice));
});

describe('agreement with ties', () => {
  const pairs = (text: string) =>
    text.split(' ').map((pair) => {
      const name = { f: 'first', s: 'second', t: 'tie', '-': null } as const;
      return { gold: name[pair[0] as 'f'], predicted: name[pair[1] as 'f'] };
    });

  it('counts each case once', () => {
    // 2 concordant, 1 discordant, 1 predicted tie, 1 gold tie, 1 both, 1 unparsed, 1 unparsed with a gold tie.
    expect(agreementOf(pairs('ff ss fs ft tf tt f- t-'))).toEqual({
      concordant: 2,
      discordant: 1,
      predictedTie: 1,
      goldTie: 1,
      bothTie: 1,
      unparsed: 1,
      unparsedTie: 1,
      count: 8,
      accuracyWithTies: 3 / 8,
      accuracyWithoutTies: 2 / 5,
      goldTieRate: 3 / 8,
      predictedTieRate: 2 / 8,
    });
  });

  it('of nothing is no number; of ties alone has no accuracy without ties', () => {
    expect(agreementOf([])).toMatchObject({ count: 0, accuracyWithTies: null, accuracyWithoutTies: null });
    expect(agreementOf(pairs('tt tt'))).toMatchObject({
      accuracyWithTies: 1,
      accuracyWithoutTies: null,
      goldTieRate: 1,
    });
    expect(agreementOf(pairs('f- s-'))).toMatchObject({ accuracyWithTies: 0, accuracyWithoutTies: 0, unparsed: 2 });
  });
});

describe('position', () => {
  it('is measured by hand', () => {
    const judgements = [
      // Right in both orders.
      pairwise('a', 'given', 'first', 'first'),
      pairwise('a', 'swapped', 'first', 'first'),
      // Says the first place twice: right, then wrong.
      pairwise('b', 'given', 'first', 'first'),
      pairwise('b', 'swapped', 'first', 'second'),
      // No verdict in one order.
      pairwise('c', 'given', 'second', 'second'),
      pairwise('c', 'swapped', 'second', null),
      // One order only: not part of the pairs.
      pairwise('d', 'given', 'second', 'first'),
    ];
    expect(positionOf(judgements)).toEqual({
      accuracyGiven: 3 / 4,
      accuracySwapped: 1 / 3,
      accuracyBoth: 1 / 3,
      consistency: 1 / 3,
      // Gold first: a, b given, c swapped (2 of 3). Gold second: a swapped, b swapped, c and d given (2 of 4).
      bias: 2 / 3 - 2 / 4,
      // Verdicts for the first place: a given, b given, b swapped, d given; a swapped and c given are for the second.
      firstShare: 4 / 6,
    });
  });

  it('of a judge that always says the first place is bias 1 and consistency 0', () => {
    const judgements = ['a', 'b'].flatMap((item) => [
      pairwise(item, 'given', 'first', 'first'),
      pairwise(item, 'swapped', 'first', 'second'),
    ]);
    expect(positionOf(judgements)).toMatchObject({ bias: 1, consistency: 0, firstShare: 1, accuracyBoth: 0 });
  });

  it('compares answers that name no place by whether they are right', () => {
    const open = (order: Judgement['order'], answer: string | null, correct: boolean) =>
      judgement({ item: 'q', order, goldChoice: null, answer, correct });
    expect(positionOf([open('given', '7', true), open('swapped', '7', true)]).consistency).toBe(1);
    expect(positionOf([open('given', '7', true), open('swapped', '8', false)]).consistency).toBe(0);
    expect(positionOf([open('given', null, false), open('swapped', null, false)]).consistency).toBe(0);
  });

  it('is silent without judgements and without orders', () => {
    expect(new Set(Object.values(positionOf([])))).toEqual(new Set([null]));
  });

  it('does not change when data and prompts exchange their candidates', () => {
    fc.assert(
      fc.property(fc.array(arbitraryPair, { maxLength: 12 }), (drawn) => {
        const judged = drawn.flatMap((pair, i) => judgementsOf(pair, `i${i}`));
        const exchanged = judged.map((one) => ({
          ...one,
          order: one.order === 'given' ? ('swapped' as const) : ('given' as const),
        }));
        const [a, b] = [positionOf(judged), positionOf(exchanged)];
        expect(b).toEqual({ ...a, accuracyGiven: a.accuracySwapped, accuracySwapped: a.accuracyGiven });
      }),
    );
  });
});

const choice = fc.constantFrom<Choice>('first', 'second', 'tie');
const arbitraryPair = fc.record({ best: choice, given: fc.option(choice), swapped: fc.option(choice) });
const judgementsOf = (
  { best, given, swapped }: { best: Choice; given: Choice | null; swapped: Choice | null },
  id: string,
) => [pairwise(id, 'given', best, given), pairwise(id, 'swapped', best, swapped)];

describe('totals', () => {
  const think = (first: string, second: string): string =>
    `<think>\n1. Clarity: \n  Image 1 (9/10) - good;\n  Image 2 (7/10) - blurred\nTotal score:\nImage 1: ${first}\nImage 2: ${second}\n</think>\n<answer>Image 1 is better</answer>`;

  it.each([
    [think('9+8+8=25', '7+7+8=22'), [25, 22]],
    [think('25', '22.5'), [25, 22.5]],
    [think('25/30', '22 / 30'), [25, 22]],
    [think('9+8', '7+7=14'), null],
    [think('9+8=17', ''), null],
    ['Total score: Image 1: 9+8=17, Image 2: 7+7=14', [17, 14]],
    ['Total score: Image 1: 17; Image 1: 18; Image 2: 3', null],
    ['<think>no totals</think><answer>Image 1: 3 Image 2: 4</answer>', null],
    ['Total scores\nAnswer 1: 1+1=2\nAnswer 2: 3', [2, 3]],
  ])('of %j', (text, totals) => expect(readTotals(text)).toEqual(totals));

  it('read a long text in linear time', () => {
    const text = 'Total score: '.repeat(20_000) + 'Image 1: 1+'.repeat(20_000);
    const startedMs = performance.now();
    expect(readTotals(text)).toBeNull();
    expect(performance.now() - startedMs).toBeLessThan(500);
  });

  it('contradict a verdict for the lower one, and no verdict when equal', () => {
    expect(verdictAgainstTotals([2, 1], 'first')).toBe('follows');
    expect(verdictAgainstTotals([2, 1], 'second')).toBe('contradicts');
    expect(verdictAgainstTotals([2, 1], 'tie')).toBe('contradicts');
    expect(verdictAgainstTotals([2, 2], 'first')).toBe('tied');
    expect(verdictAgainstTotals([2, 2], 'tie')).toBe('follows');
  });

  it('are counted where they can be read and a verdict is there', () => {
    const of = (totals: [number, number] | null, said: Choice | null) => judgement({ item: 'a', totals, choice: said });
    const judgements = [
      of([3, 1], 'first'),
      of([3, 1], 'second'),
      of([1, 1], 'first'),
      of([3, 1], null),
      of(null, 'first'),
    ];
    expect(totalsOf(judgements)).toEqual({ totalsRate: 4 / 5, contradictionRate: 1 / 3, tiedTotalsRate: 1 / 3 });
    expect(totalsOf([of(null, 'first')])).toEqual({ totalsRate: null, contradictionRate: null, tiedTotalsRate: null });
    expect(totalsOf([])).toEqual({ totalsRate: null, contradictionRate: null, tiedTotalsRate: null });
  });
});

describe('pass@k', () => {
  it('is the unbiased estimator', () => {
    expect(passAtK(5, 2, 1)).toBeCloseTo(2 / 5, 15);
    // 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10.
    expect(passAtK(5, 2, 2)).toBeCloseTo(0.7, 15);
    expect(passAtK(5, 2, 4)).toBe(1);
    expect(passAtK(5, 0, 5)).toBe(0);
    expect(passAtK(5, 5, 1)).toBe(1);
  });

  it('equals the mean over all subsets', () => {
    fc.assert(
      fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }), fc.nat(7), (right, draw) => {
        const k = 1 + (draw % right.length);
        let subsets = 0;
        let passed = 0;
        for (let mask = 0; mask < 1 << right.length; mask++) {
          const chosen = right.filter((_, i) => (mask >> i) & 1);
          if (chosen.length !== k) continue;
          subsets++;
          if (chosen.includes(true)) passed++;
        }
        expect(passAtK(right.length, right.filter(Boolean).length, k)).toBeCloseTo(passed / subsets, 12);
      }),
    );
  });

  it.each([
    [5, 2, 0],
    [5, 2, 6],
    [5, 6, 1],
    [5, -1, 1],
    [5, 1, 1.5],
  ])('refuses n %d, c %d, k %d', (n, c, k) => {
    expect(() => passAtK(n, c, k)).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
  });
});

describe('majority', () => {
  const votes = (text: string) =>
    text.split('').map((letter) => ({ answer: letter === '-' ? null : letter, correct: letter === 'r' }));

  it('is the most frequent answer; what cannot be parsed does not vote', () => {
    expect(majorityVote(votes('rrw'), 'a')).toEqual({ answer: 'r', correct: true, votes: 2, cast: 3 });
    expect(majorityVote(votes('r--ww'), 'a')).toEqual({ answer: 'w', correct: false, votes: 2, cast: 3 });
    expect(majorityVote(votes('--r'), 'a')).toMatchObject({ correct: true, votes: 1, cast: 1 });
  });

  it('without votes is wrong, never random', () => {
    expect(majorityVote(votes('--'), 'a')).toEqual({ answer: null, correct: false, votes: 0, cast: 0 });
    expect(majorityVote([], 'a').correct).toBe(false);
  });

  it('breaks ties by a seeded coin that is fair over items and ignores the order of the samples', () => {
    const ids = Array.from({ length: 400 }, (_, i) => `item ${i}`);
    const wins = ids.filter((id) => majorityVote(votes('rw'), id, 7).correct).length;
    expect(wins).toBeGreaterThan(160);
    expect(wins).toBeLessThan(240);
    for (const id of ids) expect(majorityVote(votes('wr'), id, 7)).toEqual(majorityVote(votes('rw'), id, 7));
    expect(
      ids.some((id) => majorityVote(votes('rw'), id, 7).correct !== majorityVote(votes('rw'), id, 8).correct),
    ).toBe(true);
  });

  it('stands beside pass@1, select and pass@N at each N', () => {
    const items = [
      { id: 'a', samples: votes('rrw'), selected: { 1: true, 3: true } },
      { id: 'b', samples: votes('wwr'), selected: { 1: false, 3: true } },
      { id: 'c', samples: votes('w'), selected: { 1: false } },
    ];
    const [one, three, five] = compareSelections(items, [1, 3, 5]);
    expect(one).toEqual({
      n: 1,
      items: 3,
      passAt1: 1 / 3,
      majority: 1 / 3,
      select: 1 / 3,
      passAtN: (2 / 3 + 1 / 3 + 0) / 3,
    });
    expect(three).toEqual({ n: 3, items: 2, passAt1: 1 / 2, majority: 1 / 2, select: 1, passAtN: 1 });
    expect(five).toEqual({ n: 5, items: 0, passAt1: null, majority: null, select: null, passAtN: null });
    expect(() => compareSelections(items, [0])).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
  });
});

describe('sub-sets', () => {
  const judgements = [
    judgement({ item: 'a', subsets: { group: 'x' }, correct: true }),
    judgement({ item: 'a', subsets: { group: 'x' }, order: 'swapped', correct: false }),
    judgement({ item: 'b', subsets: { group: 'x' }, correct: true }),
    judgement({ item: 'c', subsets: { group: 'y' }, correct: false }),
    judgement({ item: 'd', correct: true }),
  ];

  it('have micro and macro means; what belongs to none is left to the whole', () => {
    const division = divisionAccuracy(judgements, 'group')!;
    expect(division.micro).toBeCloseTo((0.5 + 1 + 0) / 3, 15);
    expect(division.macro).toBeCloseTo((0.75 + 0) / 2, 15);
    expect(division.subsets['x']).toMatchObject({ count: 2, accuracy: 0.75 });
    expect(division.subsets['y']).toMatchObject({ count: 1, accuracy: 0, low: 0 });
    expect(itemAccuracy(judgements)).toMatchObject({ count: 4, accuracy: 2.5 / 4 });
    expect(divisionAccuracy(judgements, 'none')).toBeNull();
    expect(itemAccuracy([])).toBeNull();
  });

  it('clusters count only when all are right', () => {
    const of = (item: string, cluster: string, correct: boolean) => judgement({ item, cluster, correct });
    expect(clusterAccuracy([of('a', '1', true), of('b', '1', true), of('c', '2', true), of('d', '2', false)])).toEqual({
      count: 2,
      accuracy: 1 / 2,
    });
    expect(clusterAccuracy(judgements)).toBeNull();
  });
});

describe('the summary', () => {
  it('of nothing has no numbers', async () => {
    const summary = await summarize([]);
    expect(summary).toMatchObject({ accuracy: null, bootstrap: null, direct: null, ties: null, formatRate: null });
    expect(summary).toMatchObject({
      passAtK: null,
      majority: null,
      calibration: null,
      samples: 0,
      divisions: {},
      extras: {},
    });
  });

  it('of unparsed answers alone is wrong everywhere', async () => {
    const unparsed = ['a', 'b'].flatMap((item) =>
      [0, 1].map((sample) => judgement({ item, sample, answer: null, format: false, truncated: true, length: 9 })),
    );
    expect(await summarize(unparsed)).toMatchObject({
      accuracy: { count: 2, accuracy: 0, low: 0 },
      unparsedRate: 1,
      formatRate: 0,
      truncatedRate: 1,
      meanLength: 9,
      ties: { unparsed: 4, accuracyWithTies: 0 },
      passAtK: { '1': 0, '2': 0 },
      majority: 0,
      calibration: null,
    });
  });

  it('keeps direct answers apart', async () => {
    const summary = await summarize([
      judgement({ item: 'a', correct: true, length: 10, extras: { seen: 1 } }),
      judgement({ item: 'b', correct: false, length: 20, extras: { seen: null } }),
      judgement({ item: 'a', direct: true, correct: true, length: 1 }),
    ]);
    expect(summary).toMatchObject({ accuracy: { count: 2, accuracy: 0.5 }, direct: { count: 1, accuracy: 1 } });
    expect(summary).toMatchObject({ meanLength: 15, extras: { seen: 1 } });
  });

  it('calibrates the share of the votes', async () => {
    const votes = (item: string, answers: string) =>
      answers.split('').map((answer, sample) => judgement({ item, sample, answer, correct: answer === 'r' }));
    const summary = await summarize([...votes('a', 'rrrw'), ...votes('b', 'wwww')]);
    // Confidences 0.75 (right) and 1 (wrong): each alone in its bin.
    expect(summary.calibration!.ece).toBeCloseTo((0.25 + 1) / 2, 15);
    expect(summary.calibration!.brier).toBeCloseTo((0.0625 + 1) / 2, 15);
    expect(summary.majority).toBe(0.5);
    expect(summary.passAtK!['1']).toBeCloseTo(3 / 8, 15);
    expect(summary.passAtK!['4']).toBe(0.5);
  });

  it('does not depend on the order of the judgements', async () => {
    const record = fc.record({ pair: arbitraryPair, group: fc.constantFrom('x', 'y'), second: fc.boolean() });
    await fc.assert(
      fc.asyncProperty(
        fc.array(record, { minLength: 1, maxLength: 8 }),
        fc.infiniteStream(fc.nat(1e6)),
        async (drawn, keys) => {
          const judged = drawn.flatMap(({ pair, group, second }, i) =>
            [0, ...(second ? [1] : [])].flatMap((sample) =>
              judgementsOf(pair, `i${i}`).map((one) => ({ ...one, sample, subsets: { group } })),
            ),
          );
          const shuffled = judged
            .map((one) => ({ one, key: keys.next().value as number }))
            .sort((a, b) => a.key - b.key)
            .map(({ one }) => one);
          const options = { bootstrap: { resamples: 50 } };
          const [a, b] = await Promise.all([summarize(judged, options), summarize(shuffled, options)]);
          expect(rounded(b)).toEqual(rounded(a));
        },
      ),
      { numRuns: 40 },
    );
  });
});

/** Sums in another order may differ in their last bit. */
const rounded = (value: unknown): unknown =>
  JSON.parse(JSON.stringify(value, (_, part: unknown) => (typeof part === 'number' ? Number(part.toFixed(12)) : part)));

describe('a judgement from outside', () => {
  it('is refused with its place and field', () => {
    expect(() => parseJudgement({ item: 'a', gold: 'x', answer: null }, 'j.jsonl:3')).toThrow(
      expect.objectContaining({ code: 'bad_data', fields: { where: 'j.jsonl:3', field: 'correct' } }),
    );
    expect(() =>
      parseJudgement({ item: 'a', gold: 'x', answer: null, correct: true, order: 'left' }, 'j.jsonl:4'),
    ).toThrow(/j\.jsonl:4.*order/);
    expect(() => parseJudgement('no', 'j.jsonl:5')).toThrow(/j\.jsonl:5/);
  });
});
