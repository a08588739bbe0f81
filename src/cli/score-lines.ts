/** The lines that `gavel score` prints and `gavel eval --from` reads. */
import { z } from 'zod';
import type { PairRow } from '../data/pairs.js';
import { choiceSchema, type Choice } from '../evaluation/judgement.js';
import type { ScoredPair } from '../evaluation/scores.js';
import type { RowScore } from '../recipes/score-rows.js';
import { GavelError } from '../errors.js';

const byHead = z.record(z.string(), z.number());

const rowLineSchema = z
  .strictObject({
    id: z.string().describe('Id of the candidate.'),
    mu: byHead.describe('Mean of the score of each head, by its name.'),
    sigma: byHead.describe('Standard deviation of each head, by its name.'),
    score: z.number().describe('The heads as one score: its mean.'),
    scoreSigma: z.number().min(0).describe('Its standard deviation.'),
  })
  .describe('The score of one candidate.');

const pairLineSchema = z
  .strictObject({
    id: z.string().min(1).describe('Id of the pair.'),
    preference: choiceSchema.describe('The preference that the data say.'),
    preferred: choiceSchema.describe('The candidate of the higher score; a tie where they are equal.'),
    margin: z.number().describe('Score of the first candidate less that of the second.'),
    first: rowLineSchema,
    second: rowLineSchema,
  })
  .describe('The scores of a pair.');

export type RowLine = z.infer<typeof rowLineSchema>;
export type PairLine = z.infer<typeof pairLineSchema>;

export function rowLine(id: string, { mu, sigma, fused }: RowScore, names: readonly string[]): RowLine {
  const byName = (values: readonly number[]): Record<string, number> =>
    Object.fromEntries(names.map((name, head) => [name, values[head]!]));
  return { id, mu: byName(mu), sigma: byName(sigma), score: fused.mu, scoreSigma: fused.sigma };
}

export function pairLine(
  { id, preference, first, second }: PairRow,
  scores: { first: RowScore; second: RowScore },
  names: readonly string[],
): PairLine {
  const margin = scores.first.fused.mu - scores.second.fused.mu;
  const preferred: Choice = margin > 0 ? 'first' : margin < 0 ? 'second' : 'tie';
  return {
    id,
    preference,
    preferred,
    margin,
    first: rowLine(first.id, scores.first, names),
    second: rowLine(second.id, scores.second, names),
  };
}

/** Whether a record may be a line of a pair. */
export const isPairLine = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && 'preferred' in value;

/** A line of a pair as `evaluateScores` takes it. Errors: 'bad_data' naming `where` and the first field that does not fit. */
export function scoredPairOf(value: unknown, where: string): ScoredPair {
  const parsed = pairLineSchema.safeParse(value);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    const field = path.length > 0 ? z.core.toDotPath(path) : 'the record';
    throw new GavelError(
      'bad_data',
      `Expected a pair that \`gavel score\` printed at ${where} but received something else: ${field}: ${message}. docs/cli.md describes the fields.`,
      { fields: { where, field } },
    );
  }
  const { id, preference, first, second } = parsed.data;
  return {
    item: id,
    subsets: {},
    preference,
    first: { mu: first.score, sigma: first.scoreSigma },
    second: { mu: second.score, sigma: second.scoreSigma },
  };
}
