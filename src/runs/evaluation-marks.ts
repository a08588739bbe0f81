/** evaluations.jsonl of a run: the mark of every item of every evaluation, for paired comparison of runs. */
import { join } from 'node:path';
import { readLogLines, type OnDamage } from './run-history.js';

/** The last evaluation of a set in a stage. */
export interface EvaluationMarks {
  stage: string;
  name: string;
  step: number;
  /** Between 0 and 1, by id of the item. */
  marks: ReadonlyMap<string, number>;
}

/** Nothing for a run that is older than the file. */
export async function readEvaluationMarks(path: string, onDamage: OnDamage): Promise<EvaluationMarks[]> {
  const last = new Map<string, EvaluationMarks>();
  for await (const { stage, name, step, marks } of readLogLines(join(path, 'evaluations.jsonl'), onDamage)) {
    if (typeof stage !== 'string' || typeof name !== 'string' || typeof step !== 'number') continue;
    if (typeof marks !== 'object' || marks === null) continue;
    const numbers = Object.entries(marks).filter((entry): entry is [string, number] => Number.isFinite(entry[1]));
    last.set(`${stage}\0${name}`, { stage, name, step, marks: new Map(numbers) });
  }
  return [...last.values()];
}
