/** The rows of a Parquet file as plain objects, for readers of forms that are no data set's: published benchmarks. */
import { withBytes } from './embedded.js';
import { ParquetThread } from './parquet-thread.js';

/**
 * Rows in order, one at a time, decoded on the thread of Parquet files. A null is a key that is not there, a picture its bytes
 * (or its path where the file has no bytes), a class label its name. Errors: 'io', 'permission_denied', 'bad_data' for what is
 * no Parquet file or a damaged one, 'unsupported' for row groups above 2 GiB. Ending the iteration closes the file.
 */
export async function* parquetRows(path: string): AsyncGenerator<Record<string, unknown>, void, undefined> {
  const thread = ParquetThread.acquire();
  try {
    const reader = await thread.openRows(path);
    try {
      for (;;) {
        const record = await thread.nextRow(reader);
        if (record === undefined) return;
        yield withBytes(record.value, record.embedded);
      }
    } finally {
      await thread.close(reader);
    }
  } finally {
    await thread.release();
  }
}
