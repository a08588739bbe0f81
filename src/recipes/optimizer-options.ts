/** Optimizer and step settings that every training recipe shares, and what is derived from the data instead of asked for. */
import { z } from 'zod';
import type { NativeOptimizerOptions } from '../binding/contract.js';
import { adamWSchema } from '../engine/options.js';

/** AdamW but for the learning rate, which a schedule gives. */
export const optimizerSchema = adamWSchema.omit({ learningRate: true }).describe('AdamW settings.');

export type OptimizerSettings = z.infer<typeof optimizerSchema>;

/** Memory and speed of a step; the gradient does not depend on them, up to rounding. */
export const microBatchSchema = z
  .strictObject({
    maxTokens: z
      .number()
      .int()
      .positive()
      .optional()
      .describe('Packed tokens of one micro-batch. Default: derived, between 2048 and 16384.'),
    activationCheckpointing: z
      .boolean()
      .default(false)
      .describe('Recompute each block in the backward pass: less memory, about a third more work.'),
  })
  .describe('How a step is cut into micro-batches.');

export type MicroBatchSettings = z.infer<typeof microBatchSchema>;

const fewestTokens = 2048;
const mostTokens = 16_384;

/**
 * Packed tokens of a micro-batch: what was asked for, else a quarter of the step's tokens within [2048, 16384], so that a
 * small step is one micro-batch and a large one stays within memory.
 */
export function microBatchTokens(settings: MicroBatchSettings, stepTokens: number): number {
  return settings.maxTokens ?? Math.min(mostTokens, Math.max(fewestTokens, Math.ceil(stepTokens / 4)));
}

/** The engine's optimizer options at one learning rate. */
export function optimizerOptions(settings: OptimizerSettings, learningRate: number): NativeOptimizerOptions {
  return { ...settings, learningRate };
}
