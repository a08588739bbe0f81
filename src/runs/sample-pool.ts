/**
 * The marked pool of a run: every sample with its item, checkpoint, seed, temperature, recency and verdict, as JSONL.
 * Keyed (checkpoint, item, sample), so fixed weights never sample an item twice, however often a run is killed. Texts stay
 * on disk; memory holds a small index. One process writes; any number read.
 */
import { open, type FileHandle } from 'node:fs/promises';
import { expected, type GavelError } from '../errors.js';
import { guarded } from './file-errors.js';
import { JsonLinesLog, scanJsonLines, type LinePlace } from './json-lines.js';
import { evaluationOfSample, markedSampleSchema, stageOfSample, type MarkedSample } from './marked-sample.js';

export type { MarkedSample } from './marked-sample.js';

/** What memory holds of a sample. */
export type SampleEntry = LinePlace &
  Pick<MarkedSample, 'item' | 'checkpoint' | 'sample' | 'correct' | 'recency' | 'seed' | 'temperature'> & {
    stage: string | undefined;
    /** The set of the evaluation that kept it; undefined of every other sample. */
    evaluation: string | undefined;
    /** Id of the row it answers: of an evaluation that in its set, else `item`. */
    row: string;
    /** False where `correct` says nothing. */
    marked: boolean;
  };

/** Which samples; what is left out does not matter. */
export interface SampleQuery {
  /** The pool's own name of an item. */
  item?: string;
  /** Of the row that was answered; equal to `item` but in evaluations. */
  row?: string;
  /** Of this evaluation set; true of every one, false of none. */
  evaluation?: string | boolean;
  checkpoint?: string;
  stage?: string;
  /** Of marked samples. */
  correct?: boolean;
  /** `added`: as they came, the default. `newest`: higher recency first, among equals the later one. */
  order?: 'added' | 'newest';
  /** At most so many, after ordering. Default: all. */
  limit?: number;
}

export interface PoolReadOptions {
  /** Gets each line that is no marked sample instead of the error; the others are read. */
  onDamage?: (error: GavelError) => void;
}

const keyOf = (checkpoint: string, item: string): string => `${checkpoint}\n${item}`;

export class SamplePool {
  readonly #path: string | undefined;
  /** Present in the process that writes the pool. */
  readonly #log: JsonLinesLog | undefined;
  /** Present in a process that only reads it. */
  readonly #reader: FileHandle | undefined;
  /** Of a pool in memory. */
  readonly #records: MarkedSample[] = [];
  readonly #entries: SampleEntry[] = [];
  readonly #byKey = new Map<string, SampleEntry[]>();
  readonly #byItem = new Map<string, SampleEntry[]>();
  /** One string each for names that every entry repeats. */
  readonly #names = new Map<string, string>();
  #scanned = 0;

  private constructor(path?: string, log?: JsonLinesLog, reader?: FileHandle) {
    this.#path = path;
    this.#log = log;
    this.#reader = reader;
  }

  /** A pool that is gone with the process, for jobs without a run folder. */
  static inMemory(): SamplePool {
    return new SamplePool();
  }

  /** Opens or makes the pool at `path` for its one writer. Errors: 'bad_data' naming a damaged line, 'io'. */
  static async open(path: string): Promise<SamplePool> {
    const log = await JsonLinesLog.open(path);
    const pool = new SamplePool(path, log);
    try {
      await pool.#scan({});
    } catch (error) {
      await log.close();
      throw error;
    }
    return pool;
  }

  /**
   * Opens a pool to read while another process may write it; nothing is locked, cut or made, and a line that is being
   * written is not seen yet. A pool that does not exist is empty. Errors: 'bad_data' unless `onDamage` is given, 'io'.
   */
  static async openReadOnly(path: string, options: PoolReadOptions = {}): Promise<SamplePool> {
    const reader = await open(path, 'r').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined;
      return guarded('open', path, () => Promise.reject(error));
    });
    const pool = new SamplePool(path, undefined, reader);
    try {
      if (reader !== undefined) await pool.#scan(options);
    } catch (error) {
      await pool.close();
      throw error;
    }
    return pool;
  }

  /** Samples in the pool. */
  get size(): number {
    return this.#entries.length;
  }

  /** Every item with a sample, in the order of their first. */
  items(): string[] {
    return [...this.#byItem.keys()];
  }

  /** Every name of weights that drew a sample, in the order of their first. */
  checkpoints(): string[] {
    return [...new Set(this.#entries.map(({ checkpoint }) => checkpoint))];
  }

  /** Adds a sample; one whose key is known is ignored, since the same key holds the same tokens. */
  add(record: MarkedSample): void {
    if (this.#path !== undefined && this.#log === undefined) {
      throw expected('invalid_argument', 'pool', 'a pool opened for writing', 'one opened to read');
    }
    if (this.has(record.checkpoint, record.item, record.sample)) return;
    this.#remember(record, this.#log?.append(record) ?? { offset: this.#records.push(record) - 1, length: 0 });
  }

  has(checkpoint: string, item: string, sample: number): boolean {
    return this.entries(checkpoint, item).some((entry) => entry.sample === sample);
  }

  /** Verdicts of an item under a checkpoint, in the order of their sample index. */
  entries(checkpoint: string, item: string): readonly SampleEntry[] {
    return this.#byKey.get(keyOf(checkpoint, item)) ?? [];
  }

  /** The samples that fit, of memory alone; `read` gives their texts. */
  select(query: SampleQuery = {}): SampleEntry[] {
    const { item, row, checkpoint, stage, evaluation, correct, order = 'added', limit = Infinity } = query;
    const from = item === undefined ? this.#entries : (this.#byItem.get(item) ?? []);
    const found = from.filter(
      (entry) =>
        (checkpoint === undefined || entry.checkpoint === checkpoint) &&
        (stage === undefined || entry.stage === stage) &&
        (row === undefined || entry.row === row) &&
        (evaluation === undefined ||
          (typeof evaluation === 'string'
            ? entry.evaluation === evaluation
            : (entry.evaluation !== undefined) === evaluation)) &&
        (correct === undefined || (entry.marked && entry.correct === correct)),
    );
    // The sort is stable, so equal recencies keep the turned order: the later one first.
    if (order === 'newest') found.reverse().sort((a, b) => b.recency - a.recency);
    return limit < found.length ? found.slice(0, limit) : found;
  }

  /** The whole record of an entry. Errors: 'bad_data' when the file no longer holds it. */
  async read(entry: LinePlace): Promise<MarkedSample> {
    if (this.#log !== undefined) return (await this.#log.read(entry)) as MarkedSample;
    if (this.#path === undefined) return this.#records[entry.offset]!;
    return guarded('read', this.#path, async () => {
      const buffer = Buffer.alloc(entry.length);
      await this.#reader!.read(buffer, 0, entry.length, entry.offset);
      return parseSample(this.#path!, () => JSON.parse(buffer.toString('utf8')) as unknown);
    });
  }

  /** Takes in what the writer added since; returns how many samples. Nothing to do in the process that writes. */
  async refresh(options: PoolReadOptions = {}): Promise<number> {
    const before = this.size;
    if (this.#reader !== undefined) await this.#scan(options);
    return this.size - before;
  }

  async sync(): Promise<void> {
    await this.#log?.sync();
  }

  async close(): Promise<void> {
    await this.#log?.close();
    await this.#reader?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #scan({ onDamage }: PoolReadOptions): Promise<void> {
    const path = this.#path!;
    const damaged = onDamage && ((error: GavelError) => onDamage(error));
    for await (const { value, offset, length } of scanJsonLines(path, {
      from: this.#scanned,
      ...(damaged && { onDamage: damaged }),
    })) {
      this.#scanned = offset + length + 1;
      try {
        const record = parseSample(path, () => value);
        if (!this.has(record.checkpoint, record.item, record.sample)) this.#remember(record, { offset, length });
      } catch (error) {
        if (damaged === undefined) throw error;
        damaged(error as GavelError);
      }
    }
  }

  #remember(record: MarkedSample, { offset, length }: LinePlace): void {
    const { sample, correct, recency, seed, temperature } = record;
    const item = this.#name(record.item);
    const checkpoint = this.#name(record.checkpoint);
    const stage = stageOfSample(record);
    const named = stage === undefined ? undefined : this.#name(stage);
    const evaluation = evaluationOfSample(record);
    const entry: SampleEntry = {
      offset,
      length,
      item,
      checkpoint,
      sample,
      correct,
      recency,
      seed,
      temperature,
      stage: named,
      evaluation: evaluation === undefined ? undefined : this.#name(evaluation),
      row: this.#name(record.evaluation?.item ?? record.item),
      marked: record.unmarked !== true,
    };
    this.#entries.push(entry);
    const ofItem = this.#byItem.get(item);
    if (ofItem === undefined) this.#byItem.set(item, [entry]);
    else ofItem.push(entry);
    const key = keyOf(checkpoint, item);
    const entries = this.#byKey.get(key) ?? [];
    entries.push(entry);
    entries.sort((a, b) => a.sample - b.sample);
    this.#byKey.set(key, entries);
  }

  #name(text: string): string {
    const known = this.#names.get(text);
    if (known !== undefined) return known;
    this.#names.set(text, text);
    return text;
  }
}

/** The record of a line. Errors: 'bad_data'. */
function parseSample(path: string, make: () => unknown): MarkedSample {
  let value: unknown;
  try {
    value = make();
    // The line itself is kept: fields that a newer version wrote are not lost.
    if (markedSampleSchema.safeParse(value).success) return value as MarkedSample;
  } catch {
    value = undefined;
  }
  const received = value === undefined ? 'something else' : (JSON.stringify(value) ?? 'nothing').slice(0, 80);
  throw expected('bad_data', 'samples', `a marked sample in each line of ${path}`, received, 'Remove that line.', {
    path,
  });
}
