/** An evaluation as readable tables: plain text for a terminal, Markdown for a file. */
import type { BoundedCalibration } from './calibration.js';
import type { EvaluationResult } from './result.js';
import type { ScoreEvaluation, ScoreIntervals } from './scores.js';
import type { Headline } from './benchmarks/benchmark.js';

/** A titled table of names and values. */
export interface ResultTable {
  title: string;
  columns: readonly string[];
  rows: readonly (readonly string[])[];
}

const none = '-';
const rate = (value: number | null | undefined): string => (typeof value === 'number' ? value.toFixed(4) : none);
const interval = (low: number | null, high: number | null): string =>
  low === null || high === null ? none : `[${rate(low)}, ${rate(high)}]`;

type Entry = readonly [name: string, value: number | null | undefined, interval?: string];

/** A table without the entries that do not apply, or nothing when none does. */
function valueTable(title: string, entries: readonly Entry[]): ResultTable[] {
  const rows = entries
    .filter(([, value]) => typeof value === 'number')
    .map(([name, value, range]) => [name, rate(value), range ?? '']);
  return rows.length === 0 ? [] : [{ title, columns: [title, 'value', '95 %'], rows }];
}

/** Whole even where no answer parsed, so that nobody looks for it in vain. */
export const headlineTable = (headlines: readonly Headline[]): ResultTable[] =>
  headlines.length === 0
    ? []
    : [
        {
          title: 'benchmark',
          columns: ['benchmark', 'value', '95 %'],
          rows: headlines.map(({ name, value, low = null, high = null }) => [
            name,
            rate(value),
            low === null ? '' : interval(low, high),
          ]),
        },
      ];

/** The tables of a judge's evaluation. `headlines` are the numbers a benchmark reports. */
export function evaluationTables(result: EvaluationResult, headlines: readonly Headline[] = []): ResultTable[] {
  const { ties } = result;
  const hasTies = ties !== null && (ties.goldTieRate ?? 0) + (ties.predictedTieRate ?? 0) > 0;
  return [
    ...headlineTable(headlines),
    ...valueTable(`accuracy (${result.count} items)`, [
      ['accuracy', result.accuracy, interval(result.accuracyLow, result.accuracyHigh)],
      ['  bootstrap', result.accuracy, interval(result.bootstrapLow, result.bootstrapHigh)],
      ['unseen', result.unseenAccuracy, interval(result.unseenAccuracyLow, result.unseenAccuracyHigh)],
      ['direct', result.directAccuracy, interval(result.directAccuracyLow, result.directAccuracyHigh)],
      [
        'unseen direct',
        result.unseenDirectAccuracy,
        interval(result.unseenDirectAccuracyLow, result.unseenDirectAccuracyHigh),
      ],
      [
        'in the given order',
        result.accuracySwapped === null ? null : result.accuracyGiven,
        interval(result.accuracyGivenLow, result.accuracyGivenHigh),
      ],
      ['in the other order', result.accuracySwapped, interval(result.accuracySwappedLow, result.accuracySwappedHigh)],
      [
        'in both orders',
        result.accuracyBothOrders,
        interval(result.accuracyBothOrdersLow, result.accuracyBothOrdersHigh),
      ],
      [
        'clusters all right',
        result.clusters?.accuracy,
        interval(result.clusters?.low ?? null, result.clusters?.high ?? null),
      ],
    ]),
    ...valueTable('position', [
      ['order consistency', result.orderConsistency, interval(result.orderConsistencyLow, result.orderConsistencyHigh)],
      ['bias (first - second)', result.positionBias, interval(result.positionBiasLow, result.positionBiasHigh)],
      ['verdicts for the first', result.firstShare, interval(result.firstShareLow, result.firstShareHigh)],
    ]),
    ...valueTable('ties', hasTies ? tieEntries(ties) : []),
    ...valueTable('form', [
      ['format rate', result.formatRate],
      ['unparsed rate', result.unparsedRate],
      ['truncated rate', result.truncatedRate],
      ['totals readable', result.totalsRate],
      ['verdict against totals', result.contradictionRate],
      ['verdict on equal totals', result.tiedTotalsRate],
    ]),
    ...valueTable('samples', [
      ...Object.entries(result.passAtK ?? {}).map(([k, value]): Entry => [
        `pass@${k}`,
        value,
        interval(result.passAtKLow?.[k] ?? null, result.passAtKHigh?.[k] ?? null),
      ]),
      ['majority', result.majority, interval(result.majorityLow, result.majorityHigh)],
      ...calibrationEntries(result.calibration),
    ]),
    ...Object.entries(result.groups).map(([name, { micro, macro, subsets, ...range }]) => ({
      title: `by ${name}`,
      columns: [`by ${name}`, 'accuracy', '95 %', 'bootstrap', 'items'],
      rows: [
        ...Object.entries(subsets).map(([subset, { accuracy, low, high, bootstrapLow, bootstrapHigh, count }]) => [
          subset,
          rate(accuracy),
          interval(low, high),
          interval(bootstrapLow, bootstrapHigh),
          String(count),
        ]),
        ['micro', rate(micro), '', interval(range.microLow, range.microHigh), ''],
        ['macro', rate(macro), '', interval(range.macroLow, range.macroHigh), ''],
      ],
    })),
    ...valueTable(
      'extras',
      Object.entries(result.extras).map(([name, value]) => [name, value]),
    ),
  ];
}

/** The tables of a scorer's evaluation. */
export function scoreTables(result: ScoreEvaluation & ScoreIntervals): ResultTable[] {
  return [
    ...valueTable(`pairs (${result.count})`, [
      ['accuracy without ties', result.accuracyWithoutTies, interval(result.low, result.high)],
      [
        'accuracy with ties',
        result.accuracyWithTies,
        interval(result.accuracyWithTiesLow, result.accuracyWithTiesHigh),
      ],
      ['  best tie threshold', result.tieCalibration?.threshold],
      ['  accuracy there (optimistic)', result.tieCalibration?.accuracyWithTies],
      ['gold ties', result.goldTieRate],
      ['margin', result.margin, interval(result.marginLow, result.marginHigh)],
      ['mean gap', result.meanGap],
    ]),
    ...valueTable('calibration', calibrationEntries(result.calibration)),
  ];
}

const tieEntries = (ties: NonNullable<EvaluationResult['ties']>): Entry[] => [
  ['accuracy with ties', ties.accuracyWithTies, interval(ties.accuracyWithTiesLow, ties.accuracyWithTiesHigh)],
  [
    'accuracy without ties',
    ties.accuracyWithoutTies,
    interval(ties.accuracyWithoutTiesLow, ties.accuracyWithoutTiesHigh),
  ],
  ['gold ties', ties.goldTieRate],
  ['predicted ties', ties.predictedTieRate],
];

const calibrationEntries = (calibration: BoundedCalibration | null): Entry[] => [
  ['ECE, equal width', calibration?.ece, interval(calibration?.eceLow ?? null, calibration?.eceHigh ?? null)],
  [
    'ECE, equal mass',
    calibration?.eceEqualMass,
    interval(calibration?.eceEqualMassLow ?? null, calibration?.eceEqualMassHigh ?? null),
  ],
  ['Brier', calibration?.brier, interval(calibration?.brierLow ?? null, calibration?.brierHigh ?? null)],
  ['mean confidence', calibration?.meanConfidence],
];

/** For a terminal: names to the left, numbers to the right, a blank line between tables. */
export function plainTables(tables: readonly ResultTable[]): string {
  return tables.map(plainTable).join('\n\n');
}

function plainTable({ columns, rows }: ResultTable): string {
  const widths = columns.map((name, i) => Math.max(name.length, ...rows.map((row) => row[i]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(columns), widths.map((width) => '-'.repeat(width)).join('  '), ...rows.map(line)].join('\n');
}

/** For a file. */
export function markdownTables(title: string, tables: readonly ResultTable[]): string {
  const cell = (text: string): string => text.trim().replaceAll('|', '\\|');
  const table = ({ columns, rows }: ResultTable): string =>
    [
      `| ${columns.map(cell).join(' | ')} |`,
      `| --- |${' ---: |'.repeat(columns.length - 1)}`,
      ...rows.map((row) => `| ${row.map(cell).join(' | ')} |`),
    ].join('\n');
  return `# ${title}\n\n${tables.map(table).join('\n\n')}\n`;
}
