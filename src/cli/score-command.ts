/** The options of `gavel score`. */
import type { Command } from 'commander';
import type { OptionValues } from './eval-command.js';

/** What commander hands to the command. */
export interface ScoreCommandOptions {
  model: string;
  input?: string;
  imageFolder?: string;
  prompt?: string;
  answer?: string;
  image: string[];
  video: string[];
  batch: number;
  threads?: number;
  dtype?: string;
}

export function registerScore(program: Command, { integer, collect, modelHelp }: OptionValues): void {
  program
    .command('score')
    .description('score candidates or pairs of them by the reward head of a model, without generation')
    .requiredOption('--model <name>', modelHelp)
    .option(
      '--input <file>',
      'rows or preference pairs: JSONL, JSON, Parquet, a folder of Parquet; - is standard input',
    )
    .option(
      '--image-folder <folder>',
      "where relative paths of pictures start; default: the file's folder, of - the working directory",
    )
    .option('--prompt <text>', 'one candidate; pictures and videos stand before it')
    .option('--answer <text>', "the candidate's answer to --prompt: a turn of the assistant behind it")
    .option('--image <file>', 'picture of the candidate, repeatable', collect, [])
    .option('--video <path>', 'video of the candidate, a file or a folder of frames, repeatable', collect, [])
    .option('--batch <n>', 'candidates that are scored at once', integer, 32)
    .option('--threads <n>', 'threads that compute; default: one a core', integer)
    .option('--dtype <type>', 'fp32 or bf16; default: as it is stored')
    .option('--json', 'errors as JSON too; results are JSON lines anyway')
    .action(async (options: ScoreCommandOptions) => {
      const { scoreCommand } = await import('./score.js');
      await scoreCommand(options);
    });
}
