/** The options of `gavel eval`. */
import type { Command } from 'commander';

/** What commander hands to the command. */
export interface EvalCommandOptions {
  model?: string;
  input?: string;
  benchmark?: string;
  imageFolder?: string;
  data?: string;
  from?: string;
  oneOrder?: boolean;
  direct?: boolean;
  prompt?: string;
  directPrompt?: string;
  groupBy: string[];
  ties?: string;
  samples: number;
  stop: string[];
  maxNewTokens: number;
  temperature: number;
  seed: number;
  threads?: number;
  verifier: string;
  out?: string;
  json: boolean;
}

/** Parsers and texts that options of several commands share. */
export interface OptionValues {
  integer: (text: string) => number;
  number: (text: string) => number;
  collect: (value: string, before: string[]) => string[];
  modelHelp: string;
}

export function registerEval(program: Command, { integer, number, collect, modelHelp }: OptionValues): void {
  program
    .command('eval')
    .description('evaluate a judge on a file or a published benchmark, or judgements that are already there')
    .option('--model <name>', modelHelp)
    .option('--input <file>', 'JSONL with prompts, images and solutions')
    .option('--image-folder <folder>', "where relative paths of pictures start; of --input; default: the file's folder")
    .option('--benchmark <name>', 'a published benchmark, instead of --input')
    .option('--data <path>', 'the file or folder of the benchmark')
    .option('--from <file>', 'compute from judgements.jsonl or scored pairs, without a model')
    .option('--one-order', 'do not ask with the candidates exchanged')
    .option('--direct', 'ask without chain of thought too')
    .option('--prompt <text>', 'what a benchmark pair is asked: a text with {context}, {first}, {second}')
    .option('--direct-prompt <text>', 'the same without chain of thought; for --input a text with {prompt}')
    .option('--group-by <key>', 'accuracy by this key of meta, repeatable', collect, [])
    .option('--ties <how>', 'pairs of a benchmark whose gold is a tie: skip (default) or ask')
    .option('--samples <n>', 'completions of each prompt; more than 1 needs a temperature', integer, 1)
    .option('--stop <text>', 'ends a completion that contains it, repeatable; it stays in the text', collect, [])
    .option('--max-new-tokens <n>', 'longest completion', integer, 512)
    .option('--temperature <t>', '0 is greedy', number, 0)
    .option('--seed <n>', 'key of the sampling', integer, 0)
    .option('--threads <n>', 'threads that compute; default: one a core', integer)
    .option('--verifier <name>', 'strict or lenient', 'strict')
    .option('--out <folder>', 'write result, judgements, table and plot; run again to go on')
    .option('--json', 'print the result as JSON')
    .action(async (options: EvalCommandOptions, command: Command) => {
      const { evalCommand } = await import('./eval.js');
      const json = command.optsWithGlobals<{ json?: boolean }>().json === true;
      await evalCommand({ ...options, json });
    });
}
