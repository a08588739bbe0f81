/**
 * One run on disk: config.json as resolved, events.jsonl, metrics.jsonl, samples/, checkpoints/. Any tool reads it; one
 * process writes it. Resuming means: the last whole checkpoint, and logs cut to where they stood then.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expected, GavelError } from '../errors.js';
import { writeJsonAtomically } from './atomic-file.js';
import { CheckpointStore, type Checkpoint } from './checkpoints.js';
import { guarded } from './file-errors.js';
import { JsonLinesLog } from './json-lines.js';
import { lockRun } from './run-lock.js';
import { SamplePool } from './sample-pool.js';

export interface RunOptions {
  /** Continue the run that the folder holds. Default: false, and then the folder must not hold one. */
  resume?: boolean;
  /** Checkpoints kept beside the pinned ones. Default: 2. */
  keepCheckpoints?: number;
}

export class RunFolder implements AsyncDisposable {
  readonly path: string;
  readonly checkpoints: CheckpointStore;
  readonly samples: SamplePool;
  /** The checkpoint this run continues from. */
  readonly restored: Checkpoint | undefined;
  readonly keepCheckpoints: number;
  readonly #events: JsonLinesLog;
  readonly #metrics: JsonLinesLog;
  readonly #unlock: () => Promise<void>;
  /** Failures a caller has seen already: closing does not throw them a second time. */
  readonly #reported = new Set<unknown>();
  #closed = false;

  private constructor(parts: {
    path: string;
    checkpoints: CheckpointStore;
    samples: SamplePool;
    restored: Checkpoint | undefined;
    keepCheckpoints: number;
    events: JsonLinesLog;
    metrics: JsonLinesLog;
    unlock: () => Promise<void>;
  }) {
    this.path = parts.path;
    this.checkpoints = parts.checkpoints;
    this.samples = parts.samples;
    this.restored = parts.restored;
    this.keepCheckpoints = parts.keepCheckpoints;
    this.#events = parts.events;
    this.#metrics = parts.metrics;
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
      const logs = restored?.manifest.logs;
      const events = await JsonLinesLog.open(join(path, 'events.jsonl'), logs?.['events'] ?? 0);
      const metrics = await JsonLinesLog.open(join(path, 'metrics.jsonl'), logs?.['metrics'] ?? 0);
      const samples = await SamplePool.open(join(path, 'samples', 'pool.jsonl'));
      return new RunFolder({ path, checkpoints, samples, restored, keepCheckpoints, events, metrics, unlock });
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  /** Appends to events.jsonl, with the time. */
  logEvent(event: object): void {
    this.#events.append({ time: new Date().toISOString(), ...event });
  }

  /** Appends to metrics.jsonl. */
  logMetrics(metrics: Readonly<Record<string, unknown>>): void {
    this.#metrics.append(metrics);
  }

  /** Resolves when every line is in its file; a full disk shows here. */
  async flush(): Promise<void> {
    await this.#reporting(() => Promise.all([this.#events.flush(), this.#metrics.flush()]));
  }

  /** Writes the checkpoint of `step` and removes old ones. Returns its folder. */
  async saveCheckpoint(
    step: number,
    state: unknown,
    saveModel: (folder: string) => Promise<void>,
    pinned: readonly number[] = [],
  ): Promise<string> {
    await this.#reporting(() => Promise.all([this.#events.sync(), this.#metrics.sync(), this.samples.sync()]));
    const logs = { events: this.#events.sizeBytes, metrics: this.#metrics.sizeBytes };
    const folder = await this.checkpoints.save(step, state, logs, saveModel);
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
    const closed = await Promise.allSettled([this.#events.close(), this.#metrics.close(), this.samples.close()]);
    await this.#unlock();
    const failed = closed.find((result) => result.status === 'rejected' && !this.#reported.has(result.reason));
    if (failed?.status === 'rejected') throw failed.reason;
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
