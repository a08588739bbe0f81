/** What a run folder says about how its weights came to be: configuration, stages and the last evaluation of each. */
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { expected } from '../errors.js';
import { CheckpointStore } from './checkpoints.js';
import { guarded } from './file-errors.js';
import { readJsonLines } from './json-lines.js';
import { measurementsOf } from './measurements.js';

export interface StageFacts {
  stage: string;
  recipe: string;
  /** Of the last step; null in stages without steps, reward also in supervised ones. */
  steps: number | null;
  loss: number | null;
  reward: number | null;
  seconds: number | null;
}

export interface EvaluationFacts {
  stage: string;
  name: string;
  step: number;
  count: number;
  accuracy: number | null;
  accuracyLow: number | null;
  accuracyHigh: number | null;
  formatRate: number | null;
  orderConsistency: number | null;
}

export interface RunFacts {
  path: string;
  /** config.json of the run. */
  config: Record<string, unknown>;
  stages: StageFacts[];
  /** The last evaluation of each set in each stage. */
  evaluations: EvaluationFacts[];
}

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Whether a folder is a run and not a model. */
export const isRunFolder = (path: string): Promise<boolean> => exists(join(path, 'checkpoints'));

/**
 * The model folder of a run: its final weights, else those of its last checkpoint, whose checksums are compared. Of a run
 * that trained an adapter, `adapter` asks for the checkpoint, which holds the adapter alone; the final weights are merged.
 * Errors: 'io' for a run that has saved nothing, 'corrupt_checkpoint'.
 */
export async function modelFolderOfRun(path: string, options: { adapter: boolean }): Promise<string> {
  const store = new CheckpointStore(join(path, 'checkpoints'));
  const lastStep = (await store.steps()).at(-1);
  const isAdapter = lastStep !== undefined && (await exists(join(store.modelFolder(lastStep), 'adapter_config.json')));
  const final = join(path, 'final');
  if (!(options.adapter && isAdapter) && (await exists(final))) return final;
  const last = await store.last();
  if (last !== undefined) return last.modelFolder;
  throw expected(
    'io',
    'run folder',
    'a run with final weights or a checkpoint',
    path,
    'Let it train until it has saved one.',
  );
}

export async function readRunFacts(path: string): Promise<RunFacts> {
  const configPath = join(path, 'config.json');
  const config = await guarded(
    'read',
    configPath,
    async () => JSON.parse(await readFile(configPath, 'utf8')) as Record<string, unknown>,
  );
  const events = new StageFold();
  for await (const value of readJsonLines(join(path, 'events.jsonl'))) events.add(value as Record<string, unknown>);
  return { path, config, ...events.facts() };
}

/** Stages and their last evaluations, taken up event by event. */
export class StageFold {
  readonly #stages = new Map<string, StageFacts>();
  readonly #evaluations = new Map<string, EvaluationFacts>();

  add(event: Readonly<Record<string, unknown>>): void {
    const stage = String(event['stage']);
    const known = this.#stages.get(stage);
    if (event['type'] === 'stage-start') {
      const nothing = { steps: null, loss: null, reward: null, seconds: null };
      this.#stages.set(stage, { ...nothing, ...known, stage, recipe: String(event['recipe']) });
    } else if (event['type'] === 'step-end' && known !== undefined) {
      const [steps, loss, reward] = [event['step'], event['loss'], event['reward']].map(numberOrNull);
      Object.assign(known, { steps, loss, reward });
    } else if (event['type'] === 'stage-end' && known !== undefined && event['restored'] !== true) {
      known.seconds = numberOrNull(event['seconds']);
    }
    for (const { name, step, values } of measurementsOf(event)) {
      const rate = (key: string): number | null => values[key] ?? null;
      this.#evaluations.set(`${stage}\0${name}`, {
        stage,
        name,
        step,
        count: rate('count') ?? 0,
        accuracy: rate('accuracy'),
        accuracyLow: rate('accuracyLow'),
        accuracyHigh: rate('accuracyHigh'),
        formatRate: rate('formatRate'),
        orderConsistency: rate('orderConsistency'),
      });
    }
  }

  facts(): Pick<RunFacts, 'stages' | 'evaluations'> {
    const trained = [...this.#stages.values()].filter(({ recipe }) => recipe !== 'pipeline');
    return { stages: trained, evaluations: [...this.#evaluations.values()] };
  }
}

const numberOrNull = (value: unknown): number | null => (typeof value === 'number' ? value : null);
