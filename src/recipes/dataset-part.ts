/** Some rows of a data set, as a data set: what a router hands on. */
import { generatedDataset, type Dataset } from '../data/dataset.js';

/** Rows at `indices` of `whole`, in that order. Errors: 'bad_data' when there is none. */
export function datasetPart(whole: Dataset, name: string, indices: readonly number[]): Dataset {
  return generatedDataset({
    name,
    size: indices.length,
    key: `${whole.fingerprint} ${indices.join(',')}`,
    make: (index) => whole.row(indices[index]!),
  });
}
