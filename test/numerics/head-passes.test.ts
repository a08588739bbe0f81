// One pass through the language head and two give a step the same bits. A threshold of the drift of whole sequences that
// none of them reaches changes no loss, but makes a token's gradient wait for the others: the way to ask for two passes.
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine } from '../../src/engine/engine.js';
import type { Group, Model } from '../../src/engine/model.js';
import type { LoadModelOptions, Objective } from '../../src/engine/options.js';
import { goldenFolder } from './golden.js';

const noise = (index: number): number => Math.abs(Math.sin(index * 12.9898) * 43758.5453) % 1;
const tokensOf = (length: number, seed: number): Int32Array =>
  Int32Array.from({ length }, (_, i) => 3 + Math.floor(noise(seed * 97 + i) * 500));

// More than 1024 tokens: several blocks of targets. The last row of a prompt predicts the first token of eight.
const bare: Group[] = [130, 17].map((length, g) => ({
  promptTokens: tokensOf(9 + g, g),
  images: [],
  completions: Array.from({ length: 8 }, (_, c) => ({
    tokens: tokensOf(length + c, 10 * g + c + 2),
    temperature: c % 2 === 0 ? 1 : 0.8,
    advantage: noise(g * 10 + c) * 3 - 1.5,
  })),
}));

interface Step {
  loss: number;
  logprobs: Float32Array;
  metrics: Record<string, number>;
  gradients: [string, Float32Array][];
}

describe('the language head of a step', async () => {
  const engine = await createEngine({ threads: 2 });
  afterAll(() => engine.dispose());

  const withOld = async (model: Model): Promise<Group[]> => {
    const { logprobs } = await model.logprobs(bare);
    let at = 0;
    return bare.map((group) => ({
      ...group,
      completions: group.completions.map((completion) => {
        const own = logprobs.slice(at, (at += completion.tokens.length));
        const oldLogprobs = own.map((value, i) => value + (noise(i + at) - 0.5) * 0.6);
        return { ...completion, oldLogprobs, referenceLogprobs: own.map((value, i) => value + noise(i) * 0.2) };
      }),
    }));
  };

  const step = async (model: Model, groups: Group[], objectives: Objective[], budget = 16384): Promise<Step> => {
    await model.zeroGradients();
    const { loss, logprobs, metrics } = await model.forwardBackward(groups, objectives, {
      maxTokensPerMicroBatch: budget,
    });
    const trained = model.tensors().filter(({ trainable }) => trainable);
    const gradients = await Promise.all(
      trained.map(async ({ name }) => [name, await model.readTensor(name, 'gradient')] as [string, Float32Array]),
    );
    delete metrics['off_policy_mask_ratio'];
    return { loss, logprobs, metrics, gradients };
  };

  const objectives = {
    grpo: { kind: 'grpo', lossType: 'grpo', beta: 0.04 },
    dapo: { kind: 'grpo', lossType: 'dapo', epsilonHigh: 0.28, entropyCoef: 0.01, entropyThreshold: 1 },
    cispo: { kind: 'grpo', lossType: 'cispo', epsilonHigh: 3 },
    sapo: { kind: 'grpo', lossType: 'sapo' },
    quantile: { kind: 'grpo', lossType: 'dapo', topEntropyQuantile: 0.3 },
  } satisfies Record<string, Objective>;
  const models: Record<string, LoadModelOptions> = {
    'every weight, fp32': { dtype: 'fp32' },
    'every weight, bf16': { dtype: 'bf16' },
    'an adapter with token rows, bf16': { dtype: 'bf16', lora: { rank: 4, trainableTokens: [300, 5] } },
    'a frozen head, fp32': { dtype: 'fp32', lora: { rank: 4 } },
  };

  it.each(Object.entries(models))('%s: one pass has the bits of two', async (_name, options) => {
    const model = await engine.loadModel(`${goldenFolder}micro-text`, options);
    const groups = await withOld(model);
    for (const [name, objective] of Object.entries(objectives)) {
      // A quantile is known before the head only where the step has several micro-batches.
      const budget = name === 'quantile' ? 1200 : 16384;
      const one = await step(model, groups, [objective], budget);
      const two = await step(model, groups, [{ ...objective, offPolicyThreshold: 1e30 }], budget);
      expect(one, name).toEqual(two);
      expect(one.gradients.some(([, values]) => values.some((value) => value !== 0))).toBe(true);
    }
    const nll: Objective = { kind: 'nll' };
    const waiting: Objective = { kind: 'grpo', lossType: 'grpo', weight: 1e-300, offPolicyThreshold: 1e30 };
    const [one, two] = [await step(model, groups, [nll]), await step(model, groups, [nll, waiting])];
    expect(one.metrics['nll']).toBe(two.metrics['nll']);
    expect({ ...one, metrics: {} }).toEqual({ ...two, metrics: {} });
    await model.dispose();
  });
});
