#!/usr/bin/env node
/** The `gavel` command. Heavy modules are imported by the action that needs them, so help and errors come at once. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { GavelError } from '../errors.js';
import { fileError } from '../runs/file-errors.js';
import type {
  ExportCommandOptions,
  InspectCommandOptions,
  JudgeCommandOptions,
  LogprobsCommandOptions,
  QuickstartCommandOptions,
  SampleCommandOptions,
} from './command-options.js';
import { registerData } from './data-command.js';
import { registerEval } from './eval-command.js';
import { exitCodeHelp, exitCodeOf, exitCodes } from './exit-codes.js';
import { InterruptedError } from './interrupt.js';
import { registerRuns } from './runs-command.js';
import { registerScore } from './score-command.js';
import { inUserWords } from './user-words.js';

const integer = (text: string): number => {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('Expected an integer >= 0.');
  return value;
};
const number = (text: string): number => {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value)) throw new InvalidArgumentError('Expected a number.');
  return value;
};
const modelHelp = 'a folder, a run folder, a .gguf file, or a hub id: org/name or org/name@revision';
const collect = (value: string, before: string[]): string[] => [...before, value];

function build(): Command {
  const program = new Command('gavel')
    .description('Trains reward models that reason, natively, in one process.')
    .option('--json', 'print what a program reads')
    .addHelpText('after', exitCodeHelp)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text) });
  const isJson = (command: Command): boolean => command.optsWithGlobals<{ json?: boolean }>().json === true;

  program
    .command('train')
    .description('run the stages of a configuration')
    .argument('<run.yaml>', 'configuration; `gavel schema` describes it')
    .option('--resume', 'continue at the last checkpoint')
    .option('--set <key=value>', 'override a value, dotted: --set stages.0.options.seed=1', collect, [])
    .option('--json', 'print events as JSON lines')
    .action(async (path: string, options: { resume?: boolean; set: string[] }, command: Command) => {
      const { trainCommand } = await import('./train.js');
      process.exitCode = await trainCommand(path, { ...options, json: isJson(command) });
    });

  registerEval(program, { integer, number, collect, modelHelp });

  program
    .command('sample')
    .description('complete the prompts of a file or one prompt')
    .requiredOption('--model <name>', modelHelp)
    .option('--input <file>', 'JSONL with prompts, images and videos; prints JSON lines')
    .option('--prompt <text>', 'one prompt; prints text; pictures and videos stand before it')
    .option('--image <file>', 'picture of the prompt, repeatable', collect, [])
    .option('--video <path>', 'video of the prompt, a file or a folder of frames, repeatable', collect, [])
    .option('--group <n>', 'completions of each prompt', integer, 1)
    .option('--max-new-tokens <n>', 'longest completion', integer, 512)
    .option('--temperature <t>', '0 is greedy', number, 1)
    .option('--top-p <p>', 'draw among the likeliest tokens of this mass', number)
    .option('--top-k <k>', 'draw among the k likeliest tokens', integer)
    .option('--min-p <p>', 'draw among tokens of at least this share of the likeliest', number)
    .option('--stop <text>', 'ends a completion that contains it, repeatable; it stays in the text', collect, [])
    .option('--seed <n>', 'key of the sampling', integer, 0)
    .option('--threads <n>', 'threads that compute; default: one a core', integer)
    .option('--json', 'a JSON line for --prompt too')
    .action(async (options: SampleCommandOptions, command: Command) => {
      const { sampleCommand } = await import('./sample.js');
      await sampleCommand({ ...options, json: isJson(command) });
    });

  program
    .command('logprobs')
    .description('log-probabilities of given completions')
    .requiredOption('--model <name>', modelHelp)
    .requiredOption('--input <file>', 'JSONL with prompts, images and completions')
    .option('--temperature <t>', 'logits are divided by it', number, 1)
    .option('--entropy', 'entropies too, in nats')
    .option('--json', 'errors as JSON too; results are JSON lines anyway')
    .action(async (options: LogprobsCommandOptions) => {
      const { logprobsCommand } = await import('./logprobs.js');
      await logprobsCommand(options);
    });

  program
    .command('judge')
    .description('let a trained judge reason about pictures or videos')
    .requiredOption('--model <name>', modelHelp)
    .requiredOption(
      '--prompt <text>',
      'the question; pictures and videos stand before it unless it says <image> or <video>',
    )
    .option(
      '--task <kind>',
      'ask in set words: image-pair, video-pair, answer-pair, image-score, video-score, answer-score',
    )
    .option('--image <file>', 'a candidate picture, repeatable', collect, [])
    .option('--video <path>', 'a candidate video, a file or a folder of frames, repeatable', collect, [])
    .option('--answer <text>', 'a candidate answer, repeatable', collect, [])
    .option('--direct', 'with --task: ask for the verdict without reasons')
    .option('--max-new-tokens <n>', 'longest judgement', integer, 512)
    .option('--json', 'print rationale and answer as JSON')
    .action(async (options: JudgeCommandOptions, command: Command) => {
      const { judgeCommand } = await import('./judge.js');
      await judgeCommand({ ...options, json: isJson(command) });
    });

  registerScore(program, { integer, number, collect, modelHelp });

  registerData(program);

  program
    .command('inspect')
    .description('say what a checkpoint holds: family, parameters, dtypes, files, memory need')
    .argument('<model>', modelHelp)
    .option('--prompt-tokens <n>', 'of the memory need; default 1024', integer)
    .option('--max-new-tokens <n>', 'of the memory need; default 512', integer)
    .option('--group <n>', 'of the memory need: completions of the prompt', integer, 8)
    .option('--json', 'print JSON')
    .action(async (name: string, options: InspectCommandOptions, command: Command) => {
      const { inspectCommand } = await import('./inspect.js');
      process.exitCode = await inspectCommand(name, { ...options, json: isJson(command) });
    });

  program
    .command('export')
    .description('write a run or a model as transformers or PEFT load it, with a model card')
    .requiredOption('--model <name>', modelHelp)
    .requiredOption('--out <folder>', 'new folder')
    .option('--merge', 'merge a LoRA adapter into its base model')
    .option('--dtype <type>', 'fp32 or bf16; default: as it is stored')
    .option('--base <id>', 'hub id of the base model, for the card')
    .option('--license <id>', 'licence, for the card; default: that of the base model')
    .option('--json', 'print JSON')
    .action(async (options: ExportCommandOptions, command: Command) => {
      const { exportCommand } = await import('./export.js');
      await exportCommand({ ...options, json: isJson(command) });
    });

  program
    .command('quickstart')
    .description('train a small judge on real artwork from random weights, in minutes')
    .option('--smoke', 'a short version that checks the plumbing; its numbers mean nothing')
    .option('--out <folder>', 'run folder', 'runs/quickstart')
    .option('--seed <n>', 'key of weights, data and sampling', integer, 1)
    .option('--threads <n>', 'threads that compute; default: one a core', integer)
    .option('--resume', 'continue at the last checkpoint')
    .option('--json', 'print the summary as JSON')
    .action(async (options: QuickstartCommandOptions, command: Command) => {
      const { quickstartCommand } = await import('./quickstart.js');
      process.exitCode = await quickstartCommand({ ...options, json: isJson(command) });
    });

  registerRuns(program);

  program
    .command('doctor')
    .description('say what this machine offers and what is missing')
    .option('--json', 'print JSON')
    .action(async (_options: unknown, command: Command) => {
      const { doctorCommand } = await import('./doctor.js');
      process.exitCode = await doctorCommand(isJson(command));
    });

  program
    .command('setup')
    .description('build the native addon inside the installed package')
    .option('--builder <name>', 'cmake, gyp or plain; default: the best there is')
    .option('--force', 'build again')
    .action(async (options: { builder?: string; force?: boolean }) => {
      const { runSetup } = await import('./setup.js');
      runSetup(options);
    });

  program
    .command('schema')
    .description('print the JSON Schema of run.yaml or of one recipe')
    .argument('[name]', 'run, or the name of a recipe that has options', 'run')
    .action(async (name: string) => {
      const { schemaCommand } = await import('./schema.js');
      schemaCommand(name);
    });
  return program;
}

function report(error: unknown, json: boolean): void {
  if (json && GavelError.is(error)) {
    process.stderr.write(
      `${JSON.stringify({ error: { code: error.code, message: error.message, fields: error.fields } })}\n`,
    );
  } else if (GavelError.is(error)) process.stderr.write(`gavel: ${error.message} [${error.code}]\n`);
  else process.stderr.write(`gavel: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
}

/** Runs the command line; sets the exit status and leaves the process to end by itself. */
export async function main(args: readonly string[]): Promise<void> {
  try {
    await build().parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    } else if (error instanceof InterruptedError) {
      process.stderr.write(`gavel: ${error.message}\n`);
      process.exitCode = exitCodes.interrupted;
    } else {
      report(inUserWords(error), args.includes('--json'));
      process.exitCode = exitCodeOf(error);
    }
  }
}

// A reader that went away (`gavel schema | head`) is no failure of ours; a full disk is one.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.ok);
  report(fileError(error, 'write', 'standard output'), process.argv.includes('--json'));
  process.exit(exitCodes.failure);
});
await main(process.argv.slice(2));
