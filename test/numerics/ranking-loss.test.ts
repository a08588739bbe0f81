// `rankingLoss` of gavel-rl/kernels: PyTorch's float64 autograd and quadrature (test/goldens/ranking.safetensors), TRL's
// Bradley-Terry, numbers worked out by hand, and finite differences through the public function.
import { describe, expect, it } from 'vitest';
import { rankingLoss, type RankingLossInput } from '../../src/kernels.js';
import { Golden, maxAbsolute } from './golden.js';

type Options = RankingLossInput['options'];
type Pairs = NonNullable<RankingLossInput['pairs']>;

const golden = await Golden.open('ranking');
const values = async (name: string): Promise<Float64Array> => (await golden.tensor(name)).data;
const whole = async (name: string): Promise<Int32Array> => Int32Array.from(await values(name));

const [mu, logSigma, targets, margins] = await Promise.all(['mu', 'log_sigma', 'targets', 'margins'].map(values));
const sides = { chosen: await whole('chosen'), rejected: await whole('rejected') };
const headWeights = [...(await values('head_weights'))];
const ties = Uint8Array.from(await values('ties'));
const labelled = { pairs: { ...sides, labels: await whole('labels') }, more: { headWeights } };
const plain = { pairs: sides };
// One score has a sigma of 7.4, where 64 nodes are good to a few thousandths.
const coarse = 5e-3;
const uncertain = { loss: 'uncertainty' } as const;
const ofLog = { loss: 'uncertainty', form: 'expectation_log' } as const;
const probit = { loss: 'uncertainty', estimator: 'probit' } as const;

interface Case {
  options: Options;
  pairs?: Pairs;
  more?: Partial<Options>;
  tolerance?: number;
}
const cases: Record<string, Case> = {
  bt: { options: { loss: 'bradley_terry' }, ...plain },
  bt_margins_centred: {
    options: { loss: 'bradley_terry', fusion: 'sum', margin: 0.25, centring: 0.01 },
    pairs: { ...sides, margins: margins! },
  },
  bt_min: { options: { loss: 'bradley_terry', fusion: 'min' }, ...plain },
  bt_labels: {
    options: { loss: 'bradley_terry', centring: 0.02, headWeights },
    pairs: { ...labelled.pairs, margins: margins! },
  },
  btt: { options: { loss: 'bradley_terry_ties' }, pairs: { ...sides, ties } },
  btt_labels: {
    options: { loss: 'bradley_terry_ties', headWeights },
    pairs: { ...sides, labels: await whole('tie_labels') },
  },
  regression: { options: { loss: 'regression', headWeights } },
  log_expectation: { options: uncertain, ...plain, tolerance: 1e-5 },
  log_expectation_sum: {
    options: { ...uncertain, fusion: 'sum' },
    pairs: { ...sides, margins: margins! },
    tolerance: coarse,
  },
  log_expectation_min: { options: { ...uncertain, fusion: 'min' }, ...plain, tolerance: coarse },
  log_expectation_labels: { options: uncertain, ...labelled, tolerance: coarse },
  expectation_log: { options: ofLog, ...plain, tolerance: 1e-4 },
  expectation_log_labels: { options: ofLog, ...labelled, tolerance: coarse },
  probit: { options: probit, ...plain },
  probit_labels: { options: probit, ...labelled },
};

describe('ranking losses of PyTorch in float64', () => {
  it('cover every case of the golden', () => {
    const names = golden.names().flatMap((name) => /^(\w+)\.grad_mu$/.exec(name)?.[1] ?? []);
    expect(Object.keys(cases).sort()).toEqual(names.sort());
  });

  it.each(Object.entries(cases))('%s', async (name, { options, pairs, more, tolerance = 1e-9 }) => {
    const regression = options.loss === 'regression';
    const found = rankingLoss({
      heads: 3,
      mu: mu!,
      ...(options.loss === 'uncertainty' ? { logSigma: logSigma! } : {}),
      ...(pairs === undefined ? {} : { pairs }),
      ...(regression ? { targets: targets! } : {}),
      options: { ...options, ...more },
    });
    expect(Math.abs(found.loss - (await values(`${name}.loss`))[0]!)).toBeLessThan(tolerance);
    expect(maxAbsolute(found.gradMu, await values(`${name}.grad_mu`))).toBeLessThan(tolerance);
    expect(maxAbsolute(found.gradLogSigma, await values(`${name}.grad_log_sigma`))).toBeLessThan(tolerance);
    expect(found.metrics['ranking_loss']).toBe(found.loss);
    if (options.loss !== 'uncertainty') expect(found.gradLogSigma.every((slope) => slope === 0)).toBe(true);
  });

  it.each([
    ['plain', false, 0],
    ['margin', true, 0],
    ['centered', false, 0.01],
    ['both', true, 0.01],
  ] as const)("bradley_terry is TRL's: %s", async (name, hasMargins, centring) => {
    const [chosen, rejected] = [await values('trl.chosen'), await values('trl.rejected')];
    const index = Array.from(chosen.keys());
    const found = rankingLoss({
      heads: 1,
      mu: [...chosen, ...rejected],
      pairs: {
        chosen: index,
        rejected: index.map((i) => i + chosen.length),
        ...(hasMargins ? { margins: await values('trl.margin') } : {}),
      },
      options: { loss: 'bradley_terry', centring },
    });
    expect(Math.abs(found.loss - (await values(`trl.${name}.loss`))[0]!)).toBeLessThan(1e-12);
    expect(maxAbsolute(found.gradMu, await values(`trl.${name}.grad`))).toBeLessThan(1e-12);
  });
});

/** One pair of a single head whose difference is N(m, s^2). */
function difference(m: number, s: number, options: Options): ReturnType<typeof rankingLoss> {
  const half = Math.log(s / Math.SQRT2);
  return rankingLoss({
    heads: 1,
    mu: [m, 0],
    logSigma: [half, half],
    pairs: { chosen: [0], rejected: [1] },
    options: { logSigmaMin: -20, logSigmaMax: 20, ...options },
  });
}
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

describe('ranking losses worked out by hand', () => {
  it.each([-3, -0.4, 0, 1.5])('of a difference of %d', (m) => {
    const bradleyTerry = difference(m, 1, { loss: 'bradley_terry', margin: 0.5 });
    expect(bradleyTerry.loss).toBeCloseTo(-Math.log(sigmoid(m - 0.5)), 13);
    expect(bradleyTerry.gradMu[0]).toBeCloseTo(-sigmoid(0.5 - m), 13);
    expect(bradleyTerry.gradMu[1]).toBe(-bradleyTerry.gradMu[0]!);

    // e^ri / (e^ri + k e^rj), both ways, and what is left for a tie.
    const k = 3;
    const [win, lose] = [Math.exp(m) / (Math.exp(m) + k), 1 / (1 + k * Math.exp(m))];
    const three = { loss: 'bradley_terry_ties', tieRatio: k } as const;
    expect(difference(m, 1, three).loss).toBeCloseTo(-Math.log(win), 13);
    const tie = rankingLoss({
      heads: 1,
      mu: [m, 0],
      pairs: { chosen: [0], rejected: [1], ties: [1] },
      options: three,
    });
    expect(tie.loss).toBeCloseTo(-Math.log(1 - win - lose), 13);

    const s = 1.7;
    const probitLoss = difference(m, s, probit);
    expect(probitLoss.loss).toBeCloseTo(-Math.log(sigmoid(m / Math.sqrt(1 + (Math.PI * s * s) / 8))), 13);
    // Without spread all forms are Bradley and Terry's.
    for (const form of [uncertain, ofLog, probit])
      expect(difference(m, 1e-6, form).loss).toBeCloseTo(-Math.log(sigmoid(m)), 9);
  });

  it('tells the two forms of uncertainty apart', async () => {
    expect(difference(-1, 2, uncertain).loss).toBeCloseTo(1.04, 2);
    expect(difference(-1, 2, ofLog).loss).toBeCloseTo(1.64, 2);
    const [m, s] = [await values('grid.m'), await values('grid.s')];
    for (const [name, options] of [
      ['grid.log_expectation', uncertain],
      ['grid.expectation_log', ofLog],
    ] as const) {
      const want = await values(name);
      want.forEach((value, i) => {
        const tolerance = s[i]! <= 2 ? 1e-5 : s[i]! <= 5 ? 1e-3 : 1e-2;
        const gap = Math.abs(difference(m[i]!, s[i]!, options).loss - value);
        expect(gap, `${name} of N(${m[i]}, ${s[i]}^2)`).toBeLessThan(tolerance * Math.max(1, value));
      });
    }
  });

  it('fuses heads as independent Gaussians', () => {
    const rows = {
      heads: 2,
      mu: [3, 1, -1, 2],
      logSigma: [0.3, -0.2, 0.1, 0.4],
      pairs: { chosen: [0], rejected: [1] },
    };
    const variances = rows.logSigma.map((one) => Math.exp(2 * one));
    const expected = {
      mean: [2 - 0.5, variances.reduce((sum, one) => sum + one, 0) / 4],
      sum: [4 - 1, variances.reduce((sum, one) => sum + one, 0)],
      min: [1 - -1, variances[1]! + variances[2]!],
    } as const;
    for (const fusion of ['mean', 'sum', 'min'] as const) {
      const [m, variance] = expected[fusion];
      const found = rankingLoss({ ...rows, options: { ...probit, fusion } });
      expect(found.loss, fusion).toBeCloseTo(-Math.log(sigmoid(m / Math.sqrt(1 + (Math.PI * variance) / 8))), 13);
    }
    const chosenBy = (options: Options): number => rankingLoss({ ...rows, options }).loss;
    expect(chosenBy(probit)).toBe(chosenBy({ ...probit, fusion: 'mean' }));
  });

  it('regresses on the targets that are there, and divides by the scores that have one', () => {
    const found = rankingLoss({
      heads: 2,
      mu: [1, 2, 3, 4, 5, 6],
      targets: [0, null, 1, 2, NaN, NaN],
      options: { loss: 'regression', headWeights: [3, 1] },
    });
    expect(found.loss).toBeCloseTo((1 + (3 * 4 + 1 * 4) / 4) / 2, 14);
    expect([...found.gradMu]).toEqual([1, 0, 1.5, 0.5, 0, 0]);
    expect(found.metrics).toEqual({ ranking_loss: found.loss, mean_reward: 3.5, min_reward: 1.5, max_reward: 5.5 });
  });

  it('names what it counts', () => {
    const found = rankingLoss({
      heads: 2,
      mu: [3, 1, 0, 0, 5, -5, 2, 2],
      pairs: { chosen: [0, 1, 2], rejected: [1, 3, 1], ties: [0, 0, 1] },
      options: { loss: 'bradley_terry_ties' },
    });
    // Fused: 2, 0, 0, 2. Pair 0 is won (2 > log 5), pair 1 lost, pair 2 an even tie.
    expect(found.metrics).toEqual({
      ranking_loss: found.loss,
      accuracy: 0.5,
      accuracy_with_ties: 2 / 3,
      margin: 0,
      mean_reward: 1,
      min_reward: 0,
      max_reward: 2,
      'head/0/accuracy': 0.5,
      'head/1/accuracy': 0.5,
    });
  });

  it('clamps log sigma without gradient, and takes no part of a pair without a label', () => {
    const input = { heads: 1, mu: [0.5, 0, 9], logSigma: [3, 0, -9] };
    const pairs = { chosen: [0], rejected: [1] };
    const clamped = rankingLoss({ ...input, pairs, options: uncertain });
    expect(clamped.gradLogSigma[0]).toBe(0);
    expect(clamped.gradLogSigma[1]).not.toBe(0);
    expect(clamped.loss).toBe(rankingLoss({ ...input, logSigma: [2, 0, -5], pairs, options: uncertain }).loss);
    expect(clamped.gradMu[2]).toBe(0);
    const more = rankingLoss({
      ...input,
      pairs: { chosen: [0, 2], rejected: [1, 1], labels: [1, 2] },
      options: uncertain,
    });
    expect(more.loss).toBe(clamped.loss);
    expect(more.gradMu).toEqual(clamped.gradMu);
  });
});

describe('the gradient of rankingLoss', () => {
  const base = { heads: 2, pairs: { chosen: [0, 2, 1], rejected: [1, 3, 3] } };
  const at = Float64Array.from({ length: 16 }, (_, i) => 1.5 * Math.sin(12.9898 * (i + 1)));
  const separate: Pairs = { ...base.pairs, labels: [1, -1, 1, 2, -1, 1] };
  const inputs: [string, Omit<RankingLossInput, 'mu' | 'logSigma'>][] = [];
  for (const fusion of ['mean', 'min', 'sum'] as const) {
    const add = (name: string, options: Options, more: Partial<RankingLossInput> = {}): unknown =>
      inputs.push([
        `${name}, ${fusion}`,
        { ...base, ...more, options: { fusion, centring: 0.03, samples: 33, seed: 4, ...options } },
      ]);
    for (const pairs of [base.pairs, separate]) {
      const kind = pairs === separate ? 'labels' : 'fused';
      const weights = pairs === separate ? { headWeights: [1.5, 0.5] } : {};
      add(`bradley_terry, ${kind}`, { loss: 'bradley_terry', margin: 0.1, ...weights }, { pairs });
      for (const estimator of ['quadrature', 'monte_carlo', 'probit'] as const) {
        for (const form of ['log_expectation', 'expectation_log'] as const) {
          if (estimator === 'probit' && form === 'expectation_log') continue;
          add(`${estimator} of ${form}, ${kind}`, { ...uncertain, estimator, form, ...weights }, { pairs });
        }
      }
    }
    add('ties', { loss: 'bradley_terry_ties' }, { pairs: { ...base.pairs, ties: [0, 1, 0] } });
    add('ties of heads', { loss: 'bradley_terry_ties' }, { pairs: { ...base.pairs, labels: [1, 0, 0, 2, -1, 1] } });
    add('regression', { loss: 'regression' }, { targets: [0.5, null, 1, 2, null, null, -1, 0] });
  }

  it.each(inputs)('is its finite difference: %s', (_name, input) => {
    const run = (point: Float64Array): ReturnType<typeof rankingLoss> =>
      rankingLoss({ ...input, mu: point.subarray(0, 8), logSigma: point.subarray(8) });
    const { gradMu, gradLogSigma } = run(at);
    const step = 2 ** -10;
    const shifted = (i: number, by: number): number => run(at.map((one, j) => (i === j ? one + by : one))).loss;
    // Five points: the error falls with the fourth power of the step.
    const slopes = at.map(
      (_, i) =>
        (8 * (shifted(i, step) - shifted(i, -step)) - shifted(i, 2 * step) + shifted(i, -2 * step)) / (12 * step),
    );
    expect(maxAbsolute([...gradMu, ...gradLogSigma], slopes)).toBeLessThan(1e-9);
    expect(Math.hypot(...gradMu)).toBeGreaterThan(1e-3);
  });

  it('of a step is the sum over its parts, draws included', () => {
    const options = { ...uncertain, estimator: 'monte_carlo', samples: 8, seed: 3 } as const;
    const input = { heads: 2, mu: at.subarray(0, 8), logSigma: at.subarray(8), options, stepCount: 3 };
    const all = rankingLoss({ ...input, pairs: base.pairs });
    const parts = [0, 1, 2].map((p) =>
      rankingLoss({
        ...input,
        pairs: { chosen: [base.pairs.chosen[p]!], rejected: [base.pairs.rejected[p]!], ids: [p] },
      }),
    );
    expect(parts.reduce((sum, { loss }) => sum + loss, 0)).toBeCloseTo(all.loss, 14);
    const sum = all.gradMu.map((_, i) => parts.reduce((total, { gradMu }) => total + gradMu[i]!, 0));
    expect(maxAbsolute(sum, all.gradMu)).toBeLessThan(1e-15);
    expect(rankingLoss({ ...input, pairs: base.pairs, options: { ...options, seed: 4 } }).loss).not.toBe(all.loss);
  });

  it('stays finite where a pair is hopeless', () => {
    for (const m of [-3000, -40, 40, 3000]) {
      for (const options of [uncertain, ofLog, { loss: 'bradley_terry' } as const]) {
        const found = difference(m, 7, options);
        expect(Number.isFinite(found.loss) && found.gradMu.every(Number.isFinite)).toBe(true);
        if (m < 0) expect(found.gradMu[0]).toBeLessThan(-0.4);
      }
    }
  });

  it('takes scores in float32 as they are, and leaves its input alone', () => {
    const [single, spread] = [Float32Array.from(at.subarray(0, 8)), Float32Array.from(at.subarray(8))];
    const input = { ...base, mu: single, logSigma: spread, options: uncertain };
    const before = single.slice();
    const found = rankingLoss(input);
    expect(single).toEqual(before);
    const wide = rankingLoss({ ...input, mu: Float64Array.from(single), logSigma: Float64Array.from(spread) });
    expect(wide).toEqual(found);
  });
});
