/** A data set file as an evaluation set: each row as it is and, for pairs, with its candidates exchanged. */
import type { Dataset } from '../data/dataset.js';
import { swapCandidates } from '../rewards/swap.js';
import type { EvaluationSet } from './evaluate.js';

export interface FileEvaluationOptions {
  /** Also ask in the other order. Rows without two candidates throw 'bad_data'. */
  bothOrders: boolean;
}

/** Rows whose `meta.unseen` is true form the unseen sub-set. */
export function fileEvaluationSet(data: Dataset, { bothOrders }: FileEvaluationOptions): EvaluationSet {
  return {
    name: data.name,
    size: data.size,
    item: async (index) => {
      const row = await data.row(index);
      const unseen = row.meta?.['unseen'] === true;
      if (!bothOrders) return { row, unseen };
      const swapped = swapCandidates(row);
      return { row, swapped: { ...swapped, id: `${row.id} swapped` }, unseen };
    },
  };
}
