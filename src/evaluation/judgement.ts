/**
 * The plain record every metric works on: one completion of one prompt, as it was marked. No engine, no file: whoever
 * judges (a recipe, a server, another program) writes these, and the numbers follow from them alone.
 */
import { z } from 'zod';
import { GavelError } from '../errors.js';

/** Which of the two candidates, in the order the prompt shows them. */
export const choiceSchema = z.enum(['first', 'second', 'tie']);
export type Choice = z.infer<typeof choiceSchema>;

export const judgementSchema = z
  .strictObject({
    item: z.string().min(1).describe('Id of the item; both orders and all samples of an item share it.'),
    subsets: z
      .record(z.string(), z.string())
      .default({})
      .describe('Sub-sets the item belongs to, by the name of the division: {"group": "reasoning"}.'),
    cluster: z
      .string()
      .nullable()
      .default(null)
      .describe('Items that count only when all of them are right, such as the pairs of one ranking; null for none.'),
    unseen: z.boolean().default(false).describe('Belongs to the unseen sub-set, which is reported apart.'),
    order: z.enum(['given', 'swapped']).default('given').describe('Whether the candidates stand as in the data.'),
    direct: z.boolean().default(false).describe('Asked for the answer without chain of thought.'),
    sample: z.number().int().min(0).default(0).describe('Index among the samples of the prompt.'),
    gold: z.string().describe('The gold answer, in the words of this order.'),
    goldChoice: choiceSchema.nullable().default(null).describe('The gold candidate; null where none is compared.'),
    answer: z.string().nullable().describe('The parsed answer; null when there is none.'),
    choice: choiceSchema.nullable().default(null).describe('The candidate the answer names; null when it names none.'),
    correct: z.boolean().describe('The verdict of the verifier.'),
    format: z.boolean().default(true).describe('The completion has the wanted form.'),
    truncated: z.boolean().default(false).describe('The completion ended at the length limit.'),
    length: z.number().int().min(0).default(0).describe('Sampled tokens.'),
    totals: z
      .tuple([z.number(), z.number()])
      .nullable()
      .default(null)
      .describe('Total scores the rationale states for the first and the second candidate; null when unreadable.'),
    extras: z
      .record(z.string(), z.number().nullable())
      .default({})
      .describe('Further numbers of the completion; null where one does not apply.'),
    text: z.string().optional().describe('The completion itself.'),
  })
  .describe('One judged completion.');

export type Judgement = z.infer<typeof judgementSchema>;
/** As it may be written: what has a default may be left out. */
export type JudgementInput = z.input<typeof judgementSchema>;

/** Reads one record. Errors: 'bad_data' naming `where` (a file and line) and the first field that does not fit. */
export function parseJudgement(value: unknown, where: string): Judgement {
  const parsed = judgementSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  const field = path.length > 0 ? z.core.toDotPath(path) : 'the record';
  throw new GavelError(
    'bad_data',
    `Expected a judgement at ${where} but received something else: ${field}: ${message}. docs/evaluation.md describes the fields.`,
    { fields: { where, field } },
  );
}

const noun = '(?:image|video|answer|response|candidate)';
const better = new RegExp(`\\b${noun}\\s*([12])\\s+is\\s+(?:the\\s+)?(?:slightly\\s+|much\\s+)?better\\b`, 'gi');
const named = new RegExp(`\\b${noun}\\s*([12])\\b`, 'gi');
const tied = /\bties?\b|\btied\b|\bequal(?:ly)?\b/i;

/**
 * The candidate an answer names: "Image 1 is better", "Video 2", "Answer 1 is better than Answer 2", or a tie ("Tie", "Both
 * images are equally good"). Null when it names none, or cannot be told.
 */
export function readChoice(answer: string): Choice | null {
  const places = (pattern: RegExp): string[] => [...new Set([...answer.matchAll(pattern)].map(([, place]) => place!))];
  const [winner, ...others] = places(better);
  if (winner !== undefined) return others.length > 0 ? null : winner === '1' ? 'first' : 'second';
  if (tied.test(answer)) return 'tie';
  const [only, ...more] = places(named);
  return only === undefined || more.length > 0 ? null : only === '1' ? 'first' : 'second';
}

/** The same candidate in the other order. */
export function otherOrder(choice: Choice): Choice {
  return choice === 'tie' ? 'tie' : choice === 'first' ? 'second' : 'first';
}

/** The choice in terms of the order of the data. */
export function choiceInData({ order, choice }: Pick<Judgement, 'order' | 'choice'>): Choice | null {
  return choice === null || order === 'given' ? choice : otherOrder(choice);
}
