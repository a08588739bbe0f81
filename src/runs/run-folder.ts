/**
 * One run on disk: config.json as resolved, logs (events, metrics, marks of evaluations, TensorBoard), samples/, checkpoints/.
 * Any tool reads it; one process writes it. Resuming means: the last whole checkpoint, and logs cut to where they stood then.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expected, GavelError } from '../errors.js';
import { writeJsonAtomically } from './atomic-file.js';
import { CheckpointStore, type Checkpoint } from './checkpoints.js';
import { guarded } from './file-errors.js';
import { ItemStore, type ItemStoreOptions } from './item-store.js';
import { JsonLinesLog, readJsonLines } from './json-lines.js';
import { measurementsOf, withoutMarks } from './measurements.js';
import { lockRun } from './run-lock.js';
import { RunSteps } from './run-steps.js';
import { SamplePool } from './sample-pool.js';
import { TensorboardLog, tensorboardFileName } from './tensorboard.js';
import type { PngImage } from './tensorboard-events.js';

export interface RunOptions {
  /** Continue the run that the folder holds. Default: false, and then the folder must not hold one. */
  resume?: boolean;
  /** Checkpoints kept beside the pinned ones. Default: 2. */
  keepCheckpoints?: number;
  /** Whose pictures are kept for the page of samples, and how large. */
  pictures?: ItemStoreOptions;
}

/** What is written in the background. */
interface Written {
  sync(): Promise<void>;
  close(): Promise<void>;
}

interface Log extends Written {
  readonly sizeBytes: number;
  flush(): Promise<void>;
}

/** The logs that a resumed run cuts, by their names in a checkpoint's manifest. */
interface Logs {
  events: JsonLinesLog;
  metrics: JsonLinesLog;
  evaluations: JsonLinesLog;
  tensorboard: TensorboardLog;
}

export class RunFolder implements AsyncDisposable {
  readonly path: string;
  readonly checkpoints: CheckpointStore;
  readonly samples: SamplePool;
  /** What the marked items looked like. */
  readonly items: ItemStore;
  /** The checkpoint this run continues from. */
  readonly restored: Checkpoint | undefined;
  readonly keepCheckpoints: number;
  readonly #logs: Logs;
  readonly #unlock: () => Promise<void>;
  /** Failures a caller has seen already: closing does not throw them a second time. */
  readonly #reported = new Set<unknown>();
  #closed = false;

  private constructor(parts: {
    path: string;
    checkpoints: CheckpointStore;
    samples: SamplePool;
    items: ItemStore;
    restored: Checkpoint | undefined;
    keepCheckpoints: number;
    logs: Logs;
    unlock: () => Promise<void>;
  }) {
    this.path = parts.path;
    this.checkpoints = parts.checkpoints;
    this.samples = parts.samples;
    this.items = parts.items;
    this.restored = parts.restored;
    this.keepCheckpoints = parts.keepCheckpoints;
    this.#logs = parts.logs;
    this.#unlock = parts.unlock;
  }

  /**
   * Starts a run in `path`, or continues it with `resume`; `config` must then equal the stored one. Errors:
   * 'invalid_argument' (a run is there already), 'invalid_config' (another config), 'corrupt_checkpoint', 'io' (in use),
   * 'permission_denied', 'disk_full'.
   */
  static async open(path: string, config: unknown, options: RunOptions = {}): Promise<RunFolder> {
    const { resume = false, keepCheckpoints = 2 } = options;
    const configPath = join(path, 'config.json');
    if (!resume && existsSync(configPath)) {
      throw expected('invalid_argument', 'run folder', 'a folder without a run', path, 'Resume it, or choose another.');
    }
    await guarded('make', path, async () => {
      await mkdir(join(path, 'samples'), { recursive: true });
      await mkdir(join(path, 'checkpoints'), { recursive: true });
    });
    const unlock = await lockRun(path);
    try {
      if (existsSync(configPath)) await checkSameConfig(configPath, config);
      else await writeJsonAtomically(configPath, config);
      const checkpoints = new CheckpointStore(join(path, 'checkpoints'));
      const restored = resume ? await checkpoints.last() : undefined;
      await checkpoints.removeAfter(restored?.step ?? -1);
      const logs = await openLogs(path, config, restored?.manifest.logs ?? {});
      const samples = await SamplePool.open(join(path, 'samples', 'pool.jsonl'));
      const items = await ItemStore.open(join(path, 'samples'), options.pictures);
      return new RunFolder({ path, checkpoints, samples, items, restored, keepCheckpoints, logs, unlock });
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  /**
   * Appends to events.jsonl, with the time. What an evaluation of a judge, of a scorer or of selection measured goes to
   * TensorBoard as well, and its marks, one an item, to evaluations.jsonl alone.
   */
  logEvent(event: object): void {
    const time = new Date().toISOString();
    const measured = measurementsOf(event as Readonly<Record<string, unknown>>);
    this.#logs.events.append({ time, ...(measured.length === 0 ? event : withoutMarks(event)) });
    for (const { stage, name, step, values, marks } of measured) {
      if (marks !== undefined) this.#logs.evaluations.append({ time, stage, name, step, marks });
      this.#logs.tensorboard.evaluation(stage, name, step, values);
    }
  }

  /** Appends to metrics.jsonl, and the numbers to TensorBoard at their run-wide step. */
  logMetrics(metrics: Readonly<Record<string, unknown>>): void {
    this.#logs.metrics.append(metrics);
    this.#logs.tensorboard.metrics(metrics);
  }

  /** Shows a picture in TensorBoard, at the newest step. */
  logImage(tag: string, image: PngImage): void {
    this.#logs.tensorboard.image(tag, image);
  }

  /** Resolves when every line is in its file; a full disk shows here. */
  async flush(): Promise<void> {
    await this.#reporting(() => Promise.all(this.#named.map(([, log]) => log.flush())));
  }

  /** Writes the checkpoint of `step` and removes old ones. Returns its folder. */
  async saveCheckpoint(
    step: number,
    state: unknown,
    saveModel: (folder: string) => Promise<void>,
    pinned: readonly number[] = [],
  ): Promise<string> {
    await this.#reporting(() => Promise.all(this.#written.map((file) => file.sync())));
    const sizes = Object.fromEntries(this.#named.map(([name, log]) => [name, log.sizeBytes]));
    const folder = await this.checkpoints.save(step, state, sizes, saveModel);
    await this.checkpoints.prune(this.keepCheckpoints, pinned);
    return folder;
  }

  /** Path of a file of this run. */
  file(...parts: string[]): string {
    return join(this.path, ...parts);
  }

  /** Flushes and closes every log and gives the lock back. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const closed = await Promise.allSettled(this.#written.map((file) => file.close()));
    await this.#unlock();
    const failed = closed.find((result) => result.status === 'rejected' && !this.#reported.has(result.reason));
    if (failed?.status === 'rejected') throw failed.reason;
  }

  get #named(): [string, Log][] {
    return Object.entries<Log>({ ...this.#logs });
  }

  get #written(): Written[] {
    return [...this.#named.map(([, log]) => log), this.samples, this.items];
  }

  async #reporting<T>(operation: () => Promise<T>): Promise<T> {
    try {
      return await operation();
    } catch (error) {
      this.#reported.add(error);
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** Opens every log, cut to `sizes`; a log that the checkpoint does not know begins anew. */
async function openLogs(path: string, config: unknown, sizes: Readonly<Record<string, number>>): Promise<Logs> {
  const lines = (name: string): Promise<JsonLinesLog> =>
    JsonLinesLog.open(join(path, `${name}.jsonl`), sizes[name] ?? 0);
  const events = await lines('events');
  const metrics = await lines('metrics');
  const evaluations = await lines('evaluations');
  const steps = new RunSteps();
  for await (const line of readJsonLines(metrics.path, { onDamage: () => undefined })) {
    if (typeof line === 'object' && line !== null) steps.ofLine(line as Record<string, unknown>);
  }
  const eventFile = join(path, tensorboardFileName);
  const tensorboard = await TensorboardLog.open(eventFile, sizes['tensorboard'] ?? 0, config, steps);
  return { events, metrics, evaluations, tensorboard };
}

async function checkSameConfig(path: string, config: unknown): Promise<void> {
  const stored: unknown = await guarded('read', path, async () => JSON.parse(await readFile(path, 'utf8')) as unknown);
  const wanted: unknown = JSON.parse(JSON.stringify(config));
  const key = firstDifference(stored, wanted, '');
  if (key === undefined) return;
  throw new GavelError(
    'invalid_config',
    `Expected the configuration the run was started with but \`${key || 'config'}\` differs from ${path}. ` +
      'Resume with the same settings, or start a new run in another folder.',
    { fields: { path, key } },
  );
}

/** Dotted name of the first value that differs, in the order of the stored keys. */
function firstDifference(a: unknown, b: unknown, name: string): string | undefined {
  if (typeof a === 'object' && a !== null && typeof b === 'object' && b !== null) {
    const left = a as Record<string, unknown>;
    const right = b as Record<string, unknown>;
    for (const key of new Set([...Object.keys(left), ...Object.keys(right)])) {
      const found = firstDifference(left[key], right[key], name === '' ? key : `${name}.${key}`);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  return Object.is(a, b) ? undefined : name;
}
