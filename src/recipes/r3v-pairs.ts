/**
 * Preference pairs from a marked pool, for the baseline STaR + DPO: a question's most recent correct solution is preferred to
 * its most recent wrong one. Questions without both give none.
 */
import type { Dataset } from '../data/dataset.js';
import { pairsFromRows, type PairDataset } from '../data/pairs.js';
import type { Row } from '../data/rows.js';
import type { SamplePool } from '../runs/sample-pool.js';
import { GavelError } from '../errors.js';
import { Pace } from '../pace.js';
import type { R3vResult } from './r3v.js';
import { itemsOf } from './r3v-items.js';
import { r3vPrompts, type R3vPrompts } from './r3v-prompts.js';

/** A pair whose prompts are equal; the first solution is right, the second wrong. */
export interface SolutionPair {
  id: string;
  first: Row;
  second: Row;
  preference: 'first';
}

export interface DpoPairsParts {
  pool: SamplePool;
  /** The questions that were sampled. */
  data: Dataset;
  /** Names of the weights whose samples count: `bootstrap.weights` of the iterations. */
  weights: readonly string[];
  prompts?: R3vPrompts;
  signal?: AbortSignal;
}

/** One pair a question, in the order of the data. */
export async function dpoPairs(parts: DpoPairsParts): Promise<SolutionPair[]> {
  const { pool, data, weights, prompts = r3vPrompts(), signal } = parts;
  const pairs: SolutionPair[] = [];
  const pace = new Pace();
  for (let index = 0; index < data.size; index++) {
    signal?.throwIfAborted();
    const question = await data.row(index);
    const samples = weights.flatMap((checkpoint) => pool.entries(checkpoint, question.id));
    const items = itemsOf(question.id, samples, { candidates: 2, refine: true, select: false, seed: 0 });
    const found = items.find((item) => item.kind === 'refine');
    if (found !== undefined) {
      const row = prompts.rationale(question);
      const [right, wrong] = await Promise.all([pool.read(found.correct), pool.read(found.wrong)]);
      pairs.push({
        id: question.id,
        first: { ...row, id: `${question.id} right`, completion: right.text },
        second: { ...row, id: `${question.id} wrong`, completion: wrong.text },
        preference: 'first',
      });
    }
    await pace.breathe();
  }
  return pairs;
}

/**
 * The pairs of all samples that an R3V stage drew, as the data of `dpo`. Errors: 'bad_data' when no question has both a right
 * and a wrong solution.
 */
export async function dpoPairsOf(
  result: Pick<R3vResult, 'iterations'>,
  parts: Omit<DpoPairsParts, 'weights'>,
): Promise<PairDataset> {
  const weights = result.iterations.flatMap(({ bootstrap }) => (bootstrap === null ? [] : [bootstrap.weights]));
  const pairs = await dpoPairs({ ...parts, weights });
  if (pairs.length > 0) return pairsFromRows(`${parts.data.name} pairs`, pairs);
  throw new GavelError(
    'bad_data',
    `Expected questions of ${parts.data.name} with a right and a wrong solution but received none, of ` +
      `${parts.data.size} questions and ${weights.length} rounds of sampling. Draw more samples of each, or more iterations.`,
    { fields: { data: parts.data.name, questions: parts.data.size, rounds: weights.length } },
  );
}
