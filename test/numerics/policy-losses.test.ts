// What TRL's own code does not have, and every option of every loss at once: against PyTorch's autograd in float64.
import { describe, expect, it } from 'vitest';
import { readFileSync } from 'node:fs';
import { dpoLoss, grpoLoss, type DpoLossInput, type GrpoLossInput } from '../../src/kernels.js';
import { goldenFolder, maxAbsolute } from './golden.js';

interface GrpoCase {
  options: NonNullable<GrpoLossInput['options']>;
  sampled: boolean;
  weighted: boolean;
  loss: number;
  gradient: number[];
  entropyGradient: number[];
}

interface DpoCase {
  options: NonNullable<DpoLossInput['options']>;
  chosen: number[];
  rejected: number[];
  loss: number;
  gradient: number[];
  metrics: Record<string, number>;
}

const golden = JSON.parse(readFileSync(`${goldenFolder}policy_losses.json`, 'utf8')) as {
  inputs: Record<string, number[][]> & { advantages: number[] };
  grpo: GrpoCase[];
  dpo: DpoCase[];
};
const flat = (name: string): Float64Array => Float64Array.from((golden.inputs[name] as number[][]).flat());
const mask = Uint8Array.from(flat('mask'));
const offsets = Int32Array.of(0, 3, 6, 9, 12);
const logprobs = flat('logprobs');
const oldLogprobs = flat('oldLogprobs');
const referenceLogprobs = flat('referenceLogprobs');
const samplingLogprobs = flat('samplingLogprobs');
const importanceRatio = oldLogprobs.map((old, t) =>
  mask[t] === 1 ? Math.min(Math.exp(old - samplingLogprobs[t]!), 3) : 1,
);

describe('policy losses', () => {
  it('cover every option', () => {
    const seen = new Set(golden.grpo.flatMap(({ options }) => Object.keys(options)));
    expect([...seen].sort()).toEqual([
      ...[
        'beta',
        'delta',
        'dualClip',
        'entropyCoef',
        'epsilonHigh',
        'importanceSampling',
        'klBiasCorrection',
        'klClamp',
      ],
      ...['klEstimator', 'lossType', 'offPolicyThreshold', 'sapoTemperatureNegative', 'sapoTemperaturePositive'],
      ...['topEntropyQuantile', 'vespoKNegative', 'vespoKPositive', 'vespoLambdaNegative', 'vespoLambdaPositive'],
    ]);
  });

  it.each(golden.grpo.map((one) => [`${JSON.stringify(one.options)} ${one.sampled}`, one] as const))(
    '%s',
    (_name, { options, sampled, weighted, loss, gradient, entropyGradient }) => {
      const found = grpoLoss({
        logprobs,
        oldLogprobs,
        referenceLogprobs,
        ...(sampled ? { samplingLogprobs } : {}),
        ...(weighted ? { importanceRatio } : {}),
        entropies: flat('entropies'),
        mask,
        offsets,
        advantages: Float64Array.from(golden.inputs.advantages),
        options: { klClamp: 0, maxCompletionLength: 4, ...options },
      });
      expect(Math.abs(found.loss - loss)).toBeLessThan(1e-14);
      expect(maxAbsolute(found.gradient, gradient)).toBeLessThan(1e-14);
      expect(maxAbsolute(found.entropyGradient, entropyGradient)).toBeLessThan(1e-16);
    },
  );
});

describe('preference losses', () => {
  it.each(
    golden.dpo.map(
      (one) => [`${JSON.stringify(one.options)} of ${one.chosen.join()} over ${one.rejected.join()}`, one] as const,
    ),
  )('%s', (_name, { options, chosen, rejected, loss, gradient, metrics }) => {
    const pairs = { chosen: Int32Array.from(chosen), rejected: Int32Array.from(rejected) };
    const found = dpoLoss({ logprobs, referenceLogprobs, mask, offsets, ...pairs, options });
    expect(Math.abs(found.loss - loss)).toBeLessThan(1e-13);
    expect(maxAbsolute(found.gradient, gradient)).toBeLessThan(1e-14);
    expect(Object.keys(found.metrics).sort()).toEqual(Object.keys(metrics).sort());
    for (const [name, value] of Object.entries(metrics)) {
      expect(Math.abs(found.metrics[name]! - value), name).toBeLessThan(1e-14);
    }
  });

  it('are log 2 where the policy is the reference, and finite where a margin is huge', () => {
    const pairs = { chosen: Int32Array.of(0, 2), rejected: Int32Array.of(1, 3) };
    const same = { logprobs, referenceLogprobs: logprobs, mask, offsets, ...pairs };
    expect(dpoLoss(same).loss).toBe(Math.LN2);
    expect(dpoLoss({ ...same, options: { loss: 'ipo', beta: 0.5 } }).loss).toBe(1);
    for (const sign of [-1, 1]) {
      const far = dpoLoss({ ...same, referenceLogprobs: logprobs.map((value, t) => value + (t < 3 ? sign * 1e4 : 0)) });
      expect(Number.isFinite(far.loss)).toBe(true);
      expect(far.gradient.every(Number.isFinite)).toBe(true);
    }
  });

  it('are of the whole step when it is split', () => {
    const input = { logprobs, referenceLogprobs, mask, offsets };
    const [a, b] = [0, 1].map((p) =>
      dpoLoss({ ...input, chosen: Int32Array.of(2 * p), rejected: Int32Array.of(2 * p + 1), numPairs: 2 }),
    );
    const whole = dpoLoss({ ...input, chosen: Int32Array.of(0, 2), rejected: Int32Array.of(1, 3) });
    expect(a!.loss + b!.loss).toBeCloseTo(whole.loss, 15);
    expect(a!.gradient.map((value, t) => value + b!.gradient[t]!)).toEqual(whole.gradient);
  });
});
