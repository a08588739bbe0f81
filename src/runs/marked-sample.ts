/** One line of a run's sample pool: what was drawn, by which weights, and what the verifiers said. */
import { z } from 'zod';

export const markedSampleSchema = z
  .object({
    item: z.string().describe('Id of the row it answers.'),
    checkpoint: z.string().describe('Name of the weights that drew it.'),
    sample: z.number().int().min(0).describe('Index among the samples of the item under this checkpoint.'),
    stage: z.string().optional().describe('Stage of the run that drew it.'),
    step: z.number().int().min(0).optional().describe('Steps the stage had done.'),
    seed: z.number().int().describe('Key of the sampling.'),
    temperature: z.number().describe('Sampling temperature.'),
    recency: z.number().describe('Higher is newer.'),
    text: z.string().describe('The completion.'),
    numTokens: z.number().int().min(0).describe('Its tokens, the one that ended it included.'),
    finishReason: z.enum(['stop', 'length']).describe('Ended by itself, or cut at the longest length.'),
    rewards: z
      .record(z.string(), z.number().nullable())
      .describe('What the verifiers said, by name; null is no opinion.'),
    advantage: z.number().nullable().optional().describe('What it was trained with; absent when it was not.'),
    answer: z.string().nullable().describe('The parsed answer; null when there is none.'),
    correct: z.boolean().describe('The verdict.'),
    unmarked: z
      .literal(true)
      .optional()
      .describe('Kept by an evaluation, which marks it when it ends: `answer` and `correct` say nothing here.'),
    evaluation: z
      .object({
        name: z.string().describe('The evaluation set.'),
        item: z.string().describe('Id of the row in it.'),
        order: z.enum(['given', 'swapped']).describe('Whether the candidates stood as in the data.'),
        direct: z.boolean().describe('Asked for the answer without chain of thought.'),
      })
      .optional()
      .describe('What an evaluation asked; `item` above is then a key of the pool alone.'),
  })
  .describe('A marked sample.');

/** One marked sample. */
export type MarkedSample = z.infer<typeof markedSampleSchema>;

/** The stage that drew a sample, as far as the sample tells. */
export const stageOfSample = ({ stage, checkpoint }: Pick<MarkedSample, 'stage' | 'checkpoint'>): string | undefined =>
  stage ?? /^(.+)@\d+$/.exec(checkpoint)?.[1];

/** The evaluation that kept a sample; of an older pool it is read from the key, and nothing else is known. */
export const evaluationOfSample = ({
  item,
  unmarked,
  evaluation,
}: Pick<MarkedSample, 'item' | 'unmarked' | 'evaluation'>): string | undefined =>
  unmarked === true
    ? (evaluation?.name ?? /^evaluation \((.*?)(?: [0-9a-f]{32,64})?, seed \d/.exec(item)?.[1] ?? '')
    : undefined;
