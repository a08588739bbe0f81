/** Messages of the library in the words of the command line: recipes and commands instead of functions. */
import { GavelError } from '../errors.js';

const takers = {
  'preference pairs': 'Preference pairs are for the recipes dpo, joint and evaluate-scorer, and for `gavel score`.',
  rows: 'Rows are for the recipes sft, rejection, grpo, unified-reward-think, r3v, select-evaluation and evaluate.',
} as const;

/** The error as the user of a command reads it; most are it already. */
export function inUserWords(error: unknown): unknown {
  if (!GavelError.is(error)) return error;
  const { where, format, wanted, received } = error.fields;
  if (wanted === undefined || (received !== 'rows' && received !== 'preference pairs')) return error;
  const message = `Expected ${wanted} at ${where} but received ${received} (${format}). ${takers[received]}`;
  return new GavelError(error.code, message, { fields: error.fields, cause: error });
}
