/** The goldens of the reference program: one batch as TRL pads it, text or vision. */
import type { NativeGrpoObjective } from '../../src/binding/contract-objectives.js';
import type { NativeGroup } from '../../src/binding/contract.js';
import { group } from './checkpoint.js';
import type { Golden } from './golden.js';

/** TRL's batch, left- and right-padded, as packed groups of one completion; text and vision goldens share the layout. */
export async function goldenGroups(
  golden: Golden,
): Promise<{ groups: NativeGroup[]; picks: { row: number; column: number }[] }> {
  const promptLength: number = golden.json.prompt_len;
  const ids = await golden.tensor('input_ids');
  const attention = await golden.tensor('attention_mask');
  const advantages = await golden.tensor('advantages');
  const old = await golden.tensor('old_per_token_logps');
  const reference = await golden.tensor('ref_per_token_logps');
  const [rows, columns] = ids.shape as [number, number];
  const length = columns - promptLength;
  const groups: NativeGroup[] = [];
  const picks: { row: number; column: number }[] = [];
  for (let row = 0; row < rows; row++) {
    const at = (column: number): number => row * columns + column;
    const real = Array.from({ length: columns }, (_, column) => column).filter(
      (column) => attention.data[at(column)] === 1,
    );
    const prompt = real.filter((column) => column < promptLength).map((column) => ids.data[at(column)]!);
    const completion = real.filter((column) => column >= promptLength);
    for (const column of completion) picks.push({ row, column: column - promptLength });
    const pick = (from: Float64Array): Float32Array =>
      Float32Array.from(completion, (column) => from[row * length + column - promptLength]!);
    groups.push(
      group(prompt, [
        {
          tokens: Int32Array.from(completion, (column) => ids.data[at(column)]!),
          temperature: golden.json.grpo_config.temperature,
          advantage: advantages.data[row]!,
          oldLogprobs: pick(old.data),
          referenceLogprobs: pick(reference.data),
        },
      ]),
    );
  }
  return { groups, picks };
}

/** The objective of that batch. */
export const grpo = (golden: Golden): NativeGrpoObjective => ({
  kind: 'grpo',
  weight: 1,
  lossType: golden.json.grpo_config.loss_type,
  importanceSampling: 'token',
  epsilonLow: golden.json.grpo_config.epsilon,
  epsilonHigh: golden.json.grpo_config.epsilon_high,
  delta: 0,
  beta: golden.json.grpo_config.beta,
  klBiasCorrection: true,
  klClamp: 0,
  maxCompletionLength: golden.json.grpo_config.max_completion_length,
});
