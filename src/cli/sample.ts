/** `gavel sample`: completions of every prompt of a file as JSON lines, or of one prompt as text. */
import type { Row } from '../data/rows.js';
import { expected } from '../errors.js';
import type { DrawnCompletion } from '../recipes/policy.js';
import type { SampleCommandOptions } from './command-options.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { fileChunks, promptRow, type RowChunk } from './row-files.js';
import { printLine, progressOnTerminal } from './terminal.js';

/** Completions that are drawn before any is printed; about what the engine decodes at once. */
const chunkCompletions = 256;

async function* oneChunk(row: Row): AsyncGenerator<RowChunk, void, undefined> {
  yield { rows: [row], done: 0, total: 1 };
}

export async function sampleCommand(options: SampleCommandOptions): Promise<void> {
  const {
    model,
    input,
    prompt,
    image,
    video,
    group,
    maxNewTokens,
    temperature,
    topP,
    topK,
    minP,
    stop,
    seed,
    threads,
    json,
  } = options;
  if ((input === undefined) === (prompt === undefined)) {
    const received = input === undefined ? 'neither' : 'both';
    throw expected('invalid_argument', '--input', 'either --input or --prompt', received);
  }
  const [alone] = [...image, ...video];
  if (input !== undefined && alone !== undefined) {
    throw expected('invalid_argument', '--image', 'no picture or video with --input', alone, 'Name them in the rows.');
  }
  if (threads === 0) throw expected('invalid_argument', '--threads', 'an integer >= 1', threads);
  if (group < 1) throw expected('invalid_argument', '--group', 'an integer >= 1', group);
  if (group > 1 && temperature === 0) {
    throw expected('invalid_argument', '--group', '1 with --temperature 0', group, 'Greedy completions are all equal.');
  }
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'the lines printed so far are whole.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, {
    signal,
    progress,
    ...(threads !== undefined && { engine: { threads } }),
  });
  const draw = { count: group, seed, temperature, topP, topK, minP, stopStrings: stop, maxNewTokens, signal };
  const chunkRows = Math.max(1, Math.min(64, Math.ceil(chunkCompletions / group)));
  const chunks = input === undefined ? oneChunk(promptRow(prompt!, image, video)) : fileChunks(input, chunkRows);
  for await (const { rows, done, total } of chunks) {
    signal.throwIfAborted();
    const drawn: DrawnCompletion[] = [];
    await opened.policy.draw(await opened.policy.encode(rows, signal), draw, (completion) => drawn.push(completion));
    drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
    progress.clear();
    for (const { item, sample: index, text, tokens, logprobs, finishReason } of drawn) {
      const { id } = rows[item]!;
      if (input === undefined && !json) await printLine(group === 1 ? text : `#${index}: ${text}`);
      else
        await printLine(
          JSON.stringify({ id, index, text, tokens: [...tokens], logprobs: [...logprobs], finishReason }),
        );
    }
    if (total > 1) progress.passing(`[sample] ${done + rows.length}/${total} prompts`);
  }
  progress.clear();
}
