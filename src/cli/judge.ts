/** `gavel judge`: a trained judge reasons about pictures or videos, greedily. */
import { parseCompletion } from '../rewards/format.js';
import type { DrawnCompletion } from '../recipes/policy.js';
import type { JudgeCommandOptions } from './command-options.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { promptRow } from './row-files.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

export async function judgeCommand(options: JudgeCommandOptions): Promise<void> {
  const { model, prompt, image, video, maxNewTokens, json } = options;
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'nothing was judged.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, { signal, progress });
  const rows = await opened.policy.encode([promptRow(prompt, image, video)], signal);
  let drawn: DrawnCompletion | undefined;
  await opened.policy.draw(
    rows,
    { count: 1, seed: 0, temperature: 0, maxNewTokens, signal },
    (found) => (drawn = found),
  );
  const { text, finishReason } = drawn!;
  const { rationale, answer } = parseCompletion(text);
  if (json) return printJson({ rationale: rationale?.trim() ?? null, answer, text, finishReason });
  print(rationale === null ? text : rationale.trim());
  print(answer === null ? '(no answer)' : `=> ${answer}`);
}
