/** `gavel eval`: accuracy of a model on a file, with its interval, format, and both orders. */
import { JsonlDataset } from '../data/jsonl.js';
import { evaluate } from '../recipes/evaluate.js';
import { fileEvaluationSet } from '../recipes/file-evaluation-set.js';
import { train } from '../recipes/job.js';
import { defaultJudge } from '../recipes/judge.js';
import { verifierByName } from '../rewards/verifier.js';
import type { EvalCommandOptions } from './command-options.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

export async function evalCommand(options: EvalCommandOptions): Promise<void> {
  const { model, input, oneOrder = false, maxNewTokens, temperature, seed, verifier, json } = options;
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'nothing was written. Run it again from the start.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, { signal, progress });
  await using data = await JsonlDataset.open(input, { canSkip: false });
  const job = train(
    opened.policy,
    evaluate({
      set: fileEvaluationSet(data, { bothOrders: !oneOrder }),
      judge: { ...defaultJudge, verifier: verifierByName(verifier) },
      options: { maxNewTokens, temperature, seed },
    }),
    { signal, stage: 'eval' },
  );
  for await (const event of job) if (event.type === 'sampling-progress') progress.show(event);
  progress.clear();
  const result = await job.result;
  if (result.stopped) return;
  const { value } = result;
  if (json) return printJson(value);
  const rate = (name: string, share: number | null): void => {
    if (share !== null) print(`${name.padEnd(18)} ${share.toFixed(4)}`);
  };
  print(`${value.count} items, ${value.seconds.toFixed(1)} s, ${Math.round(value.tokensPerSecond)} tokens/s`);
  rate('accuracy', value.accuracy);
  rate('  95 % low', value.accuracyLow);
  rate('  95 % high', value.accuracyHigh);
  rate('format rate', value.formatRate);
  rate('unparsed rate', value.unparsedRate);
  rate('truncated rate', value.truncatedRate);
  rate('order consistency', value.orderConsistency);
}
