// Every case of TRL's policy losses through the public kernel: loss, both gradients and metrics, in double.
import { describe, expect, it } from 'vitest';
import { grpoLoss, type GrpoLossInput } from '../../src/kernels.js';
import { Golden, maxAbsolute } from './golden.js';

interface Case {
  name: string;
  config: {
    loss_type: NonNullable<GrpoLossInput['options']>['lossType'] & string;
    importance_sampling_level?: 'token' | 'sequence';
    gradient_accumulation_steps: number;
    max_completion_length: number;
    beta: number;
    delta?: number;
    use_bias_correction_kl?: boolean;
    top_entropy_quantile?: number;
    off_policy_mask_threshold?: number;
    entropy_coef?: number;
    sapo_temperature_pos?: number;
    sapo_temperature_neg?: number;
  };
  options: {
    on_policy?: boolean;
    sampling?: boolean;
    is?: 'token' | 'sequence';
    tool?: boolean;
    empty?: boolean;
    adv_bt?: boolean;
  };
  num_items_in_batch: number;
  epsilon_low: number;
  epsilon_high: number;
  loss: number;
  grad_logps: number[][];
  grad_entropies: number[][] | null;
  metrics: Record<string, number>;
}

const golden = await Golden.open('grpo_loss');
const cases = golden.json.cases as Case[];
const values = async (name: string): Promise<Float64Array> => (await golden.tensor(name)).data;
const [rows, length] = (await golden.tensor('per_token_logps')).shape as [number, number];

async function maskOf({ tool, empty }: Case['options']): Promise<Uint8Array> {
  const mask = Uint8Array.from(await values(empty ? 'completion_mask_with_empty_row' : 'completion_mask'));
  return tool ? mask.map((active, i) => active * toolMask[i]!) : mask;
}
const toolMask = await values('tool_mask');

/** One factor a token, masked ones too: vespo multiplies over all that it is given. */
async function importanceRatio(level: 'token' | 'sequence'): Promise<Float64Array> {
  const ratio = await values(`importance_sampling_ratio_${level}`);
  return level === 'token'
    ? ratio
    : Float64Array.from({ length: rows * length }, (_, i) => ratio[Math.floor(i / length)]!);
}

async function inputOf({ config, options, ...one }: Case): Promise<GrpoLossInput> {
  const mask = await maskOf(options);
  const accumulation = config.gradient_accumulation_steps;
  const wholeBatch = ['dapo', 'cispo', 'vespo'].includes(config.loss_type);
  const active = mask.reduce((sum, bit) => sum + bit, 0);
  return {
    logprobs: await values('per_token_logps'),
    ...(options.on_policy ? {} : { oldLogprobs: await values('old_per_token_logps') }),
    referenceLogprobs: await values('ref_per_token_logps'),
    ...(options.sampling ? { samplingLogprobs: await values('sampling_per_token_logps') } : {}),
    ...(options.is ? { importanceRatio: await importanceRatio(options.is) } : {}),
    entropies: await values('entropies'),
    mask,
    offsets: Int32Array.from({ length: rows + 1 }, (_, row) => row * length),
    ...(options.adv_bt
      ? { tokenAdvantages: await values('advantages_per_token') }
      : { advantages: await values('advantages') }),
    numSequences: rows * accumulation,
    numTokens: wholeBatch ? one.num_items_in_batch : active * accumulation,
    options: {
      lossType: config.loss_type,
      importanceSampling: config.importance_sampling_level ?? 'token',
      epsilonLow: one.epsilon_low,
      epsilonHigh: one.epsilon_high,
      delta: config.delta ?? 0,
      beta: config.beta,
      klBiasCorrection: config.use_bias_correction_kl ?? true,
      klClamp: 0,
      maxCompletionLength: config.max_completion_length,
      ...(config.top_entropy_quantile === undefined ? {} : { topEntropyQuantile: config.top_entropy_quantile }),
      ...(config.off_policy_mask_threshold === undefined
        ? {}
        : { offPolicyThreshold: config.off_policy_mask_threshold }),
      ...(config.entropy_coef === undefined ? {} : { entropyCoef: config.entropy_coef }),
      ...(config.sapo_temperature_pos === undefined ? {} : { sapoTemperaturePositive: config.sapo_temperature_pos }),
      ...(config.sapo_temperature_neg === undefined ? {} : { sapoTemperatureNegative: config.sapo_temperature_neg }),
    },
  };
}

describe('policy losses of TRL 1.13 in float64', () => {
  it('are 47 cases', () => {
    expect(cases).toHaveLength(47);
    expect(new Set(cases.map(({ config }) => config.loss_type)).size).toBe(8);
  });

  it.each(cases.map((one) => [one.name, one] as const))('%s', async (_name, one) => {
    const found = grpoLoss(await inputOf(one));
    expect(Math.abs(found.loss - one.loss)).toBeLessThan(1e-12);
    expect(maxAbsolute(found.gradient, one.grad_logps.flat())).toBeLessThan(1e-13);
    const entropyGradient = one.grad_entropies?.flat() ?? new Array<number>(rows * length).fill(0);
    expect(maxAbsolute(found.entropyGradient, entropyGradient)).toBeLessThan(1e-15);
    // The trainer also reports its own setting of the bonus.
    const { entropy_coef: _setting, ...metrics } = one.metrics;
    for (const [name, value] of Object.entries(metrics)) {
      expect(Math.abs(found.metrics[name]! - value), name).toBeLessThan(1e-12);
    }
  });

  it('name no clip ratio where nothing is clipped so', async () => {
    for (const lossType of ['cispo', 'sapo', 'vespo']) {
      const one = cases.find(({ config }) => config.loss_type === lossType)!;
      expect(Object.keys(grpoLoss(await inputOf(one)).metrics).filter((name) => name.startsWith('clip_'))).toEqual([]);
    }
  });
});
