/** `gavel score`: what a reward head says of candidates or pairs of them, one JSON line each; nothing is generated. */
import type { EncodedRow } from '../data/processor.js';
import { GavelError, expected } from '../errors.js';
import { oneAhead } from '../recipes/one-ahead.js';
import { encodeScored, rewardHeadOf, scoreEncoded } from '../recipes/score-rows.js';
import { Interrupts } from './interrupt.js';
import { openPolicy, type OpenedPolicy } from './open-policy.js';
import type { ProgressRenderer } from './progress.js';
import type { ScoreCommandOptions } from './score-command.js';
import { fileBatches, oneCandidate, streamBatches, type ScoreBatch } from './score-input.js';
import { pairLine, rowLine, type PairLine } from './score-lines.js';
import { printLine, progressOnTerminal } from './terminal.js';

export async function scoreCommand(options: ScoreCommandOptions): Promise<void> {
  const { model, threads, dtype } = options;
  checkOptions(options);
  const progress = progressOnTerminal();
  using interrupts = new Interrupts((text) => progress.line(text), 'the lines printed so far are whole.');
  const { signal } = interrupts;
  await using opened = await openPolicy(model, {
    signal,
    progress,
    ...(threads !== undefined && { engine: { threads } }),
    ...(dtype !== undefined && { dtype: dtype as 'fp32' | 'bf16' }),
  });
  rewardHeadOf(opened.model);
  const failed = new AbortController();
  const ended = AbortSignal.any([signal, failed.signal]);
  const summary = new Summary();
  for await (const { ready, failure } of encodedAhead(opened, batchesOf(options, ended), ended)) {
    try {
      for (const { batch, rows } of ready) {
        await scoreBatch(opened, batch, rows, ended, progress, summary);
        if (options.input !== undefined) progress.passing(`[score] ${summary.progress(batch.total)}`);
      }
      if (failure !== undefined) throw failure;
    } catch (cause) {
      // The next batch is being read: standard input may stay open for ever.
      failed.abort(cause);
      throw cause;
    }
  }
  progress.clear();
  if (options.input !== undefined) progress.line(`[score] ${summary.text()}`);
}

function batchesOf(
  { input, imageFolder, prompt, answer, image, video, batch }: ScoreCommandOptions,
  signal: AbortSignal,
): AsyncGenerator<ScoreBatch, void, undefined> {
  if (input === undefined) return oneCandidate({ prompt: prompt!, answer, image, video });
  return input === '-'
    ? streamBatches(process.stdin, batch, signal, imageFolder)
    : fileBatches(input, batch, signal, imageFolder);
}

interface EncodedBatch {
  batch: ScoreBatch;
  rows: EncodedRow[];
}

/** What is scored, and then what ends the command. */
interface Encoded {
  ready: EncodedBatch[];
  failure?: GavelError;
}

/** Each batch as the model's input, made while the one before is scored. Of one with a bad row, those before it. */
function encodedAhead(
  { policy }: OpenedPolicy,
  batches: AsyncGenerator<ScoreBatch, void, undefined>,
  signal: AbortSignal,
): AsyncGenerator<Encoded, void, undefined> {
  const encoded = async (batch: ScoreBatch): Promise<EncodedBatch> => {
    const rows = 'rows' in batch ? batch.rows : batch.pairs.flatMap(({ first, second }) => [first, second]);
    return { batch, rows: await encodeScored(policy, rows, signal) };
  };
  return oneAhead(batches, async (batch) => {
    const ready: EncodedBatch[] = [];
    try {
      return { ready: [await encoded(batch)] };
    } catch (cause) {
      if (!GavelError.is(cause) || signal.aborted) throw cause;
      // Which row it was is found one by one: the lines before it are owed their answers.
      for (const single of singles(batch)) {
        try {
          ready.push(await encoded(single));
        } catch (failure) {
          if (!GavelError.is(failure)) throw failure;
          return { ready, failure };
        }
      }
      throw cause;
    }
  });
}

function singles(batch: ScoreBatch): ScoreBatch[] {
  const total = batch.total === undefined ? {} : { total: batch.total };
  return 'rows' in batch
    ? batch.rows.map((row) => ({ rows: [row], ...total }))
    : batch.pairs.map((pair) => ({ pairs: [pair], ...total }));
}

/** Prints a line an item. */
async function scoreBatch(
  { model, policy }: OpenedPolicy,
  batch: ScoreBatch,
  rows: readonly EncodedRow[],
  signal: AbortSignal,
  progress: ProgressRenderer,
  summary: Summary,
): Promise<void> {
  const { names } = rewardHeadOf(model);
  const scores = await scoreEncoded(policy, rows, { signal });
  progress.clear();
  if ('rows' in batch) {
    for (const [i, { id }] of batch.rows.entries()) await printLine(JSON.stringify(rowLine(id, scores[i]!, names)));
    summary.addRows(batch.rows.length);
  } else {
    for (const [i, pair] of batch.pairs.entries()) {
      const line = pairLine(pair, { first: scores[2 * i]!, second: scores[2 * i + 1]! }, names);
      await printLine(JSON.stringify(line));
      summary.addPair(line);
    }
  }
}

/** Counts of what was printed. */
class Summary {
  readonly #startedMs = performance.now();
  #numRows = 0;
  #numPairs = 0;
  #numStrict = 0;
  #numRight = 0;
  #numEqual = 0;

  addRows(count: number): void {
    this.#numRows += count;
  }

  addPair({ preference, preferred }: PairLine): void {
    this.#numPairs++;
    this.#numRows += 2;
    if (preferred === 'tie') this.#numEqual++;
    if (preference === 'tie') return;
    this.#numStrict++;
    if (preferred === preference) this.#numRight++;
  }

  progress(total: number | undefined): string {
    const [done, what] = this.#numPairs > 0 ? [this.#numPairs, 'pairs'] : [this.#numRows, 'rows'];
    return `${done}${total === undefined ? '' : `/${total}`} ${what}`;
  }

  /** A pair of equal scores is wrong where the data prefer one, as in `accuracyWithoutTies`. */
  text(): string {
    const seconds = Math.max((performance.now() - this.#startedMs) / 1000, 1e-3);
    const perSecond = this.#numRows / seconds;
    const rate = `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} rows/s`;
    if (this.#numPairs === 0) return `${this.#numRows} rows, ${rate}`;
    const accuracy =
      this.#numStrict === 0 ? '' : `accuracy ${((100 * this.#numRight) / this.#numStrict).toFixed(1)} % `;
    const equal = this.#numEqual === 0 ? '' : `, ${this.#numEqual} of equal scores`;
    return `${this.#numPairs} pairs, ${accuracy}of ${this.#numStrict} with a preference${equal}, ${rate}`;
  }
}

/** One source of candidates. */
function checkOptions(options: ScoreCommandOptions): void {
  const { input, imageFolder, prompt, answer, image, video, batch, threads, dtype } = options;
  if ((input === undefined) === (prompt === undefined)) {
    throw expected(
      'invalid_argument',
      '--input',
      'either --input or --prompt',
      input === undefined ? 'neither' : 'both',
      'Give one of them.',
    );
  }
  const [alone] = [...image, ...video];
  if (input !== undefined && alone !== undefined)
    throw expected('invalid_argument', '--image', 'no picture or video with --input', alone, 'Name them in the rows.');
  if (input !== undefined && answer !== undefined)
    throw expected('invalid_argument', '--answer', 'no answer with --input', answer, 'Put it into the rows.');
  if (input === undefined && imageFolder !== undefined)
    throw expected('invalid_argument', '--image-folder', 'it with --input only', imageFolder, 'Name the files whole.');
  if (batch < 1) throw expected('invalid_argument', '--batch', 'an integer >= 1', batch);
  if (threads === 0) throw expected('invalid_argument', '--threads', 'an integer >= 1', threads);
  if (dtype !== undefined && dtype !== 'fp32' && dtype !== 'bf16')
    throw expected('invalid_argument', '--dtype', 'fp32 or bf16', dtype);
}
