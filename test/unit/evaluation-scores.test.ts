/** Scorers: confidence, calibration and ties against numbers computed by hand or by another formula. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { calibrationOf } from '../../src/evaluation/calibration.js';
import { normalCdf, preferenceProbability, sigmoid } from '../../src/evaluation/confidence.js';
import { reliabilityPlot } from '../../src/evaluation/reliability-plot.js';
import {
  calibrateTies,
  evaluateScores,
  parseScoredPair,
  scorePairs,
  type ScoredPair,
} from '../../src/evaluation/scores.js';

const pair = (preference: ScoredPair['preference'], first: number, second: number, sigma = 0): ScoredPair => ({
  item: `${preference} ${first} ${second}`,
  subsets: {},
  preference,
  first: { mu: first, sigma },
  second: { mu: second, sigma },
});

describe('probabilities', () => {
  it.each([
    [0, 0.5],
    [1, 0.841344746068543],
    [-1, 0.158655253931457],
    [1.959963984540054, 0.975],
    [3, 0.99865010196837],
    [-5, 2.866515718791939e-7],
    [-8, 6.220960574271785e-16],
  ])('Phi(%d)', (x, value) => expect(Math.abs(normalCdf(x) - value)).toBeLessThan(1e-13));

  it('Phi is continuous where its two formulas meet, and symmetric', () => {
    const meeting = 2 * Math.SQRT2;
    expect(Math.abs(normalCdf(meeting - 1e-9) - normalCdf(meeting + 1e-9))).toBeLessThan(1e-10);
    fc.assert(
      fc.property(fc.double({ min: -30, max: 30, noNaN: true }), (x) => {
        expect(normalCdf(x) + normalCdf(-x)).toBeCloseTo(1, 14);
      }),
    );
  });

  it('of two scores by each model', () => {
    const [a, b] = [
      { mu: 1.5, sigma: 0.6 },
      { mu: 0.5, sigma: 0.8 },
    ];
    expect(preferenceProbability(a, b, 'sigmoid')).toBeCloseTo(1 / (1 + Math.exp(-1)), 15);
    // s = 1.
    expect(preferenceProbability(a, b, 'probit')).toBeCloseTo(0.841344746068543, 13);
    expect(preferenceProbability(a, b, 'expected-sigmoid')).toBeCloseTo(
      1 / (1 + Math.exp(-1 / Math.sqrt(1 + Math.PI / 8))),
      15,
    );
    const [plain, other] = [
      { mu: 1, sigma: 0 },
      { mu: 0, sigma: 0 },
    ];
    expect(preferenceProbability(plain, other, 'probit')).toBe(1);
    expect(preferenceProbability(plain, plain, 'probit')).toBe(0.5);
    expect(sigmoid(-1000)).toBe(0);
    expect(sigmoid(1000)).toBe(1);
  });
});

describe('calibration', () => {
  const answers = (text: string) =>
    text.split(' ').map((one) => ({ confidence: Number(one.slice(0, -1)), correct: one.endsWith('r') }));

  it('is computed by hand', () => {
    // Bins of width 0.5: (0, 0.5] holds 0.4 wrong and 0.5 right, (0.5, 1] holds 0.8 right and 1 right.
    const result = calibrationOf(answers('0.4w 0.8r 0.5r 1r'), { bins: 2 })!;
    expect(result.bins.map(({ count }) => count)).toEqual([2, 2]);
    expect(result.ece).toBeCloseTo(0.5 * Math.abs(0.5 - 0.45) + 0.5 * Math.abs(1 - 0.9), 15);
    expect(result.brier).toBeCloseTo((0.16 + 0.25 + 0.04 + 0) / 4, 15);
    expect(result).toMatchObject({ count: 4, accuracy: 0.75 });
    expect(result.meanConfidence).toBeCloseTo(0.675, 15);
  });

  it('keeps equal confidences in one bin of equal mass', () => {
    const result = calibrationOf(answers('0.6r 0.6w 0.6r 0.9r'), { bins: 2 })!;
    expect(result.binsEqualMass.map(({ low, high, count }) => [low, high, count])).toEqual([
      [0.6, 0.6, 3],
      [0.9, 0.9, 1],
    ]);
    expect(result.eceEqualMass).toBeCloseTo(0.75 * (2 / 3 - 0.6) + 0.25 * 0.1, 15);
  });

  it('puts bounds into the lower bin, whatever the rounding', () => {
    const result = calibrationOf(answers('0.1r 0.2r 0.3r 0.7r 1r 0r'), { bins: 10 })!;
    expect(result.bins.map(({ count }) => count)).toEqual([2, 1, 1, 0, 0, 0, 1, 0, 0, 1]);
    expect(calibrationOf(answers('0.5r 0.55r 1r'), { bins: 10, low: 0.5 })!.bins.map(({ count }) => count)).toEqual([
      2, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    ]);
  });

  it('is 0 for a perfect judge, nothing without answers, refused for a confidence above 1', () => {
    expect(calibrationOf(answers('1r 1r'))).toMatchObject({ ece: 0, eceEqualMass: 0, brier: 0 });
    expect(calibrationOf([])).toBeNull();
    expect(() => calibrationOf(answers('1.2r'))).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    expect(() => calibrationOf([{ confidence: NaN, correct: true }])).toThrow(/confidence/);
    expect(() => calibrationOf(answers('1r'), { bins: 0 })).toThrow(/bins/);
  });

  it('does not depend on the order of the answers, and ECE is at most the largest gap', () => {
    const answer = fc.record({ confidence: fc.double({ min: 0, max: 1, noNaN: true }), correct: fc.boolean() });
    fc.assert(
      fc.property(fc.array(answer, { minLength: 1, maxLength: 40 }), (drawn) => {
        const result = calibrationOf(drawn)!;
        expect(calibrationOf([...drawn].reverse())).toEqual(result);
        for (const bins of [result.bins, result.binsEqualMass])
          expect(bins.reduce((sum, { count }) => sum + count, 0)).toBe(drawn.length);
        const gaps = result.bins.map((bin) => (bin.count === 0 ? 0 : Math.abs(bin.accuracy! - bin.confidence!)));
        expect(result.ece).toBeLessThanOrEqual(Math.max(...gaps) + 1e-12);
      }),
    );
  });

  it('is drawn with a bar for each bin that holds answers', () => {
    const svg = reliabilityPlot(calibrationOf(answers('0.6r 0.6w 0.9r'))!, 'A <judge>');
    expect(svg).toMatch(/^<svg [^]*<\/svg>\n$/);
    expect(svg.match(/fill="#0072b2"/g)).toHaveLength(2);
    expect(svg).toContain('A &lt;judge&gt;');
  });
});

describe('scores of pairs', () => {
  it('are evaluated by hand', () => {
    const result = evaluateScores([
      pair('first', 2, 1),
      pair('second', 3, 1),
      pair('tie', 1, 1.25),
      pair('second', 0, 0),
    ]);
    expect(result).toMatchObject({ concordant: 1, discordant: 1, goldTie: 1, predictedTie: 1, bothTie: 0, count: 4 });
    expect(result.accuracyWithTies).toBe(1 / 4);
    expect(result.accuracyWithoutTies).toBe(1 / 3);
    expect(result.margin).toBeCloseTo((1 - 2 + 0) / 3, 15);
    expect(result.meanGap).toBeCloseTo((1 + 2 + 0.25 + 0) / 4, 15);
    expect(result.calibration!.count).toBe(3);
    // At 0.25 the tie turns right; at 1 the right pair turns wrong again.
    expect(result.tieCalibration).toEqual({ threshold: 0.25, accuracyWithTies: 2 / 4 });
    expect(evaluateScores([pair('tie', 1, 1.25)], { tieThreshold: 0.25 }).accuracyWithTies).toBe(1);
  });

  it('use the spread of a Gaussian head', () => {
    const sure = evaluateScores([pair('first', 1, 0)]).calibration!;
    const unsure = evaluateScores([pair('first', 1, 0, 3)]).calibration!;
    expect(sure.meanConfidence).toBeCloseTo(sigmoid(1), 15);
    expect(unsure.meanConfidence).toBeCloseTo(sigmoid(1 / Math.sqrt(1 + (Math.PI * 18) / 8)), 15);
  });

  it('of nothing and of ties alone have no accuracy', () => {
    expect(evaluateScores([])).toMatchObject({
      count: 0,
      accuracyWithTies: null,
      low: null,
      margin: null,
      calibration: null,
      tieCalibration: null,
    });
    expect(evaluateScores([pair('tie', 1, 1)])).toMatchObject({
      accuracyWithTies: 1,
      accuracyWithoutTies: null,
      margin: null,
      calibration: null,
    });
  });

  const drawn = fc.array(
    fc.record({
      preference: fc.constantFrom('first' as const, 'second' as const, 'tie' as const),
      first: fc.integer({ min: -4, max: 4 }),
      second: fc.integer({ min: -4, max: 4 }),
    }),
    { minLength: 1, maxLength: 20 },
  );

  it('do not change when both candidates of every pair change places', () => {
    fc.assert(
      fc.property(drawn, (list) => {
        const pairs = list.map(({ preference, first, second }) => pair(preference, first, second, 0.5));
        const other = { first: 'second', second: 'first', tie: 'tie' } as const;
        const exchanged = list.map(({ preference, first, second }) => pair(other[preference], second, first, 0.5));
        const [a, b] = [evaluateScores(pairs), evaluateScores(exchanged)];
        expect(b.calibration?.ece ?? 0).toBeCloseTo(a.calibration?.ece ?? 0, 12);
        expect({ ...b, calibration: null, margin: null }).toEqual({ ...a, calibration: null, margin: null });
        expect(b.margin ?? 0).toBeCloseTo(a.margin ?? 0, 12);
      }),
    );
  });

  it('tie calibration finds the best of all thresholds', () => {
    fc.assert(
      fc.property(drawn, (list) => {
        const pairs = list.map(({ preference, first, second }) => pair(preference, first, second));
        const thresholds = [0, ...pairs.map(({ first, second }) => Math.abs(first.mu - second.mu))];
        const best = Math.max(
          ...thresholds.map((tieThreshold) => evaluateScores(pairs, { tieThreshold }).accuracyWithTies!),
        );
        const found = calibrateTies(pairs)!;
        expect(found.accuracyWithTies).toBeCloseTo(best, 12);
        expect(evaluateScores(pairs, { tieThreshold: found.threshold }).accuracyWithTies).toBe(found.accuracyWithTies);
      }),
    );
  });

  it('join pairs and refuse what does not fit', () => {
    const pairs = [{ id: 'a', preference: 'first' as const }];
    expect(scorePairs(pairs, [{ first: { mu: 1 }, second: { mu: 0, sigma: 1 } }])).toEqual([
      { item: 'a', subsets: {}, preference: 'first', first: { mu: 1, sigma: 0 }, second: { mu: 0, sigma: 1 } },
    ]);
    expect(() => scorePairs(pairs, [])).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
    expect(() => scorePairs(pairs, [{ first: { mu: NaN }, second: { mu: 0 } }])).toThrow(/"a"/);
    expect(() => scorePairs(pairs, [{ first: { mu: 1, sigma: -1 }, second: { mu: 0 } }])).toThrow(/sigma/);
    expect(() => evaluateScores([], { tieThreshold: -1 })).toThrow(/tieThreshold/);
    expect(() => parseScoredPair({ item: 'a' }, 's.jsonl:1')).toThrow(expect.objectContaining({ code: 'bad_data' }));
  });
});
