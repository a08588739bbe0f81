/** `gavel logprobs`: log-probs of given completions, one JSON line a row: what anyone needs to compare with another engine. */
import { GavelError } from '../errors.js';
import { supervisedGroup } from '../recipes/policy.js';
import type { LogprobsCommandOptions } from './command-options.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { fileChunks } from './row-files.js';
import { printLine, progressOnTerminal } from './terminal.js';

const chunkRows = 16;

export async function logprobsCommand(options: LogprobsCommandOptions): Promise<void> {
  const { model, input, temperature, entropy = false } = options;
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'the lines printed so far are whole.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, { signal, progress });
  for await (const { rows, done, total } of fileChunks(input, chunkRows)) {
    signal.throwIfAborted();
    const without = rows.find(({ completion }) => completion === undefined);
    if (without !== undefined) {
      throw new GavelError(
        'bad_data',
        `Expected a \`completion\` in row "${without.id}" of ${input} but received none. Add the text to score.`,
        { fields: { id: without.id, file: input } },
      );
    }
    const encoded = await opened.policy.encode(rows, signal);
    const groups = encoded.map(supervisedGroup).map((group) => ({
      ...group,
      completions: group.completions.map((completion) => ({ ...completion, temperature })),
    }));
    const found = await opened.model.logprobs(groups, { entropy, signal });
    progress.clear();
    let at = 0;
    for (const [i, { promptTokens, completionTokens }] of encoded.entries()) {
      const tokens = [...completionTokens!];
      const logprobs = [...found.logprobs.subarray(at, at + tokens.length)];
      const entropies = entropy ? { entropies: [...found.entropies.subarray(at, at + tokens.length)] } : {};
      at += tokens.length;
      const sum = logprobs.reduce((total, value) => total + value, 0);
      const { id } = rows[i]!;
      await printLine(JSON.stringify({ id, promptTokens: [...promptTokens], tokens, logprobs, sum, ...entropies }));
    }
    progress.passing(`[logprobs] ${done + rows.length}/${total} rows`);
  }
  progress.clear();
}
