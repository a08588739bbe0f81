/**
 * What a run measured, on one axis: metrics and evaluations at their run-wide step, and where its stages lie. Steps that the
 * run went back over are left out. Reads the logs as they are; damaged lines go to `onDamage`.
 */
import { join } from 'node:path';
import type { GavelError } from '../errors.js';
import { readJsonLines } from './json-lines.js';
import { measurementsOf } from './measurements.js';
import { RunSteps } from './run-steps.js';

export interface MetricPoint {
  stage: string;
  /** Of the stage, and of the run. */
  step: number;
  runStep: number;
  values: Readonly<Record<string, number>>;
}

export interface EvaluationPoint {
  stage: string;
  name: string;
  step: number;
  runStep: number;
  /** The result's numbers; `accuracy` of a scorer is that without ties, of a selection that of the system in `name`. */
  values: Readonly<Record<string, number>>;
}

export interface RunHistory {
  metrics: MetricPoint[];
  evaluations: EvaluationPoint[];
}

export type OnDamage = (error: GavelError) => void;

type Line = Readonly<Record<string, unknown>>;

const isLine = (value: unknown): value is Line => typeof value === 'object' && value !== null && !Array.isArray(value);

/** The lines of a log that are objects. */
export async function* readLogLines(path: string, onDamage: OnDamage): AsyncGenerator<Line, void, undefined> {
  for await (const value of readJsonLines(path, { onDamage })) if (isLine(value)) yield value;
}

const numbersOf = (line: unknown): Record<string, number> =>
  isLine(line)
    ? Object.fromEntries(Object.entries(line).filter((entry): entry is [string, number] => Number.isFinite(entry[1])))
    : {};

export async function readRunHistory(path: string, onDamage: OnDamage): Promise<RunHistory> {
  return {
    metrics: await readMetrics(join(path, 'metrics.jsonl'), onDamage),
    evaluations: await readEvaluations(join(path, 'events.jsonl'), onDamage),
  };
}

async function readMetrics(path: string, onDamage: OnDamage): Promise<MetricPoint[]> {
  const metrics: MetricPoint[] = [];
  const steps = new RunSteps();
  for await (const line of readLogLines(path, onDamage)) {
    const { stage: named, step: found, ...values } = line;
    const stage = typeof named === 'string' ? named : '';
    if (typeof found !== 'number') continue;
    while (metrics.length > 0 && metrics.at(-1)!.stage === stage && metrics.at(-1)!.step >= found) metrics.pop();
    metrics.push({ stage, step: found, runStep: steps.of(stage, found), values: numbersOf(values) });
  }
  return metrics;
}

async function readEvaluations(path: string, onDamage: OnDamage): Promise<EvaluationPoint[]> {
  let evaluations: EvaluationPoint[] = [];
  const steps = new RunSteps();
  const newest = new Map<string, number>();
  for await (const line of readLogLines(path, onDamage)) {
    const { type, stage, step } = line;
    if (typeof stage !== 'string' || typeof step !== 'number') continue;
    if (type === 'step-end') {
      steps.of(stage, step);
      // A stage that goes back forgets what it measured after that point.
      if (step <= (newest.get(stage) ?? -1)) {
        evaluations = evaluations.filter((point) => point.stage !== stage || point.step < step);
      }
      newest.set(stage, step);
      continue;
    }
    for (const { name, values } of measurementsOf(line)) {
      evaluations.push({ stage, name, step, runStep: steps.of(stage, step), values });
    }
  }
  return evaluations;
}
