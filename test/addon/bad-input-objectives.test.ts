// Objectives that cannot be: options out of range, pairs that are none, inputs that are missing. What each case checks stands
// in bad-input.ts.
import { dpoLoss, grpoLoss } from '../../src/kernels.js';
import type { Group, Objective } from '../../src/engine/index.js';
import { describeMistakes, failureOf, withTrained, type Mistake } from './bad-input.js';
import { textGroup } from './model-fixture.js';

const scored = (): Group => ({
  ...textGroup(),
  completions: textGroup().completions.map((one) => ({
    ...one,
    referenceLogprobs: new Float32Array(one.tokens.length).fill(-6),
  })),
});
const pairs = (chosen: number[], rejected: number[]): { chosen: Int32Array; rejected: Int32Array } => ({
  chosen: Int32Array.from(chosen),
  rejected: Int32Array.from(rejected),
});
const train = (objective: Objective, group: Group = scored(), options = {}): Mistake['make'] => {
  return () => failureOf(() => withTrained((model) => model.forwardBackward([group], [objective], options)));
};
const spoilt = (change: Partial<Group['completions'][number]>): Group => ({
  ...scored(),
  completions: scored().completions.map((one) => ({ ...one, ...change })),
});

describeMistakes('grpo objectives', [
  {
    what: 'a completion without an advantage',
    make: train({ kind: 'grpo' }, spoilt({ advantage: undefined } as object)),
    code: 'invalid_argument',
    expected: /Expected `advantage` of every completion because `objectives\[0\]` trains on it/,
    received: /received one without/,
    advice: /Give 0 where nothing is to be learned/,
  },
  {
    what: 'a misspelt property of a completion',
    make: train({ kind: 'grpo' }, spoilt({ oldLogProbs: new Float32Array(1) } as object)),
    code: 'invalid_argument',
    expected: /Expected no properties but tokens, mask, .*oldLogprobs/,
    received: /for `groups\[0\]\.completions\[0\]` but received `oldLogProbs`/,
    advice: /Correct its name or leave it out/,
  },
  {
    what: 'a dual clip that cuts on-policy ratios',
    make: train({ kind: 'grpo', dualClip: 1 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.dualClip`/,
    received: /received 1/,
    advice: /expected 0, which is off, or a number > 1/,
  },
  {
    what: 'a dual clip of a loss that clips nothing',
    make: train({ kind: 'grpo', lossType: 'sapo', dualClip: 3 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.dualClip`/,
    received: /received 3/,
    advice: /only loss types that clip the ratio have it: grpo, bnpo, dr_grpo, dapo and luspo/,
  },
  {
    what: 'an entropy quantile that keeps nothing',
    make: train({ kind: 'grpo', topEntropyQuantile: 0 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.topEntropyQuantile`/,
    received: /received 0/,
    advice: /must be > 0/,
  },
  {
    what: 'an entropy quantile above all tokens',
    make: train({ kind: 'grpo', topEntropyQuantile: 1.5 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.topEntropyQuantile`/,
    received: /received 1\.5/,
    advice: /must be <= 1/,
  },
  {
    what: 'an entropy quantile beside a threshold',
    make: train({ kind: 'grpo', topEntropyQuantile: 0.5, entropyThreshold: 1 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.entropyThreshold`/,
    received: /received 1/,
    advice: /either given or found/,
  },
  {
    what: 'an entropy quantile of a part of the step',
    make: train({ kind: 'grpo', topEntropyQuantile: 0.5 }, scored(), { stepTokens: 30 }),
    code: 'invalid_argument',
    expected: /Expected all 30 active tokens of the step in one call because `objectives\[0\]\.topEntropyQuantile`/,
    received: /received 10/,
    advice: /Give every completion, those of advantage 0 too, or `entropyThreshold`/,
  },
  {
    what: 'an estimator that does not exist',
    make: train({ kind: 'grpo', klEstimator: 'k4' as never }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.klEstimator`/,
    received: /received "k4"/,
    advice: /one of "k1", "k2", "k3"/,
  },
  {
    what: 'a temperature of nothing',
    make: train({ kind: 'grpo', lossType: 'sapo', sapoTemperatureNegative: 0 }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.sapoTemperatureNegative`/,
    received: /received 0/,
    advice: /must be > 0/,
  },
  {
    what: 'a KL without a reference',
    make: train({ kind: 'grpo', beta: 0.1 }, textGroup()),
    code: 'invalid_argument',
    expected: /Expected `referenceLogprobs` for every token because beta is not 0/,
    received: /received 0 for 5 tokens/,
    advice: /Score them with logprobs\(\) of the frozen reference/,
  },
  {
    what: 'sampling log-probs of other tokens',
    make: train({ kind: 'grpo', offPolicyThreshold: 0.1 }, spoilt({ samplingLogprobs: new Float32Array(4) })),
    code: 'invalid_argument',
    expected: /Expected 5 elements, one per token for `groups\[0\]\.completions\[0\]\.samplingLogprobs`/,
    received: /received Float32Array of 4 elements/,
    advice: /one per token/,
  },
  {
    what: 'a sampling log-prob that is not a number',
    make: train({ kind: 'grpo' }, spoilt({ samplingLogprobs: new Float32Array(5).fill(NaN) })),
    code: 'bad_data',
    expected: /Expected finite numbers for `groups\[0\]\.completions\[0\]\.samplingLogprobs`/,
    received: /received NaN at index 0/,
    advice: /finite/,
  },
  {
    what: 'a negative ratio of trainer over sampler',
    make: train({ kind: 'grpo' }, spoilt({ importanceRatio: new Float32Array(5).fill(-1) })),
    code: 'invalid_argument',
    expected: /Expected ratios >= 0 for `groups\[0\]\.completions\[0\]\.importanceRatio`/,
    received: /received Float32Array of 5 elements/,
    advice: />= 0/,
  },
]);

describeMistakes('dpo objectives', [
  {
    what: 'a pair of a completion that is not there',
    make: train({ kind: 'dpo', pairs: pairs([0], [2]) }),
    code: 'invalid_argument',
    expected: /Expected an index from 0 to 1 for `objectives\[0\]\.pairs\.rejected\[0\]`/,
    received: /received 2/,
    advice: /Completions are counted over all groups of the call, in order/,
  },
  {
    what: 'a pair of one completion with itself',
    make: train({ kind: 'dpo', pairs: pairs([0, 1], [1, 1]) }),
    code: 'invalid_argument',
    expected: /Expected two completions for pair 1 of `objectives\[0\]\.pairs`/,
    received: /received completion 1 twice/,
    advice: /Leave pairs without a preference out/,
  },
  {
    what: 'no pairs',
    make: train({ kind: 'dpo', pairs: pairs([], []) }),
    code: 'invalid_argument',
    expected: /Expected as many chosen as rejected completions, at least one, for `objectives\[0\]\.pairs`/,
    received: /received 0 and 0/,
    advice: /A pair is one entry of each list/,
  },
  {
    what: 'a chosen completion without its rejected one',
    make: train({ kind: 'dpo', pairs: pairs([0, 1], [1]) }),
    code: 'invalid_argument',
    expected: /Expected as many chosen as rejected completions/,
    received: /received 2 and 1/,
    advice: /A pair is one entry of each list/,
  },
  {
    what: 'pairs that are a plain list',
    make: train({ kind: 'dpo', pairs: { chosen: [0], rejected: [1] } as never }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.pairs\.chosen`/,
    received: /received \[0\]/,
    advice: /expected an Int32Array of completions of the call/,
  },
  {
    what: 'a pair without a reference',
    make: train({ kind: 'dpo', pairs: pairs([0], [1]) }, textGroup()),
    code: 'invalid_argument',
    expected:
      /Expected `referenceLogprobs` for every token of completion 0, which `objectives\[0\]\.pairs\.chosen\[0\]`/,
    received: /received 0 for 5 tokens/,
    advice: /Score them with logprobs\(\) of the frozen reference/,
  },
  {
    what: 'a leash of nothing',
    make: train({ kind: 'dpo', beta: 0, pairs: pairs([0], [1]) }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.beta`/,
    received: /received 0/,
    advice: /must be > 0/,
  },
  {
    what: 'preferences that are mostly wrong',
    make: train({ kind: 'dpo', labelSmoothing: 0.5, pairs: pairs([0], [1]) }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.labelSmoothing`/,
    received: /received 0\.5/,
    advice: /must be < 0\.5/,
  },
  {
    what: 'label smoothing of IPO',
    make: train({ kind: 'dpo', loss: 'ipo', labelSmoothing: 0.1, pairs: pairs([0], [1]) }),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.labelSmoothing`/,
    received: /received 0\.1/,
    advice: /IPO has no label smoothing/,
  },
]);

const flat = {
  logprobs: Float64Array.of(-1, -2),
  referenceLogprobs: Float64Array.of(-1, -2),
  mask: Uint8Array.of(1, 1),
  offsets: Int32Array.of(0, 1, 2),
};
const policy = { ...flat, advantages: Float64Array.of(1, -1) };

describeMistakes('kernels of losses', [
  {
    what: 'a dual clip that cuts on-policy ratios',
    make: () => failureOf(() => grpoLoss({ ...policy, options: { dualClip: 0.9 } })),
    code: 'invalid_argument',
    expected: /Expected 0, which is off, or a number > 1 for `input\.options\.dualClip`/,
    received: /received 0\.9/,
    advice: /On-policy ratios are 1/,
  },
  {
    what: 'a dual clip of a loss that clips nothing',
    make: () => failureOf(() => grpoLoss({ ...policy, options: { lossType: 'vespo', dualClip: 3 } })),
    code: 'invalid_argument',
    expected: /Expected 0 with a loss type that does not clip the ratio for `input\.options\.dualClip`/,
    received: /received 3/,
    advice: /Use grpo, bnpo, dr_grpo, dapo or luspo/,
  },
  {
    what: 'an entropy quantile of nothing',
    make: () => failureOf(() => grpoLoss({ ...policy, options: { topEntropyQuantile: 0 } })),
    code: 'invalid_argument',
    expected: /Expected a number > 0 and <= 1 for `input\.options\.topEntropyQuantile`/,
    received: /received 0/,
    advice: /share of active tokens/,
  },
  {
    what: 'a filter without entropies',
    make: () => failureOf(() => grpoLoss({ ...policy, options: { topEntropyQuantile: 0.5 } })),
    code: 'invalid_argument',
    expected: /Expected Float64Array, since tokens are filtered by entropy, for `input\.entropies`/,
    received: /received undefined/,
    advice: /filtered by entropy/,
  },
  {
    what: 'a pair of a sequence that is not there',
    make: () => failureOf(() => dpoLoss({ ...flat, ...pairs([0], [2]) })),
    code: 'invalid_argument',
    expected: /Expected sequences from 0 to 1 for `input\.rejected`/,
    received: /received 2 at index 0/,
    advice: /sequences from 0/,
  },
  {
    what: 'a pair of one sequence with itself',
    make: () => failureOf(() => dpoLoss({ ...flat, ...pairs([1], [1]) })),
    code: 'invalid_argument',
    expected: /Expected two sequences a pair for `input\.rejected`/,
    received: /received sequence 1 twice at index 0/,
    advice: /two sequences/,
  },
  {
    what: 'no pairs',
    make: () => failureOf(() => dpoLoss({ ...flat, ...pairs([], []) })),
    code: 'invalid_argument',
    expected: /Expected at least one sequence for `input\.chosen`/,
    received: /received Int32Array of 0 elements/,
    advice: /at least one/,
  },
  {
    what: 'label smoothing of IPO',
    make: () =>
      failureOf(() => dpoLoss({ ...flat, ...pairs([0], [1]), options: { loss: 'ipo', labelSmoothing: 0.1 } })),
    code: 'invalid_argument',
    expected: /Expected 0 with the loss 'ipo' for `input\.options\.labelSmoothing`/,
    received: /received 0\.1/,
    advice: /'ipo'/,
  },
]);
