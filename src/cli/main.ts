#!/usr/bin/env node
/** The `gavel` command. Heavy modules are imported by the action that needs them, so help and errors come at once. */
import { Command, CommanderError, InvalidArgumentError } from 'commander';
import { GavelError } from '../errors.js';
import type {
  EvalCommandOptions,
  JudgeCommandOptions,
  LogprobsCommandOptions,
  QuickstartCommandOptions,
  SampleCommandOptions,
} from './command-options.js';
import { exitCodeHelp, exitCodeOf, exitCodes } from './exit-codes.js';
import { InterruptedError } from './interrupt.js';

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

  program
    .command('eval')
    .description('evaluate a model on a data set: accuracy with interval, format, both orders')
    .requiredOption('--model <folder>', 'Hugging Face folder')
    .requiredOption('--data <file>', 'JSONL with prompts, images and solutions')
    .option('--one-order', 'do not ask with the candidates exchanged')
    .option('--max-new-tokens <n>', 'longest completion', integer, 512)
    .option('--temperature <t>', '0 is greedy', number, 0)
    .option('--seed <n>', 'key of the sampling', integer, 0)
    .option('--verifier <name>', 'strict or lenient', 'strict')
    .option('--json', 'print the result as JSON')
    .action(async (options: EvalCommandOptions, command: Command) => {
      const { evalCommand } = await import('./model-commands.js');
      await evalCommand({ ...options, json: isJson(command) });
    });

  program
    .command('sample')
    .description('complete the prompts of a data set or one prompt')
    .requiredOption('--model <folder>', 'Hugging Face folder')
    .option('--data <file>', 'JSONL with prompts and images')
    .option('--prompt <text>', 'one prompt; images stand before it')
    .option('--image <file>', 'picture of the prompt, repeatable', collect, [])
    .option('--count <n>', 'completions of each prompt', integer, 1)
    .option('--max-new-tokens <n>', 'longest completion', integer, 512)
    .option('--temperature <t>', '0 is greedy', number, 1)
    .option('--top-p <p>', 'draw among the likeliest tokens of this mass', number)
    .option('--top-k <k>', 'draw among the k likeliest tokens', integer)
    .option('--seed <n>', 'key of the sampling', integer, 0)
    .option('--json', 'print JSON lines with tokens and log-probs')
    .action(async (options: SampleCommandOptions, command: Command) => {
      const { sampleCommand } = await import('./model-commands.js');
      await sampleCommand({ ...options, json: isJson(command) });
    });

  program
    .command('logprobs')
    .description('log-probabilities of given completions')
    .requiredOption('--model <folder>', 'Hugging Face folder')
    .requiredOption('--data <file>', 'JSONL with prompts, images and completions')
    .option('--temperature <t>', 'logits are divided by it', number, 1)
    .option('--entropy', 'entropies too, in nats')
    .option('--json', 'print JSON lines with every token')
    .action(async (options: LogprobsCommandOptions, command: Command) => {
      const { logprobsCommand } = await import('./model-commands.js');
      await logprobsCommand({ ...options, json: isJson(command) });
    });

  program
    .command('judge')
    .description('let a trained judge reason about pictures')
    .requiredOption('--model <folder>', 'Hugging Face folder')
    .requiredOption('--prompt <text>', 'the question; pictures stand before it unless it says <image>')
    .option('--image <file>', 'a candidate picture, repeatable', collect, [])
    .option('--max-new-tokens <n>', 'longest judgement', integer, 512)
    .option('--json', 'print rationale and answer as JSON')
    .action(async (options: JudgeCommandOptions, command: Command) => {
      const { judgeCommand } = await import('./model-commands.js');
      await judgeCommand({ ...options, json: isJson(command) });
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
    .argument('[name]', 'run, sft, rejection, grpo or evaluate', 'run')
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
      process.stderr.write('gavel: interrupted; what was checkpointed is kept. Add --resume to continue.\n');
      process.exitCode = exitCodes.interrupted;
    } else {
      report(error, args.includes('--json'));
      process.exitCode = exitCodeOf(error);
    }
  }
}

// A reader that went away (`gavel schema | head`) is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(exitCodes.ok);
});
await main(process.argv.slice(2));
