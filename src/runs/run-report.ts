/**
 * A run folder as a reader finds it: state, stages, last numbers, checkpoints, size. Nothing is locked or changed, and a run
 * may be writing. What is missing or damaged is said in `problems`; the rest is reported.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { expected, GavelError } from '../errors.js';
import { CheckpointStore } from './checkpoints.js';
import { fileError } from './file-errors.js';
import { StageFold, type EvaluationFacts, type StageFacts } from './run-facts.js';
import { readLogLines } from './run-history.js';
import { lockOwner } from './run-lock.js';

/** `failed` is also a process that was killed: it could not say so. */
export type RunState = 'running' | 'finished' | 'stopped' | 'failed';

export interface RunReport {
  name: string;
  path: string;
  state: RunState;
  /** Of a failed run: its error, or that it ended without a word. Of a running one: its process. */
  reason: string | null;
  /** config.json; null when it cannot be read. */
  config: Record<string, unknown> | null;
  /** ISO times of the first and the last event; null in a run without events. */
  startedAt: string | null;
  updatedAt: string | null;
  stages: StageFacts[];
  evaluations: EvaluationFacts[];
  /** Steps of all stages. */
  steps: number;
  /** Of the newest step that has one. */
  reward: number | null;
  /** The newest evaluation's, of a judge or of a scorer. */
  accuracy: number | null;
  /** The last line of metrics.jsonl. */
  lastMetrics: Record<string, unknown> | null;
  checkpoints: { step: number; folder: string; sizeBytes: number }[];
  sizeBytes: number;
  problems: string[];
}

/** What makes a folder a run. */
const marks = ['config.json', 'events.jsonl', 'metrics.jsonl', 'checkpoints'];

/** A folder that a run was started in: its configuration and a log or checkpoints. */
export async function looksLikeRun(path: string): Promise<boolean> {
  const names = new Set(await readdir(path).catch(() => [] as string[]));
  return marks.slice(1).some((name) => names.has(name));
}

/** The runs in `folder`, which may be one itself, and in folders in it, by name. Errors: 'io', 'permission_denied'. */
export async function findRuns(folder: string, depth = 3): Promise<string[]> {
  if (await looksLikeRun(folder)) return [folder];
  const entries = await readdir(folder, { withFileTypes: true }).catch((error: unknown) => {
    throw fileError(error, 'read', folder);
  });
  if (depth === 0) return [];
  const inside = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'));
  const runs: string[] = [];
  for (const { name } of inside.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    // What cannot be read below is not ours to list.
    runs.push(...(await findRuns(join(folder, name), depth - 1).catch(() => [])));
  }
  return runs;
}

/** Errors: 'io' for a folder that is no run. */
export async function readRunReport(path: string): Promise<RunReport> {
  if (!(await looksLikeRun(path))) {
    const what = `a run folder (${marks.join(', ')})`;
    throw expected('io', 'run', what, path, 'Check the path; `gavel runs list FOLDER` lists the runs in a folder.');
  }
  const problems: string[] = [];
  const onDamage = (error: GavelError): number => problems.push(error.message);
  const config = await readConfig(path, problems);
  const log = await readEvents(join(path, 'events.jsonl'), onDamage);
  if (log.startedAt === null) problems.push('No event was logged: the run is older than its logs, or never began.');
  let lastMetrics: Record<string, unknown> | null = null;
  for await (const line of readLogLines(join(path, 'metrics.jsonl'), onDamage)) lastMetrics = line;
  const owner = await lockOwner(path);
  const checkpoints = new CheckpointStore(join(path, 'checkpoints'));
  const saved = [];
  for (const step of await checkpoints.steps()) {
    const folder = checkpoints.folderOf(step);
    saved.push({ step, folder, sizeBytes: await sizeOf(folder) });
  }
  const { state, reason } =
    owner === undefined ? log.end : { state: 'running' as const, reason: `process ${owner} writes to it` };
  const { startedAt, updatedAt, reward, accuracy, fold } = log;
  const facts = fold.facts();
  return {
    name: basename(resolve(path)),
    path,
    state,
    reason,
    config,
    startedAt,
    updatedAt,
    ...facts,
    steps: facts.stages.reduce((sum, { steps }) => sum + (steps ?? 0), 0),
    reward,
    accuracy,
    lastMetrics,
    checkpoints: saved,
    sizeBytes: await sizeOf(path),
    problems,
  };
}

async function readConfig(path: string, problems: string[]): Promise<Record<string, unknown> | null> {
  const file = join(path, 'config.json');
  try {
    const value: unknown = JSON.parse(await readFile(file, 'utf8'));
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    problems.push(`${file} holds no object.`);
  } catch (error) {
    const failure = fileError(error, 'read', file);
    problems.push(GavelError.is(failure) ? failure.message : `${file} is no JSON: ${(error as Error).message}`);
  }
  return null;
}

interface EventLog {
  fold: StageFold;
  startedAt: string | null;
  updatedAt: string | null;
  reward: number | null;
  accuracy: number | null;
  end: { state: RunState; reason: string | null };
}

const noWord = { state: 'failed', reason: 'It ended without a word: killed, or the machine stopped.' } as const;

async function readEvents(path: string, onDamage: (error: GavelError) => void): Promise<EventLog> {
  const log: EventLog = {
    fold: new StageFold(),
    startedAt: null,
    updatedAt: null,
    reward: null,
    accuracy: null,
    end: noWord,
  };
  for await (const event of readLogLines(path, onDamage)) {
    const { time, type, reward } = event;
    log.fold.add(event);
    if (typeof time === 'string') {
      log.startedAt ??= time;
      log.updatedAt = time;
    }
    if (type === 'step-end' && typeof reward === 'number') log.reward = reward;
    const result = event['result'] as Record<string, unknown> | undefined;
    const accuracy =
      type === 'evaluation-end'
        ? result?.['accuracy']
        : type === 'scoring-end'
          ? result?.['accuracyWithoutTies']
          : undefined;
    if (typeof accuracy === 'number') log.accuracy = accuracy;
    // What happens after an end is another process that went on.
    log.end = type === 'run-end' ? endOf(event) : noWord;
  }
  return log;
}

function endOf({ reason, error }: Readonly<Record<string, unknown>>): EventLog['end'] {
  if (reason === 'finished' || reason === 'stopped') return { state: reason, reason: null };
  return { state: 'failed', reason: typeof error === 'string' ? error : String(reason) };
}

/** Bytes of every file below; files that vanish meanwhile count nothing. */
async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
  let total = 0;
  for (const entry of entries) {
    if (!entry.isFile()) continue;
    total += await stat(join(entry.parentPath, entry.name)).then(
      ({ size }) => size,
      () => 0,
    );
  }
  return total;
}
