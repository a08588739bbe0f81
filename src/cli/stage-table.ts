/** The table of a run: a stage a row. */
import type { RunSummary, StageSummary } from '../runs/summary.js';

export const stageColumns = [
  'stage',
  'accuracy [95 %]',
  'unseen artist',
  'direct',
  'perception',
  'verdict cons.',
  'score cons.',
  'format',
  'order cons.',
  'seconds',
  'tokens/s',
] as const;

const none = '-';

function rate(value: unknown): string {
  return typeof value === 'number' ? value.toFixed(3) : none;
}

/** The cells of one stage, in the order of `stageColumns`. */
export function stageCells(stage: StageSummary): string[] {
  const accuracy =
    stage.accuracy === null
      ? none
      : `${rate(stage.accuracy)} [${rate(stage.accuracyLow)}, ${rate(stage.accuracyHigh)}]`;
  return [
    stage.name,
    accuracy,
    rate(stage.unseenArtistAccuracy),
    rate(stage.directAccuracy),
    rate(stage['perception']),
    rate(stage['verdictConsistency']),
    rate(stage['scoreConsistency']),
    rate(stage.formatRate),
    rate(stage.orderConsistency),
    stage.seconds.toFixed(1),
    stage.tokensPerSecond === null ? none : String(Math.round(stage.tokensPerSecond)),
  ];
}

/** Columns of equal width, those of `left` (default: the first) left-aligned, the others right-aligned. */
export function textTable(
  columns: readonly string[],
  rows: readonly (readonly string[])[],
  left: readonly number[] = [0],
): string {
  const widths = columns.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (left.includes(i) ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(columns), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

export function stageTable({ stages }: Pick<RunSummary, 'stages'>): string {
  return textTable(stageColumns, stages.map(stageCells));
}
