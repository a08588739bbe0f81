/** `gavel judge`: a trained judge reasons about pictures or videos, greedily. */
import { parseCompletion } from '../rewards/format.js';
import type { DrawnCompletion } from '../recipes/policy.js';
import type { Row } from '../data/rows.js';
import { expected } from '../errors.js';
import type { JudgeCommandOptions } from './command-options.js';
import { Interrupts } from './interrupt.js';
import { judgeTaskRow, readJudged } from './judge-task.js';
import { openPolicy } from './open-policy.js';
import { promptRow } from './row-files.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

export async function judgeCommand(options: JudgeCommandOptions): Promise<void> {
  const { model, task, maxNewTokens, json } = options;
  const row = rowOf(options);
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'nothing was judged.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, { signal, progress });
  const rows = await opened.policy.encode([row], signal);
  let drawn: DrawnCompletion | undefined;
  await opened.policy.draw(
    rows,
    { count: 1, seed: 0, temperature: 0, maxNewTokens, signal },
    (found) => (drawn = found),
  );
  const { text, finishReason } = drawn!;
  const { rationale, answer } = parseCompletion(text);
  const judged = task === undefined ? {} : readJudged(task, text, answer);
  if (json) return printJson({ rationale: rationale?.trim() ?? null, answer, ...judged, text, finishReason });
  print(rationale === null ? text : rationale.trim());
  print(answer === null ? '(no answer)' : `=> ${answer}`);
}

/** The prompt as it is, or the task in set words. */
function rowOf({ task, prompt, image, video, answer, direct }: JudgeCommandOptions): Row {
  if (task !== undefined) return judgeTaskRow({ task, prompt, image, video, answer, direct: direct === true });
  const given = answer.length > 0 ? '--answer' : direct === true ? '--direct' : undefined;
  if (given === undefined) return promptRow(prompt, image, video);
  throw expected('invalid_argument', given, '--task beside it', 'no task', 'Without a task the prompt says it all.');
}
