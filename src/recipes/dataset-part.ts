/** Some rows of a data set, or all of them asked otherwise, as a data set: what a router hands on. */
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { localityOfParts } from '../data/local-order.js';
import { GavelError } from '../errors.js';

/** Rows at `indices` of `whole`, in that order; over blocks of a file, ascending ones are read fastest. Errors: 'bad_data' when there is none. */
export function datasetPart(whole: Dataset, name: string, indices: readonly number[]): Dataset {
  if (indices.length === 0) {
    throw new GavelError(
      'bad_data',
      `Expected at least one row of data set "${whole.name}" for "${name}" but received none: every item was all right ` +
        'there, or none was reached. Leave this stage out, or route from more or harder items.',
      { fields: { dataset: name, size: 0 } },
    );
  }
  return generatedDataset({
    name,
    size: indices.length,
    key: `${whole.fingerprint} ${indices.join(',')}`,
    locality: localityOfParts([{ locality: whole.locality, indices }]),
    make: (index) => whole.row(indices[index]!),
  });
}

/** The rows of `whole`, each as `map` makes it: asked in another way, say. The same row must map to the same row. */
export function mappedDataset(whole: Dataset, name: string, map: (row: Row) => Row): Dataset {
  return generatedDataset({
    name,
    size: whole.size,
    key: whole.fingerprint,
    locality: whole.locality,
    make: async (index) => map(await whole.row(index)),
  });
}
