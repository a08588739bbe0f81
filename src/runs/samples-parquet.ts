/**
 * The sample pool as Parquet, for analysis: a row a sample, a column `rewards/NAME` a reward. The JSONL stays the truth; the
 * file is written in groups of rows, so memory does not grow with the pool.
 */
import { open, rename, rm } from 'node:fs/promises';
import { guarded } from './file-errors.js';
import { evaluationOfSample, type MarkedSample } from './marked-sample.js';
import type { SampleEntry, SamplePool } from './sample-pool.js';

type ColumnType = 'STRING' | 'INT32' | 'INT64' | 'DOUBLE' | 'BOOLEAN';
interface Column {
  name: string;
  type: ColumnType;
  nullable?: boolean;
  of: (sample: MarkedSample) => string | number | bigint | boolean | null | undefined;
}

const rowsOfGroup = 5000;

const columns: readonly Column[] = [
  { name: 'item', type: 'STRING', of: ({ item }) => item },
  { name: 'evaluation', type: 'STRING', nullable: true, of: (sample) => evaluationOfSample(sample) },
  { name: 'row', type: 'STRING', of: ({ item, evaluation }) => evaluation?.item ?? item },
  { name: 'order', type: 'STRING', nullable: true, of: ({ evaluation }) => evaluation?.order },
  { name: 'direct', type: 'BOOLEAN', nullable: true, of: ({ evaluation }) => evaluation?.direct },
  { name: 'checkpoint', type: 'STRING', of: ({ checkpoint }) => checkpoint },
  { name: 'sample', type: 'INT32', of: ({ sample }) => sample },
  { name: 'stage', type: 'STRING', nullable: true, of: ({ stage }) => stage },
  { name: 'step', type: 'INT32', nullable: true, of: ({ step }) => step },
  { name: 'seed', type: 'INT64', of: ({ seed }) => BigInt(seed) },
  { name: 'temperature', type: 'DOUBLE', of: ({ temperature }) => temperature },
  { name: 'recency', type: 'DOUBLE', of: ({ recency }) => recency },
  { name: 'text', type: 'STRING', of: ({ text }) => text },
  { name: 'numTokens', type: 'INT32', of: ({ numTokens }) => numTokens },
  { name: 'finishReason', type: 'STRING', of: ({ finishReason }) => finishReason },
  { name: 'advantage', type: 'DOUBLE', nullable: true, of: ({ advantage }) => advantage },
  { name: 'answer', type: 'STRING', nullable: true, of: ({ answer }) => answer },
  { name: 'correct', type: 'BOOLEAN', nullable: true, of: ({ correct, unmarked }) => (unmarked ? null : correct) },
];

/**
 * Writes `entries` of `pool` to `path`, whole or not at all. Returns the names of the columns. Errors: 'io', 'disk_full',
 * 'permission_denied', 'bad_data'.
 */
export async function writeSamplesParquet(
  path: string,
  pool: SamplePool,
  entries: readonly SampleEntry[],
): Promise<string[]> {
  const { ByteWriter, ParquetWriter, schemaFromColumnData } = await import('hyparquet-writer');
  const all = [...columns, ...(await rewardColumns(pool, entries))];
  const schema = schemaFromColumnData({
    columnData: all.map(({ name, type, nullable = false }) => ({ name, data: [], type, nullable })),
  });
  const temporary = `${path}.tmp-${process.pid}`;
  await guarded('write', path, async () => {
    try {
      const file = await open(temporary, 'w');
      try {
        const bytes = new ByteWriter();
        const writer = new ParquetWriter({ writer: bytes, schema, createdBy: 'gavel-rl' });
        for (let start = 0; start < entries.length; start += rowsOfGroup) {
          const samples: MarkedSample[] = [];
          for (const entry of entries.slice(start, start + rowsOfGroup)) samples.push(await pool.read(entry));
          const columnData = all.map(({ name, of }) => ({ name, data: samples.map((sample) => of(sample) ?? null) }));
          await writer.write({ columnData, rowGroupSize: rowsOfGroup });
          await file.appendFile(taken(bytes));
        }
        await writer.finish();
        await file.appendFile(taken(bytes));
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(temporary, path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    }
  });
  return all.map(({ name }) => name);
}

/** What the writer has encoded since; its offsets in the file go on counting. */
function taken(writer: { buffer: ArrayBuffer; index: number }): Uint8Array {
  const bytes = new Uint8Array(writer.buffer.slice(0, writer.index));
  writer.index = 0;
  return bytes;
}

async function rewardColumns(pool: SamplePool, entries: readonly SampleEntry[]): Promise<Column[]> {
  const names = new Set<string>();
  for (const entry of entries) for (const name of Object.keys((await pool.read(entry)).rewards)) names.add(name);
  return [...names].map((name) => ({
    name: `rewards/${name}`,
    type: 'DOUBLE',
    nullable: true,
    of: ({ rewards }) => rewards[name],
  }));
}
