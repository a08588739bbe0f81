/** `gavel runs show`: everything a run says about itself, and its curves. */
import { stringify } from 'yaml';
import { readRunHistory } from '../runs/run-history.js';
import { runPlots, writePlots } from '../runs/run-plots.js';
import { readRunReport, type RunReport } from '../runs/run-report.js';
import { formatBytes } from './inspect.js';
import { formatAge, formatRate } from './runs-list.js';
import { textTable } from './stage-table.js';
import { print, printJson } from './terminal.js';

export async function runsShowCommand(path: string, options: { plots?: string; json: boolean }): Promise<void> {
  const report = await readRunReport(path);
  let plots: string[] = [];
  if (options.plots !== undefined) {
    // Damaged lines are among the report's problems already.
    const history = await readRunHistory(path, () => undefined);
    plots = await writePlots(options.plots, runPlots(history, report.name));
  }
  if (options.json) return printJson({ ...report, plots });
  for (const line of showLines(report)) print(line);
  if (options.plots === undefined) return;
  print(plots.length > 0 ? `\nCurves\n${plots.map((plot) => `  ${plot}`).join('\n')}` : '\nNo curves: no metrics.');
}

const indent = (text: string): string => text.replace(/^(?=.)/gm, '  ');

function showLines(report: RunReport): string[] {
  const { name, path, state, reason, startedAt, updatedAt, sizeBytes, config, lastMetrics, problems } = report;
  const lines = [
    `${name}: ${state}${reason === null ? '' : ` (${reason})`}`,
    `  folder   ${path}, ${formatBytes(sizeBytes)}`,
  ];
  if (startedAt !== null && updatedAt !== null) {
    const lasted = formatAge(Date.parse(updatedAt) - Date.parse(startedAt));
    lines.push(`  started  ${startedAt}, last event ${lasted} later`);
  }
  for (const problem of problems) lines.push(`  problem  ${problem}`);
  lines.push('', 'Stages', indent(textTable(stageColumns, report.stages.map(stageCells), [0, 1])));
  if (report.evaluations.length > 0) {
    lines.push(
      '',
      'Evaluations',
      indent(textTable(evaluationColumns, report.evaluations.map(evaluationCells), [0, 1])),
    );
  }
  if (lastMetrics !== null) {
    const width = Math.max(...Object.keys(lastMetrics).map((key) => key.length));
    lines.push('', 'Last metrics');
    for (const [key, value] of Object.entries(lastMetrics)) lines.push(`  ${key.padEnd(width)}  ${shown(value)}`);
  }
  lines.push('', 'Checkpoints');
  for (const { step, folder, sizeBytes: size } of report.checkpoints) {
    lines.push(`  step ${step}  ${folder}, ${formatBytes(size)}`);
  }
  if (report.checkpoints.length === 0) lines.push('  none');
  if (config !== null) lines.push('', 'Configuration', indent(stringify(config).trimEnd()));
  return lines;
}

function shown(value: unknown): string {
  if (typeof value !== 'number') return typeof value === 'string' ? value : (JSON.stringify(value) ?? 'none');
  return Number.isInteger(value) ? String(value) : value.toPrecision(6);
}

const stageColumns = ['stage', 'recipe', 'steps', 'loss', 'reward', 'seconds'];

const stageCells = ({ stage, recipe, steps, loss, reward, seconds }: RunReport['stages'][number]): string[] => [
  stage,
  recipe,
  steps === null ? '-' : String(steps),
  loss === null ? '-' : loss.toPrecision(4),
  formatRate(reward),
  seconds === null ? '-' : seconds.toFixed(1),
];

const evaluationColumns = ['stage', 'set', 'step', 'items', 'accuracy [95 %]', 'format', 'order cons.'];

function evaluationCells(evaluation: RunReport['evaluations'][number]): string[] {
  const {
    stage,
    name,
    step,
    count,
    accuracy,
    accuracyLow,
    accuracyHigh,
    formatRate: format,
    orderConsistency,
  } = evaluation;
  const interval =
    accuracyLow === null || accuracyHigh === null ? '' : ` [${formatRate(accuracyLow)}, ${formatRate(accuracyHigh)}]`;
  return [
    stage,
    name,
    String(step),
    String(count),
    `${formatRate(accuracy)}${interval}`,
    formatRate(format),
    formatRate(orderConsistency),
  ];
}
