/** How completions are drawn: what every recipe that samples lets its user set. */
import { z } from 'zod';

export const stopStringsSchema = z
  .array(z.string().min(1))
  .optional()
  .describe('Texts that end a completion when it contains them; they stay in it.');

export const drawShape = {
  temperature: z.number().positive().default(1).describe('Sampling temperature; logits are divided by it everywhere.'),
  topK: z.number().int().min(1).optional().describe('Draw among the k likeliest tokens.'),
  topP: z.number().gt(0).max(1).optional().describe('Draw among the likeliest tokens of this mass.'),
  minP: z.number().min(0).max(1).optional().describe('Draw among tokens of at least this share of the likeliest.'),
  stopStrings: stopStringsSchema,
};

/** A temperature of 0 is greedy. */
export type DrawSettings = z.output<z.ZodObject<typeof drawShape>>;

/** The part of a recipe's settings that says how to draw. */
export const drawSettingsOf = ({ temperature, topK, topP, minP, stopStrings }: DrawSettings): DrawSettings => ({
  temperature,
  topK,
  topP,
  minP,
  stopStrings,
});
