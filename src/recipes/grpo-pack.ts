/**
 * A rollout as the engine packs it, cut into the optimizer steps of one pass. What trains nothing is left out but counted:
 * the denominators are those of the whole optimizer step.
 */
import type { NativeGroup } from '../binding/contract.js';
import { dropsZeroVariance, type GrpoSettings } from './grpo-options.js';
import { isInformative, type Rollout, type RolloutGroup } from './grpo-rollout.js';

/** One optimizer step's share of a rollout. */
export interface UpdateBatch {
  /** The prompt and its pictures stand once a group. Empty when nothing here can train. */
  groups: NativeGroup[];
  /** Denominators, with what is left out: completions, and their tokens less those of masked completions. */
  stepCompletions: number;
  stepTokens: number;
}

/** The group with its stored log-probs and, where given, an advantage for each completion. */
export function nativeGroup(
  { prompt, completions }: RolloutGroup,
  { temperature }: Pick<GrpoSettings, 'temperature'>,
  advantages?: Float64Array,
): NativeGroup {
  const { promptTokens, images } = prompt.encoded;
  return {
    promptTokens,
    images,
    completions: completions.map(({ tokens, logprobs }, i) => ({
      tokens,
      temperature,
      oldLogprobs: logprobs,
      ...(advantages === undefined ? {} : { advantage: advantages[i]! }),
    })),
  };
}

/** The optimizer steps of one pass: equal shares of the prompts, in the order they were drawn. */
export function updateBatches(
  { groups, weights }: Pick<Rollout, 'groups' | 'weights'>,
  advantages: Float64Array,
  options: GrpoSettings,
): UpdateBatch[] {
  const { groupSize } = options;
  const drops = dropsZeroVariance(options);
  const isMasked = ({ finishReason }: RolloutGroup['completions'][number]): boolean =>
    options.maskTruncatedCompletions && finishReason === 'length';
  const share = groups.length / options.updateBatches;
  return Array.from({ length: options.updateBatches }, (_, batch): UpdateBatch => {
    const slots = Array.from({ length: share }, (__, i) => batch * share + i);
    const unmasked = slots.flatMap((slot) => groups[slot]!.completions.filter((completion) => !isMasked(completion)));
    return {
      groups: slots.flatMap((slot) => {
        const group = groups[slot]!;
        if (drops && !isInformative(group.rewards, weights, options)) return [];
        const native = nativeGroup(group, options, advantages.subarray(slot * groupSize, (slot + 1) * groupSize));
        const completions = native.completions.filter((_completion, i) => !isMasked(group.completions[i]!));
        return completions.length === 0 ? [] : [{ ...native, completions }];
      }),
      stepCompletions: slots.length * groupSize,
      stepTokens: unmasked.reduce((sum, { tokens }) => sum + tokens.length, 0),
    };
  });
}
