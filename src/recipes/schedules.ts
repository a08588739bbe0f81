/**
 * Learning-rate schedules as factors of the base rate. Steps count from 0, so the first step of a warm-up has factor 0;
 * values equal transformers' `get_scheduler` of the same kind.
 */
import { z } from 'zod';

export const scheduleKinds = ['constant', 'linear', 'cosine', 'polynomial', 'inverse_sqrt', 'wsd'] as const;

/** How the learning rate moves over a stage. */
export const scheduleSchema = z
  .strictObject({
    kind: z
      .enum(scheduleKinds)
      .default('cosine')
      .describe('Shape after the warm-up; wsd is warm-up, stable, cosine decay.'),
    warmupSteps: z.number().int().min(0).optional().describe('Steps of linear warm-up; wins over `warmupRatio`.'),
    warmupRatio: z.number().min(0).max(1).default(0.03).describe('Warm-up as a share of all steps, rounded up.'),
    minRatio: z.number().min(0).max(1).default(0).describe('Factor at the end of cosine, polynomial and wsd.'),
    power: z.number().positive().default(1).describe('Exponent of polynomial decay.'),
    decaySteps: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('Steps of the decay of wsd. Default: a fifth of all steps.'),
  })
  .describe('Learning-rate schedule.');

export type ScheduleOptions = z.infer<typeof scheduleSchema>;

/** Steps of warm-up out of `totalSteps`. */
export function warmupStepsOf(
  options: Pick<ScheduleOptions, 'warmupSteps' | 'warmupRatio'>,
  totalSteps: number,
): number {
  return options.warmupSteps ?? Math.ceil(options.warmupRatio * totalSteps);
}

/** Factor in [0, 1] of the base learning rate at `step` (from 0) of `totalSteps`. */
export function scheduleFactor(options: ScheduleOptions, step: number, totalSteps: number): number {
  const warmup = warmupStepsOf(options, totalSteps);
  if (step < warmup) return step / Math.max(1, warmup);
  const progress = Math.min(1, (step - warmup) / Math.max(1, totalSteps - warmup));
  const { minRatio } = options;
  switch (options.kind) {
    case 'constant':
      return 1;
    case 'linear':
      return Math.max(0, 1 - progress);
    case 'cosine':
      return minRatio + (1 - minRatio) * cosineDecay(progress);
    case 'polynomial':
      return minRatio + (1 - minRatio) * (1 - progress) ** options.power;
    case 'inverse_sqrt': {
      // Without a warm-up the time scale is transformers' own default.
      const timescale = warmup || 10_000;
      return 1 / Math.sqrt((step + timescale - warmup) / timescale);
    }
    case 'wsd': {
      const decay = options.decaySteps ?? Math.max(1, Math.ceil(totalSteps / 5));
      const decayed = Math.min(1, Math.max(0, (step - (totalSteps - decay)) / decay));
      return minRatio + (1 - minRatio) * cosineDecay(decayed);
    }
  }
}

function cosineDecay(progress: number): number {
  return Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)));
}
