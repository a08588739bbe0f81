// The decisions of the GRPO recipe without a model: options, what is informative, advantages with a KL, packs, penalties.
import { describe, expect, it, test } from 'vitest';
import { datasetFromRows } from '../../src/data/dataset.js';
import { parseOptions } from '../../src/engine/parse-options.js';
import { datasetPart } from '../../src/recipes/dataset-part.js';
import { groupAdvantages, klEstimate, sampledKl } from '../../src/recipes/grpo-advantages.js';
import { rolloutMetrics } from '../../src/recipes/grpo-metrics.js';
import { grpoObjective } from '../../src/recipes/grpo-objective.js';
import {
  dropsZeroVariance,
  grpoOptionsSchema,
  type GrpoOptions,
  type GrpoSettings,
} from '../../src/recipes/grpo-options.js';
import { nativeGroup, updateBatches } from '../../src/recipes/grpo-pack.js';
import { isInformative, rewardsOf, type RolloutGroup } from '../../src/recipes/grpo-rollout.js';
import { meanMetrics } from '../../src/recipes/grpo-update.js';
import { grpo } from '../../src/recipes/grpo.js';
import { defaultJudge, rewardTable } from '../../src/recipes/judge.js';
import { overlongPenalty } from '../../src/rewards/overlong.js';

const settings = (options: GrpoOptions = {}): GrpoSettings => parseOptions(grpoOptionsSchema, options, 'options');

/** A group whose completions have these lengths and rewards; negative lengths were truncated. */
function group(lengths: readonly number[], rewards: RolloutGroup['rewards'], id = 'a'): RolloutGroup {
  const row = { id, prompt: 'x', images: [], solution: 'y' };
  return {
    prompt: {
      row,
      encoded: { id, promptTokens: Int32Array.of(1, 2, 3), images: [] },
      cursor: { epoch: 0, position: 1, seed: 0, fingerprint: 'f' },
    },
    completions: lengths.map((length, sample) => ({
      item: 0,
      sample,
      tokens: new Int32Array(Math.abs(length)).fill(7),
      logprobs: new Float32Array(Math.abs(length)).fill(-1),
      text: `t${sample}`,
      finishReason: length < 0 ? 'length' : 'stop',
    })),
    rewards,
    verdicts: lengths.map((_, i) => ({ correct: false, answer: i === 0 ? null : 'z' })),
  };
}

describe('options', () => {
  it('are those of the method where nothing is said', () => {
    expect(settings()).toMatchObject({
      lossType: 'grpo',
      epsilon: 0.2,
      beta: 0.04,
      klIn: 'loss',
      klEstimator: 'k3',
      klBiasCorrection: false,
      klClamp: 10,
      dynamicSamplingRounds: 0,
      updatesPerRollout: 1,
      updateBatches: 1,
      maskTruncatedCompletions: false,
      topEntropyQuantile: 1,
    });
  });

  test.each<[string, GrpoOptions]>([
    ['options.epsilonHigh', { lossType: 'cispo' }],
    ['options.dualClip', { dualClip: 0.5 }],
    ['options.dualClip', { dualClip: 3, lossType: 'sapo' }],
    ['options.delta', { delta: 2, lossType: 'vespo' }],
    ['options.beta', { klIn: 'reward', beta: 0 }],
    ['options.klBiasCorrection', { klIn: 'reward', klBiasCorrection: true }],
    ['options.klIn', { klIn: 'reward', aggregation: 'normalize_then_sum' }],
    ['options.aggregation', { aggregation: 'normalize_then_sum', scaleRewards: 'group' }],
    ['options.aggregation', { aggregation: 'normalize_then_sum', baseline: 'leave_one_out' }],
    ['options.overlongPenalty.buffer', { overlongPenalty: { buffer: 11 }, maxCompletionLength: 10 }],
    ['options.updateBatches', { promptsPerStep: 16, updateBatches: 3 }],
    ['options.topEntropyQuantile', { topEntropyQuantile: 0 }],
    ['options.groupSize', { groupSize: 1 }],
    ['options.offPolicyThreshold', { offPolicyThreshold: -1 }],
  ])('refuses %s in %j', (name, options) => {
    expect(() => settings(options)).toThrow(
      expect.objectContaining({ code: 'invalid_argument', fields: expect.objectContaining({ name }) as object }),
    );
  });

  it('become the objective: the KL leaves the loss for the reward, epsilonHigh follows epsilon', () => {
    expect(grpoObjective(settings({ epsilon: 0.3 }))).toMatchObject({ epsilonLow: 0.3, epsilonHigh: 0.3, beta: 0.04 });
    expect(grpoObjective(settings({ klIn: 'reward' }))).toMatchObject({ beta: 0 });
    expect(grpoObjective(settings())).not.toHaveProperty('offPolicyThreshold');
    const cispo = grpoObjective(settings({ lossType: 'cispo', epsilonHigh: 5, offPolicyThreshold: 0.1 }));
    expect(cispo).toMatchObject({ epsilonHigh: 5, offPolicyThreshold: 0.1 });
  });

  test.each<[GrpoOptions, boolean]>([
    [{}, false],
    [{ beta: 0 }, true],
    [{ beta: 0, entropyCoef: 0.01 }, false],
    [{ beta: 0, topEntropyQuantile: 0.2 }, false],
    [{ beta: 0, dropZeroVarianceGroups: false }, false],
    [{ dropZeroVarianceGroups: true }, true],
  ])('%j drops groups with equal rewards: %s', (options, drops) => {
    expect(dropsZeroVariance(settings(options))).toBe(drops);
  });

  it('a judge without rewards, or with two of one name, is refused before anything runs', () => {
    const data = datasetFromRows('d', [{ id: 'a', prompt: 'x', images: [], solution: 'y' }]);
    const validation = { set: { name: 'v', size: 0, item: async () => Promise.reject(new Error('none')) } };
    const parts = { data, validation };
    expect(() => grpo({ ...parts, judge: { ...defaultJudge, rewards: [] } })).toThrow(
      expect.objectContaining({ code: 'invalid_config' }),
    );
    const judge = { ...defaultJudge, rewards: [{ name: 'overlong', reward: () => 0 }] };
    expect(() => grpo({ ...parts, judge, options: { overlongPenalty: { buffer: 4 } } })).toThrow(/distinct names/);
    expect(() => grpo({ data })).toThrow(/^Expected rows to validate on: the gate/);
    expect(grpo({ data, options: { gate: { enabled: false } } }).kind).toBe('grpo');
  });
});

describe('what is informative', () => {
  const plain = { aggregation: 'sum_then_normalize' } as const;
  test.each<[string, RolloutGroup['rewards'], number[], boolean]>([
    ['differing rewards', [[1], [0]], [1], true],
    ['equal rewards', [[0.1 + 0.2], [0.3], [0.3]], [1], false],
    ['nothing but missing ones', [[null], [null]], [1], false],
    ['one present', [[1], [null]], [1], false],
    [
      'what cancels in the sum',
      [
        [1, 0],
        [0, 1],
      ],
      [1, 1],
      false,
    ],
    [
      'what differs in weight 0 alone',
      [
        [1, 0],
        [1, 1],
      ],
      [1, 0],
      false,
    ],
  ])('%s', (_, rewards, weights, informative) => {
    expect(isInformative(rewards, weights, plain)).toBe(informative);
  });

  it('z-scores do not cancel where sums do, when weights differ', () => {
    const rewards = [
      [1, 0],
      [0, 2],
    ];
    expect(isInformative(rewards, [2, 1], plain)).toBe(false);
    expect(isInformative(rewards, [2, 1], { aggregation: 'normalize_then_sum' })).toBe(true);
  });
});

describe('KL in the reward', () => {
  const options = { klEstimator: 'k3', klClamp: 10 } as const;
  it('has the three estimates, with d = reference - policy', () => {
    const d = 0.3;
    expect(klEstimate(-1, -0.7, { ...options, klEstimator: 'k1' })).toBeCloseTo(-d, 12);
    expect(klEstimate(-1, -0.7, { ...options, klEstimator: 'k2' })).toBeCloseTo((d * d) / 2, 12);
    expect(klEstimate(-1, -0.7, options)).toBeCloseTo(Math.exp(d) - d - 1, 12);
    expect(klEstimate(-1, -1, options)).toBe(0);
  });

  it('clamps the difference', () => {
    expect(klEstimate(0, -20, { klEstimator: 'k1', klClamp: 5 })).toBe(5);
    expect(klEstimate(0, -20, { klEstimator: 'k1', klClamp: 0 })).toBe(20);
  });

  it('sums over a completion and charges the reward; statistics stay those of the rewards', () => {
    const one = group([2, 1], [[1], [1]]);
    const scored = [
      {
        ...nativeGroup(one, { temperature: 1 }),
        completions: [
          {
            tokens: new Int32Array(2),
            oldLogprobs: Float32Array.of(-1, -1),
            referenceLogprobs: Float32Array.of(-2, -2),
          },
          { tokens: new Int32Array(1), oldLogprobs: Float32Array.of(-1), referenceLogprobs: Float32Array.of(-1) },
        ],
      },
    ];
    const kl = sampledKl(scored, { klEstimator: 'k1', klClamp: 0 });
    expect(kl).toEqual({ sums: [2, 0], mean: 2 / 3 });
    const found = groupAdvantages(
      [one],
      { weights: [1] },
      settings({ groupSize: 2, klIn: 'reward', beta: 0.5, scaleRewards: 'none' }),
      kl,
    );
    expect([...found.advantages]).toEqual([-0.5, 0.5]);
    expect([...found.rewards]).toEqual([1, 1]);
    expect(found.fracRewardZeroStd).toBe(1);
    const missing = group([2, 1], [[null], [1]]);
    const without = groupAdvantages(
      [missing],
      { weights: [1] },
      settings({ groupSize: 2, klIn: 'reward', scaleRewards: 'none' }),
      kl,
    );
    expect([...without.advantages]).toEqual([0, 0]);
  });
});

describe('packs', () => {
  const groups = [
    group([3, 5], [[1], [0]], 'a'),
    group([2, 2], [[1], [1]], 'b'),
    group([4, -8], [[0], [1]], 'c'),
    group([-8, -8], [[0], [1]], 'd'),
  ];
  const rollout = { groups, weights: [1] };
  const advantages = Float64Array.of(1, -1, 0, 0, -1, 1, -1, 1);

  it('count what they leave out: equal rewards', () => {
    const [batch, ...more] = updateBatches(rollout, advantages, settings({ groupSize: 2, promptsPerStep: 4, beta: 0 }));
    expect(more).toEqual([]);
    expect(batch!.groups.map(({ completions }) => completions.length)).toEqual([2, 2, 2]);
    expect(batch).toMatchObject({ stepCompletions: 8, stepTokens: 40 });
    expect(batch!.groups[1]!.completions.map(({ advantage }) => advantage)).toEqual([-1, 1]);
  });

  it('keep equal rewards where they carry a KL', () => {
    const [batch] = updateBatches(rollout, advantages, settings({ groupSize: 2, promptsPerStep: 4 }));
    expect(batch!.groups).toHaveLength(4);
  });

  it('masked completions count as rows, not as tokens, and are not packed', () => {
    const options = settings({ groupSize: 2, promptsPerStep: 4, maskTruncatedCompletions: true });
    const [batch] = updateBatches(rollout, advantages, options);
    expect(batch!.groups.map(({ completions }) => completions.length)).toEqual([2, 2, 1]);
    expect(batch!.groups[2]!.completions[0]).toMatchObject({ advantage: -1 });
    expect(batch).toMatchObject({ stepCompletions: 8, stepTokens: 16 });
  });

  it('mini-batches have denominators of their own; one may be empty', () => {
    const options = settings({ groupSize: 2, promptsPerStep: 4, updateBatches: 2, maskTruncatedCompletions: true });
    const batches = updateBatches(
      { ...rollout, groups: [...groups.slice(0, 2), groups[3]!, groups[3]!] },
      advantages,
      options,
    );
    expect(batches).toMatchObject([
      { stepCompletions: 4, stepTokens: 12 },
      { groups: [], stepCompletions: 4, stepTokens: 0 },
    ]);
  });
});

describe('metrics', () => {
  const groups = [
    group(
      [3, -8],
      [
        [1, null],
        [0, null],
      ],
    ),
    group(
      [2, 2],
      [
        [1, null],
        [1, null],
      ],
    ),
  ];
  const rollout = {
    groups: groups.slice(0, 1),
    drawn: groups,
    names: ['own', 'none'],
    weights: [1, 1],
    rounds: 1,
    replaced: 1,
  };

  it('are of everything drawn, by the names of the field', () => {
    expect(rolloutMetrics(rollout, (text) => text === 't0')).toEqual({
      reward: 0.75,
      reward_std: 0.5,
      frac_reward_zero_std: 0.5,
      'completions/mean_length': 3.75,
      'completions/min_length': 2,
      'completions/max_length': 8,
      'completions/mean_terminated_length': 7 / 3,
      'completions/min_terminated_length': 2,
      'completions/max_terminated_length': 3,
      'completions/clipped_ratio': 0.25,
      'rewards/own/mean': 0.75,
      'rewards/own/std': 0.5,
      format_rate: 0.5,
      parse_fail: 0.5,
      'dynamic_sampling/rounds': 1,
      'dynamic_sampling/groups_drawn': 2,
      'dynamic_sampling/groups_replaced': 1,
    });
  });

  it('say nothing where no reward is there, and 0 where nothing ended by itself', () => {
    const silent = [group([-4, -4], [[null], [null]])];
    const metrics = rolloutMetrics(
      { ...rollout, groups: silent, drawn: silent, names: ['own'], weights: [1] },
      () => true,
    );
    expect(metrics).not.toHaveProperty('reward');
    expect(metrics).not.toHaveProperty(['rewards/own/mean']);
    expect(metrics).toMatchObject({ 'completions/mean_terminated_length': 0, 'completions/clipped_ratio': 1 });
  });

  it('of several updates are means, and extremes where the name says so', () => {
    const steps = [
      { kl: 1, 'clip_ratio/low_min': 0.2, 'clip_ratio/high_max': 0.1 },
      { kl: 3, 'clip_ratio/low_min': 0.1, 'clip_ratio/high_max': 0.4 },
    ];
    expect(meanMetrics(steps)).toEqual({ kl: 2, 'clip_ratio/low_min': 0.1, 'clip_ratio/high_max': 0.4 });
    expect(meanMetrics([])).toEqual({});
  });
});

describe('overlong penalty', () => {
  const row = { id: 'a', prompt: 'x', images: [] };
  const of = (length: number): unknown =>
    overlongPenalty({ maxCompletionLength: 100, buffer: 20 })({
      row,
      completion: '',
      tokens: new Int32Array(length),
      finishReason: 'stop',
    });

  test.each([
    [0, 0],
    [80, 0],
    [81, -0.05],
    [90, -0.5],
    [100, -1],
    [120, -1],
  ])('%i tokens: %f', (length, reward) => expect(of(length)).toBe(reward));

  it('joins the rewards of the judge, weighted', () => {
    const options = settings({ maxCompletionLength: 100, overlongPenalty: { buffer: 20, weight: 0.5 } });
    const rewards = rewardsOf(defaultJudge, options);
    expect(rewards.map(({ name, weight = 1 }) => [name, weight])).toEqual([
      ['format', 1],
      ['accuracy', 1],
      ['overlong', 0.5],
    ]);
    expect(rewardsOf(defaultJudge, settings())).toBe(defaultJudge.rewards);
  });

  test.each([
    { maxCompletionLength: 0, buffer: 1 },
    { maxCompletionLength: 10, buffer: 11 },
    { maxCompletionLength: 10, buffer: 0 },
    { maxCompletionLength: 10.5, buffer: 1 },
  ])('refuses %j', (options) => {
    expect(() => overlongPenalty(options)).toThrow(expect.objectContaining({ code: 'invalid_argument' }));
  });
});

describe('edges', () => {
  const rows = [{ id: 'a', prompt: 'x', images: [], solution: 'y' }];

  it('a part of nothing is a typed error that says why', () => {
    expect(() => datasetPart(datasetFromRows('pool', rows), 'hard', [])).toThrow(
      expect.objectContaining({
        code: 'bad_data',
        message: expect.stringMatching(/"pool" for "hard".*all right/) as string,
      }),
    );
  });

  it('an aborted signal does not wait for a slow reward', async () => {
    const controller = new AbortController();
    const reason = new Error('enough');
    const judge = { rewards: [{ name: 'slow', reward: () => new Promise<number>(() => undefined) }] };
    const completion = group([1], [[0]]).completions;
    const table = rewardTable(judge, rows, completion, controller.signal);
    controller.abort(reason);
    await expect(table).rejects.toBe(reason);
    await expect(rewardTable(judge, rows, completion, controller.signal)).rejects.toBe(reason);
  });
});
