/** Dropout belongs to supervised training: what is sampled with an adapter must be what is trained. */
import { expected } from '../errors.js';

/** Recipes that train on `nll` alone, or train nothing. */
const withoutSampledLogprobs = ['sft', 'rejection', 'r3v', 'select-evaluation', 'evaluate', 'evaluate-scorer'];

/**
 * Throws 'invalid_config', before anything runs, for an adapter with dropout and a stage that compares log-probs of two
 * passes: the engine would refuse its first step, after the stages before it.
 */
export function checkDropout(dropout: number, stages: readonly { name: string; recipe: string }[]): void {
  if (dropout === 0) return;
  const stage = stages.find(({ recipe }) => !withoutSampledLogprobs.includes(recipe));
  if (stage === undefined) return;
  throw expected(
    'invalid_config',
    'model.lora.dropout',
    `0 with a stage of recipe ${stage.recipe} ("${stage.name}")`,
    dropout,
    'With dropout the log-probs of two passes are not those of one policy. Set it to 0, or train that stage in a run of its own.',
    { stage: stage.name },
  );
}
