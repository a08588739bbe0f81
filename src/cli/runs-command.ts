/** `gavel runs`: what run folders hold; reads only, so it may look at a run that is being written. */
import { InvalidArgumentError, type Command } from 'commander';

const integer = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('Expected an integer >= 0.');
  return value;
};
const isJson = (command: Command): boolean => command.optsWithGlobals<{ json?: boolean }>().json === true;

export interface RunsSamplesOptions {
  item?: string;
  stage?: string;
  checkpoint?: string;
  /** What evaluations kept. */
  evaluation?: boolean;
  /** Of this evaluation set. */
  set?: string;
  correct?: boolean;
  wrong?: boolean;
  limit?: number;
  html?: string;
  parquet?: string;
  json: boolean;
}

/** Adds the command with its four parts. */
export function registerRuns(program: Command): void {
  const runs = program.command('runs').description('list, show and compare runs, and look at their samples');

  runs
    .command('list')
    .description('the runs in a folder: state, steps, last reward and accuracy, age, size')
    .argument('[folder]', 'where they are', 'runs')
    .option('--json', 'print JSON')
    .action(async (folder: string, _options: unknown, command: Command) => {
      const { runsListCommand } = await import('./runs-list.js');
      await runsListCommand(folder, isJson(command));
    });

  runs
    .command('show')
    .description('one run: configuration, stages with their results, last metrics, checkpoints')
    .argument('<run>', 'run folder')
    .option('--plots <folder>', 'write its curves there, as SVG and PNG')
    .option('--json', 'print JSON')
    .action(async (run: string, options: { plots?: string }, command: Command) => {
      const { runsShowCommand } = await import('./runs-show.js');
      await runsShowCommand(run, { ...options, json: isJson(command) });
    });

  runs
    .command('samples')
    .description('the marked samples of a run, the newest first')
    .argument('<run>', 'run folder')
    .option('--item <id>', 'of this item')
    .option('--stage <name>', 'that this stage drew')
    .option('--checkpoint <name>', 'that these weights drew')
    .option('--evaluation', 'completions that evaluations kept, instead of the others')
    .option('--set <name>', 'of evaluations: those of this set')
    .option('--correct', 'that are right')
    .option('--wrong', 'that are wrong')
    .option('--limit <n>', 'at most so many; default 20 in the table, 200 on the page, else all', integer)
    .option('--html <page>', 'write a page with the pictures beside the texts')
    .option('--parquet <file>', 'write them as Parquet')
    .option('--json', 'print a JSON line a sample')
    .action(async (run: string, options: Omit<RunsSamplesOptions, 'json'>, command: Command) => {
      const { runsSamplesCommand } = await import('./runs-samples.js');
      await runsSamplesCommand(run, { ...options, json: isJson(command) });
    });

  runs
    .command('compare')
    .description('final numbers of several runs, and the paired difference where they judged the same items')
    .argument('<runs...>', 'run folders; the first is what the others are compared with')
    .option('--plots <folder>', 'write their curves in one picture each, as SVG and PNG')
    .option('--json', 'print JSON')
    .action(async (paths: string[], options: { plots?: string }, command: Command) => {
      const { runsCompareCommand } = await import('./runs-compare.js');
      await runsCompareCommand(paths, { ...options, json: isJson(command) });
    });
}
