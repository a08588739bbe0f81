/**
 * The marked pool of a run: every sample with its item, checkpoint, seed, temperature, recency and verdict, as JSONL.
 * Keyed (checkpoint, item, sample), so fixed weights never sample an item twice, however often a run is killed. Texts stay
 * on disk; memory holds a small index.
 */
import { expected } from '../errors.js';
import { JsonLinesLog, scanJsonLines, type JsonLine } from './json-lines.js';

/** One marked sample. */
export interface MarkedSample {
  item: string;
  /** Name of the weights that drew it. */
  checkpoint: string;
  /** Index among the samples of the item under this checkpoint. */
  sample: number;
  seed: number;
  temperature: number;
  /** Higher is newer. */
  recency: number;
  text: string;
  numTokens: number;
  finishReason: 'stop' | 'length';
  /** What the verifiers said, by name. */
  rewards: Record<string, number | null>;
  /** The parsed answer; null when there is none. */
  answer: string | null;
  correct: boolean;
}

/** What memory keeps of a sample: its verdict, how it was drawn, and where its record is. */
export type PoolEntry = Pick<JsonLine, 'offset' | 'length'> &
  Pick<MarkedSample, 'sample' | 'correct' | 'recency' | 'seed' | 'temperature'>;

const keyOf = (checkpoint: string, item: string): string => `${checkpoint}\n${item}`;

export class SamplePool {
  /** Absent for a pool in memory, whose records are then in `#records`. */
  readonly #log: JsonLinesLog | undefined;
  readonly #records: MarkedSample[] = [];
  readonly #index = new Map<string, PoolEntry[]>();
  #size = 0;

  private constructor(log?: JsonLinesLog) {
    this.#log = log;
  }

  /** A pool that is gone with the process, for jobs without a run folder. */
  static inMemory(): SamplePool {
    return new SamplePool();
  }

  /** Opens or makes the pool at `path` and reads its index. */
  static async open(path: string): Promise<SamplePool> {
    const pool = new SamplePool(await JsonLinesLog.open(path));
    for await (const { value, offset, length } of scanJsonLines(path)) {
      const record = value as MarkedSample;
      if (typeof record?.item !== 'string' || typeof record.checkpoint !== 'string') {
        throw expected('bad_data', 'samples', 'a marked sample in each line', JSON.stringify(value).slice(0, 80));
      }
      pool.#remember(record, { offset, length });
    }
    return pool;
  }

  /** Samples in the pool. */
  get size(): number {
    return this.#size;
  }

  /** Adds a sample; one whose key is known is ignored, since the same key holds the same tokens. */
  add(record: MarkedSample): void {
    if (this.has(record.checkpoint, record.item, record.sample)) return;
    this.#remember(record, this.#log?.append(record) ?? { offset: this.#records.push(record) - 1, length: 0 });
  }

  has(checkpoint: string, item: string, sample: number): boolean {
    return this.entries(checkpoint, item).some((entry) => entry.sample === sample);
  }

  /** Verdicts of an item under a checkpoint, in the order of their sample index. */
  entries(checkpoint: string, item: string): readonly PoolEntry[] {
    return this.#index.get(keyOf(checkpoint, item)) ?? [];
  }

  /** The whole record of an entry. */
  async read(entry: PoolEntry): Promise<MarkedSample> {
    return this.#log === undefined ? this.#records[entry.offset]! : ((await this.#log.read(entry)) as MarkedSample);
  }

  async sync(): Promise<void> {
    await this.#log?.sync();
  }

  async close(): Promise<void> {
    await this.#log?.close();
  }

  #remember(record: MarkedSample, place: Pick<JsonLine, 'offset' | 'length'>): void {
    const key = keyOf(record.checkpoint, record.item);
    const entries = this.#index.get(key) ?? [];
    const { sample, correct, recency, seed, temperature } = record;
    entries.push({ ...place, sample, correct, recency, seed, temperature });
    entries.sort((a, b) => a.sample - b.sample);
    this.#index.set(key, entries);
    this.#size++;
  }
}
