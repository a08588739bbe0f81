/** `gavel runs list`: a line a run. */
import { GavelError } from '../errors.js';
import { findRuns, readRunReport, type RunReport } from '../runs/run-report.js';
import { formatBytes } from './inspect.js';
import { textTable } from './stage-table.js';
import { print, printJson } from './terminal.js';

const none = '-';

/** 90 seconds are '1 min', two days '2 d'. */
export function formatAge(ms: number): string {
  const units = [
    { name: 'd', ms: 86_400_000 },
    { name: 'h', ms: 3_600_000 },
    { name: 'min', ms: 60_000 },
  ];
  const unit = units.find((candidate) => ms >= candidate.ms);
  return unit === undefined ? `${Math.max(0, Math.floor(ms / 1000))} s` : `${Math.floor(ms / unit.ms)} ${unit.name}`;
}

export const formatRate = (value: number | null): string => (value === null ? none : value.toFixed(3));

/** Recipes of the stages as they came, each once in a row. */
export function recipesOf({ stages, config }: RunReport): string {
  const configured = (config?.['stages'] as { recipe?: unknown }[] | undefined) ?? [];
  const recipes =
    stages.length > 0 ? stages.map(({ recipe }) => recipe) : configured.map(({ recipe }) => String(recipe));
  return [...new Set(recipes.filter((recipe) => recipe !== 'evaluate'))].join(', ') || recipes[0] || none;
}

export async function runsListCommand(folder: string, json: boolean): Promise<void> {
  const reports: RunReport[] = [];
  const failures: { path: string; error: string }[] = [];
  for (const path of await findRuns(folder)) {
    try {
      reports.push(await readRunReport(path));
    } catch (error) {
      if (!GavelError.is(error)) throw error;
      failures.push({ path, error: error.message });
    }
  }
  if (json) {
    // The configuration stands in the folder; a list of runs is no place for it.
    return printJson([...reports.map(({ config: _, ...report }) => report), ...failures]);
  }
  if (reports.length > 0) print(textTable(columns, reports.map(cells), [0, 1, 2]));
  else print(`No run in ${folder}.`);
  for (const { path, problems } of reports)
    for (const problem of problems) process.stderr.write(`${path}: ${problem}\n`);
  for (const { path, error } of failures) process.stderr.write(`${path}: ${error}\n`);
}

const columns = ['run', 'recipes', 'state', 'steps', 'reward', 'accuracy', 'age', 'size'];

function cells(report: RunReport): string[] {
  const { path, state, steps, reward, accuracy, startedAt, sizeBytes } = report;
  const age = startedAt === null ? none : formatAge(Date.now() - Date.parse(startedAt));
  const rates = [formatRate(reward), formatRate(accuracy)];
  return [path, recipesOf(report), state, String(steps), ...rates, age, formatBytes(sizeBytes)];
}
