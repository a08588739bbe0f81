/** The engine's objective of the `grpo` recipe's settings. */
import type { Objective } from '../engine/options.js';
import type { GrpoSettings } from './grpo-options.js';

export function grpoObjective(options: GrpoSettings): Objective {
  const { epsilon, epsilonHigh, beta, klIn, offPolicyThreshold } = options;
  return {
    kind: 'grpo',
    lossType: options.lossType,
    importanceSampling: options.importanceSampling,
    epsilonLow: epsilon,
    epsilonHigh: epsilonHigh ?? epsilon,
    delta: options.delta,
    dualClip: options.dualClip,
    beta: klIn === 'loss' ? beta : 0,
    klEstimator: options.klEstimator,
    klBiasCorrection: options.klBiasCorrection,
    klClamp: options.klClamp,
    entropyCoef: options.entropyCoef,
    topEntropyQuantile: options.topEntropyQuantile,
    ...(offPolicyThreshold === undefined ? {} : { offPolicyThreshold }),
    sapoTemperaturePositive: options.sapoTemperaturePositive,
    sapoTemperatureNegative: options.sapoTemperatureNegative,
    vespoKPositive: options.vespoKPositive,
    vespoLambdaPositive: options.vespoLambdaPositive,
    vespoKNegative: options.vespoKNegative,
    vespoLambdaNegative: options.vespoLambdaNegative,
    maxCompletionLength: options.maxCompletionLength,
  };
}
