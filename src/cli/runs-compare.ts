/** `gavel runs compare`: final numbers side by side, and the paired difference on items that two runs judged. */
import { basename, resolve } from 'node:path';
import { expected } from '../errors.js';
import { pairedBootstrap, type BootstrapResult } from '../evaluation/bootstrap.js';
import { readEvaluationMarks, type EvaluationMarks } from '../runs/evaluation-marks.js';
import { readRunHistory, type RunHistory } from '../runs/run-history.js';
import { comparisonPlots, writePlots } from '../runs/run-plots.js';
import { readRunReport } from '../runs/run-report.js';
import { textTable } from './stage-table.js';
import { print, printJson } from './terminal.js';

interface ComparedRun {
  name: string;
  path: string;
  history: RunHistory;
  marks: EvaluationMarks[];
  numbers: Map<string, number>;
}

interface PairedDifference extends BootstrapResult {
  /** Stage and set that both runs evaluated. */
  evaluation: string;
  from: string;
  to: string;
  /** Items that both judged. */
  items: number;
}

export async function runsCompareCommand(
  paths: readonly string[],
  options: { plots?: string; json: boolean },
): Promise<void> {
  if (paths.length < 2) {
    throw expected('invalid_argument', 'runs', 'at least two run folders', String(paths.length), 'Name another run.');
  }
  const names = distinctNames(paths);
  const runs: ComparedRun[] = [];
  for (const [i, path] of paths.entries()) {
    const { problems } = await readRunReport(path);
    for (const problem of problems) process.stderr.write(`${path}: ${problem}\n`);
    const history = await readRunHistory(path, () => undefined);
    const marks = await readEvaluationMarks(path, () => undefined);
    runs.push({ name: names[i]!, path, history, marks, numbers: finalNumbers(history) });
  }
  const paired: PairedDifference[] = [];
  for (const other of runs.slice(1)) paired.push(...(await pairedDifferences(runs[0]!, other)));
  const plots = options.plots === undefined ? [] : await writePlots(options.plots, comparisonPlots(runs));
  const metrics = [...new Set(runs.flatMap(({ numbers }) => [...numbers.keys()]))];
  if (options.json) {
    return printJson({
      runs: runs.map(({ name, path, numbers }) => ({ name, path, final: Object.fromEntries(numbers) })),
      paired,
      plots,
    });
  }
  print(
    textTable(
      ['final', ...names],
      metrics.map((metric) => [metric, ...runs.map(({ numbers }) => shown(numbers.get(metric)))]),
    ),
  );
  print('');
  if (paired.length === 0) print('No evaluation of two runs judged the same items, so no difference is paired.');
  else print(textTable(pairedColumns, paired.map(pairedCells), [0, 1]));
  for (const plot of plots) print(plot);
}

/** Folder names, or whole paths where two are equal. */
function distinctNames(paths: readonly string[]): string[] {
  const names = paths.map((path) => basename(resolve(path)));
  return names.map((name, i) => (names.indexOf(name) === names.lastIndexOf(name) ? name : paths[i]!));
}

/** What matters of an evaluation; its other numbers are in TensorBoard and events.jsonl. */
const rates = [
  'accuracy',
  'unseenAccuracy',
  'directAccuracy',
  'accuracyWithTies',
  'margin',
  'formatRate',
  'unparsedRate',
  'orderConsistency',
  'meanLength',
];
const metricNames = [
  'loss',
  'accuracy',
  'margin',
  'rewards/accuracies',
  'rewards/margins',
  'reward',
  'kl',
  'entropy',
  'frac_reward_zero_std',
  'completions/mean_length',
  'format_rate',
  'grad_norm',
];

/** The last value of each metric in each stage and of each rate in each evaluation, by name. */
function finalNumbers({ metrics, evaluations }: RunHistory): Map<string, number> {
  const numbers = new Map<string, number>();
  for (const { stage, step, values } of metrics) {
    numbers.set(`${stage} steps`, step);
    for (const name of metricNames) if (values[name] !== undefined) numbers.set(`${stage} ${name}`, values[name]);
  }
  for (const { stage, name, values } of evaluations) {
    for (const rate of rates) if (values[rate] !== undefined) numbers.set(`${stage} ${name}: ${rate}`, values[rate]);
  }
  return numbers;
}

async function pairedDifferences(from: ComparedRun, to: ComparedRun): Promise<PairedDifference[]> {
  const differences: PairedDifference[] = [];
  for (const { stage, name, marks: a } of from.marks) {
    const b = to.marks.find((other) => other.stage === stage && other.name === name)?.marks;
    const items = b === undefined ? [] : [...a.keys()].filter((item) => b.has(item));
    if (b === undefined || items.length === 0) continue;
    const marksOf = (marks: ReadonlyMap<string, number>): number[] => items.map((item) => marks.get(item)!);
    const result = await pairedBootstrap(marksOf(a), marksOf(b));
    differences.push({ evaluation: `${stage} ${name}`, from: from.name, to: to.name, items: items.length, ...result });
  }
  return differences;
}

const pairedColumns = ['same items', 'runs', 'items', 'difference [95 %]', 'not above'];

const pairedCells = ({
  evaluation,
  from,
  to,
  items,
  difference,
  low,
  high,
  shareNotAbove,
}: PairedDifference): string[] => [
  evaluation,
  `${to} - ${from}`,
  String(items),
  `${signed(difference)} [${signed(low)}, ${signed(high)}]`,
  shareNotAbove.toFixed(3),
];

const signed = (value: number): string => `${value > 0 ? '+' : ''}${value.toFixed(3)}`;

function shown(value: number | undefined): string {
  if (value === undefined) return '-';
  return Number.isInteger(value) ? String(value) : value.toPrecision(4);
}
