/**
 * The one gate before reinforcement learning: from chance accuracy it collapses (the reward then teaches nothing but the
 * format), so a policy whose accuracy is not above chance by its confidence bound is refused.
 */
import { z } from 'zod';
import { GavelError } from '../errors.js';
import { wilsonInterval } from '../evaluation/interval.js';

export const gateSchema = z
  .strictObject({
    enabled: z.boolean().default(true).describe('Only a test of the plumbing should turn it off.'),
    chance: z.number().min(0).lt(1).default(0.5).describe('Accuracy of guessing: 0.5 for a choice of two.'),
  })
  .describe('Condition to start reinforcement learning.');

/** Throws 'gate_refused' unless the 95 % Wilson bound of `correct` out of `count` lies above chance. */
export function passGate(
  correct: number,
  count: number,
  { chance, enabled = true }: z.input<typeof gateSchema> & { chance: number },
): void {
  if (!enabled) return;
  const { low, high } = wilsonInterval(correct, count);
  if (count > 0 && low > chance) return;
  const rate =
    count === 0
      ? 'no item'
      : `${(correct / count).toFixed(3)} (95 % interval ${low.toFixed(3)} to ${high.toFixed(3)}, ${count} items)`;
  throw new GavelError(
    'gate_refused',
    `Expected validation accuracy above chance (${chance}) by its confidence bound but received ${rate}. ` +
      'Reinforcement learning from chance collapses: train the cold start longer or on more rationales, ' +
      'or validate on more items if the accuracy is above chance but uncertain.',
    { fields: { chance, count, accuracy: count === 0 ? null : correct / count, low, high } },
  );
}
