/** `gavel quickstart`: runs the emoji judge, shows its progress, prints its table and what to type next. */
import { quickstartPlan, smokePlan } from '../emoji-judge/quickstart.js';
import { runQuickstart } from '../emoji-judge/quickstart-run.js';
import type { QuickstartCommandOptions } from './command-options.js';
import { exitCodes } from './exit-codes.js';
import { Interrupts } from './interrupt.js';
import { formatSeconds } from './progress.js';
import { stageTable } from './stage-table.js';
import { print, printJson, progressOnTerminal, shellQuote } from './terminal.js';

const resumeLine = ({ out, seed, smoke }: QuickstartCommandOptions): string =>
  `npx gavel quickstart --resume --out ${shellQuote(out)} --seed ${seed}${smoke === true ? ' --smoke' : ''}`;

export async function quickstartCommand(options: QuickstartCommandOptions): Promise<number> {
  const { smoke = false, out, seed, threads, resume = false, json } = options;
  const progress = progressOnTerminal();
  const interrupts = new Interrupts((text) => progress.line(text));
  try {
    const result = await runQuickstart({
      out,
      seed,
      resume,
      plan: smoke ? smokePlan : quickstartPlan,
      ...(threads === undefined ? {} : { threads }),
      signal: interrupts.signal,
      onEvent: (event) => progress.show(event),
      onJob: (job) => interrupts.watch(job),
      onNote: (text) => progress.line(text),
    });
    progress.clear();
    if (result.stopped) {
      progress.line(`Stopped; the checkpoint is ${result.checkpoint ?? 'none'}. To continue: ${resumeLine(options)}`);
      return exitCodes.interrupted;
    }
    const { summary, pagePath, judgeArguments } = result;
    if (json) printJson(summary);
    else {
      print('');
      print(stageTable(summary));
      print('');
      print(
        `Seed ${seed}, ${formatSeconds(summary.wallSeconds)}, peak memory ${Math.round(summary.peakMemoryBytes / 2 ** 20)} MiB.`,
      );
      print(`Summary ${out}/summary.json, curves ${out}/plots/, judged examples ${pagePath}`);
      print('');
      print('Now let it judge two pictures:');
      print(`  npx gavel ${judgeArguments.map(shellQuote).join(' ')}`);
    }
    return exitCodes.ok;
  } catch (error) {
    progress.clear();
    if (interrupts.interrupted)
      progress.line(`Ended without a new checkpoint. To continue at the last one: ${resumeLine(options)}`);
    throw error;
  } finally {
    interrupts.release();
  }
}
