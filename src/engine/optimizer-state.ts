/** What a trained weight keeps between steps: chosen when a model is made, since masters exist before the first step. */
import { z } from 'zod';
import { GavelError } from '../errors.js';

export const optimizerStateSchema = z
  .strictObject({
    states: z
      .enum(['fp32', 'bf16', 'int8'])
      .default('fp32')
      .describe(
        "AdamW's moments: 8, 4 or 2.03 bytes a weight. bf16 is rounded stochastically; int8 holds codes of blocks of 256.",
      ),
    weights: z
      .enum(['master', 'stochastic'])
      .default('master')
      .describe(
        "How bf16 weights keep small updates: an fp32 master beside them (4 bytes a weight), or stochastic rounding. fp32 weights are their own master, and 'stochastic' is refused.",
      ),
    seed: z.number().int().min(0).default(0).describe('Key of stochastic rounding.'),
  })
  .describe('What the optimizer keeps of each trained weight.');

export type OptimizerStateOptions = z.input<typeof optimizerStateSchema>;
export type OptimizerState = z.output<typeof optimizerStateSchema>;

export const defaultOptimizerState: OptimizerState = optimizerStateSchema.parse({});

/** Refuses stochastic rounding of fp32 weights: it would change nothing, silently. */
export function checkOptimizerState(state: OptimizerState, dtype: 'fp32' | 'bf16'): OptimizerState {
  if (state.weights === 'master' || dtype === 'bf16') return state;
  throw new GavelError(
    'invalid_argument',
    'Expected \'master\' for `optimizer.weights` of an fp32 model but received "stochastic". Stochastic rounding is for ' +
      "weights of dtype 'bf16'; set that, or leave the option out.",
    { fields: { name: 'optimizer.weights', dtype } },
  );
}
