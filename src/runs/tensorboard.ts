/**
 * The event file that TensorBoard reads, beside metrics.jsonl: scalars named `stage/metric` at the run-wide step, evaluations,
 * the configuration as text, pictures. Append-only and cut on resume like the other logs; writes happen in the background.
 */
import { AppendFile } from './append-file.js';
import type { RunSteps } from './run-steps.js';
import {
  imageEvent,
  scalarsEvent,
  textEvent,
  versionEvent,
  type PngImage,
  type ScalarValue,
} from './tensorboard-events.js';
import { endOfLastRecord, frameRecord } from './tfrecord.js';

/** One file a run, so the name holds no time or host; `tfevents` is what TensorBoard looks for. */
export const tensorboardFileName = 'events.out.tfevents.1.gavel';

/** Fields of a line that say where it belongs and are no measurement. */
const placeNames = new Set(['stage', 'step']);

export class TensorboardLog {
  readonly #file: AppendFile;
  readonly #steps: RunSteps;

  private constructor(file: AppendFile, steps: RunSteps) {
    this.#file = file;
    this.#steps = steps;
  }

  /**
   * Opens the file and cuts it to `keepBytes` and whole records; a new one begins with the configuration. `steps` has seen
   * every line of metrics that stays. Errors: 'io', 'disk_full', 'permission_denied'.
   */
  static async open(path: string, keepBytes: number, config: unknown, steps: RunSteps): Promise<TensorboardLog> {
    const log = new TensorboardLog(await AppendFile.open(path, endOfLastRecord, keepBytes), steps);
    if (log.sizeBytes === 0) {
      log.#append(versionEvent(now()));
      log.text('config', `\`\`\`json\n${JSON.stringify(config, null, 2)}\n\`\`\``);
    }
    return log;
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  /** The numbers of a line of metrics, under the names of its stage. */
  metrics(line: Readonly<Record<string, unknown>>): void {
    const step = this.#steps.ofLine(line);
    const stage = typeof line['stage'] === 'string' ? `${line['stage']}/` : '';
    this.#scalars(step, stage, line);
  }

  /** The numbers of an evaluation's result, as `stage/evaluation/set/name`. */
  evaluation(stage: string, set: string, step: number, result: Readonly<Record<string, unknown>>): void {
    this.#scalars(this.#steps.of(stage, step), `${stage}/evaluation/${set}/`, result);
  }

  /** Markdown, at the newest step. */
  text(tag: string, markdown: string): void {
    this.#append(textEvent(now(), this.#steps.last, tag, markdown));
  }

  /** A picture, at the newest step. */
  image(tag: string, image: PngImage): void {
    this.#append(imageEvent(now(), this.#steps.last, tag, image));
  }

  flush(): Promise<void> {
    return this.#file.flush();
  }

  sync(): Promise<void> {
    return this.#file.sync();
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #scalars(step: number, prefix: string, values: Readonly<Record<string, unknown>>): void {
    const scalars = Object.entries(values).flatMap(([name, value]): ScalarValue[] =>
      typeof value === 'number' && !placeNames.has(name) ? [{ tag: prefix + name, value }] : [],
    );
    if (scalars.length > 0) this.#append(scalarsEvent(now(), step, scalars));
  }

  #append(event: Uint8Array): void {
    this.#file.append(frameRecord(event));
  }
}

const now = (): number => Date.now() / 1000;
