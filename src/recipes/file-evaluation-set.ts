/**
 * A data set file as an evaluation set: each row as it is and, for pairs, with its candidates exchanged; also asked for the
 * answer alone where a prompt for that is given.
 */
import type { Dataset } from '../data/dataset.js';
import { countMarks, type Row } from '../data/rows.js';
import { GavelError } from '../errors.js';
import { swapCandidates } from '../rewards/swap.js';
import { nameKey } from '../seeded.js';
import type { EvaluationSet } from './evaluate.js';

export interface FileEvaluationOptions {
  /** Also ask in the other order. Rows without two candidates throw 'bad_data'. */
  bothOrders: boolean;
  /**
   * Also ask without chain of thought: by the prompt in `meta.direct` of the row, or by this text, in which "{prompt}" stands
   * for the row's own prompt. A row that has neither throws 'bad_data'.
   */
  direct?: { prompt?: string | undefined };
  /** Keys of `meta` whose values divide the rows into sub-sets. A row without the key throws 'bad_data'. */
  groupBy?: readonly string[];
}

/** Rows whose `meta.unseen` is true form the unseen sub-set. */
export function fileEvaluationSet(data: Dataset, options: FileEvaluationOptions): EvaluationSet {
  const { bothOrders, direct, groupBy = [] } = options;
  return {
    name: data.name,
    size: data.size,
    // Another direct prompt is another question of the same name.
    fingerprint: direct?.prompt === undefined ? data.fingerprint : `${data.fingerprint} ${nameKey(direct.prompt)}`,
    item: async (index) => {
      const row = await data.row(index);
      const asked = direct === undefined ? undefined : directRow(row, direct.prompt);
      const swap = (of: Row): Row => ({ ...swapCandidates(of), id: `${of.id} swapped` });
      return {
        row,
        ...(bothOrders && { swapped: swap(row) }),
        ...(asked !== undefined && { direct: asked }),
        ...(asked !== undefined && bothOrders && { directSwapped: swap(asked) }),
        unseen: row.meta?.['unseen'] === true,
        subsets: Object.fromEntries(groupBy.map((key) => [key, subsetOf(row, key)])),
      };
    },
  };
}

function directRow(row: Row, template: string | undefined): Row {
  const own = row.meta?.['direct'];
  if (typeof own === 'string') return { ...checked(row, own), id: `${row.id} direct` };
  if (template === undefined) {
    throw badRow(row, 'a prompt without chain of thought in `meta.direct`', 'none', 'Add it, or give --direct-prompt.');
  }
  if (typeof row.prompt !== 'string') {
    throw badRow(row, 'a string prompt', 'a list of messages', 'Give it a `meta.direct` of its own.');
  }
  // A function, since "$&" in a prompt would otherwise mean the match.
  const prompt = row.prompt;
  return {
    ...checked(
      row,
      template.replaceAll('{prompt}', () => prompt),
    ),
    id: `${row.id} direct`,
  };
}

/** The row with another prompt, which must have the marks of its images and videos. */
function checked(row: Row, prompt: string): Row {
  const [marks, own] = [countMarks(prompt), countMarks(row.prompt)];
  if (marks.images === own.images && marks.videos === own.videos) return { ...row, prompt };
  throw badRow(
    row,
    `${own.images} "<image>" and ${own.videos} "<video>" marks in the direct prompt`,
    `${marks.images} and ${marks.videos}`,
    'Mark every image and video in it.',
  );
}

function subsetOf(row: Row, key: string): string {
  const value = row.meta?.[key];
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw badRow(
    row,
    `a string, number or boolean in \`meta.${key}\``,
    value === undefined ? 'none' : typeof value,
    'Group by a key that every row has.',
  );
}

function badRow({ id }: Row, what: string, received: string, advice: string): GavelError {
  return new GavelError('bad_data', `Expected ${what} of row "${id}" but received ${received}. ${advice}`, {
    fields: { id },
  });
}
