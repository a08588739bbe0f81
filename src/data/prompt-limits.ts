/** Bounds of prompts and their pictures, as users write them: in run.yaml and as options of a policy. */
import { z } from 'zod';

const pixels = z.number().int().min(1).optional();

export const promptLimitsSchema = z
  .strictObject({
    maxPromptTokens: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe("Longest prompt in tokens, images included; a longer one is refused. Default: the model's positions."),
    minPixels: pixels.describe("Smallest picture, in pixels, after resizing. Default: the image processor's."),
    maxPixels: pixels.describe("Largest picture, in pixels, after resizing. Default: the image processor's."),
  })
  .describe('Bounds of prompts and pictures.');

export const dataThreadsOptionsSchema = promptLimitsSchema
  .extend({
    limitPixels: pixels.describe('The largest picture, in pixels, that is decoded at all. Default: 178,956,970.'),
    templateVariables: z.record(z.string(), z.unknown()).optional().describe('Further variables of the chat template.'),
    threads: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('Worker threads. Default: one less than the cores, at most 4.'),
  })
  .describe('How rows are encoded.');
