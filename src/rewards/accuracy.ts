/**
 * The accuracy reward: 1 when a verifier finds the gold answer, else 0. A row without a gold answer is an error of the data,
 * not a reward.
 */
import { GavelError } from '../errors.js';
import type { Row } from '../data/rows.js';
import type { RewardFunction } from './reward.js';
import { verifierByName, type Verifier, type VerifierName } from './verifier.js';

/** The gold answer of a row. Throws 'bad_data', naming the row, when there is none or it is empty. */
export function goldAnswer(row: Row): string {
  if (row.solution !== undefined && row.solution !== '') return row.solution;
  throw new GavelError(
    'bad_data',
    `Expected a gold answer in \`solution\` of row "${row.id}" but received none. Add it to the row.`,
    {
      fields: { id: row.id },
    },
  );
}

/** 1 or 0 by a verifier: a name ("strict" by default) or a function of your own. */
export function accuracyReward(verifier: VerifierName | Verifier = 'strict'): RewardFunction {
  const verify = typeof verifier === 'function' ? verifier : verifierByName(verifier);
  return ({ row, completion }) => (verify(completion, goldAnswer(row), row.meta).correct ? 1 : 0);
}
