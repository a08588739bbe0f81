/** Commands that use a trained model: `judge`, `sample`, `logprobs`, `eval`. */
import type { Dataset } from '../data/dataset.js';
import { JsonlDataset } from '../data/jsonl.js';
import { imageMark, type Row } from '../data/rows.js';
import { expected } from '../errors.js';
import { parseCompletion } from '../rewards/format.js';
import { verifierByName } from '../rewards/verifier.js';
import { evaluate } from '../recipes/evaluate.js';
import { fileEvaluationSet } from '../recipes/file-evaluation-set.js';
import { train } from '../recipes/job.js';
import { defaultJudge } from '../recipes/judge.js';
import { supervisedGroup, type DrawnCompletion } from '../recipes/policy.js';
import type {
  EvalCommandOptions,
  JudgeCommandOptions,
  LogprobsCommandOptions,
  SampleCommandOptions,
} from './command-options.js';
import { Interrupts } from './interrupt.js';
import { openPolicy } from './open-policy.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

const chunkRows = 64;

/** One prompt with its pictures; they stand before it unless it marks their places. */
function promptRow(prompt: string, images: readonly string[]): Row {
  const marked = prompt.includes(imageMark)
    ? prompt
    : `${imageMark.repeat(images.length)}${images.length > 0 ? ' ' : ''}${prompt}`;
  return { id: 'prompt', prompt: marked, images: images.map((path) => ({ path })) };
}

export async function judgeCommand(options: JudgeCommandOptions): Promise<void> {
  const { model: folder, prompt, image, maxNewTokens, json } = options;
  await using opened = await openPolicy(folder);
  const { signal } = new AbortController();
  const rows = await opened.policy.encode([promptRow(prompt, image)], signal);
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

export async function sampleCommand(options: SampleCommandOptions): Promise<void> {
  const { model: folder, data, prompt, image, count, maxNewTokens, temperature, topP, topK, seed, json } = options;
  if ((data === undefined) === (prompt === undefined)) {
    throw expected('invalid_argument', '--data', 'either --data or --prompt', data === undefined ? 'neither' : 'both');
  }
  await using opened = await openPolicy(folder);
  const { signal } = new AbortController();
  const draw = { count, seed, temperature, topP, topK, maxNewTokens, signal };
  for await (const rows of data === undefined ? [[promptRow(prompt!, image)]] : fileChunks(data)) {
    const drawn: DrawnCompletion[] = [];
    await opened.policy.draw(await opened.policy.encode(rows, signal), draw, (completion) => drawn.push(completion));
    drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
    for (const { item, sample, text, tokens, logprobs, finishReason } of drawn) {
      const id = rows[item]!.id;
      if (!json) print(`${id} #${sample}: ${text}`);
      else print(JSON.stringify({ id, sample, text, finishReason, tokens: [...tokens], logprobs: [...logprobs] }));
    }
  }
}

export async function logprobsCommand(options: LogprobsCommandOptions): Promise<void> {
  const { model: folder, data, temperature, entropy = false, json } = options;
  await using opened = await openPolicy(folder);
  const { signal } = new AbortController();
  for await (const rows of fileChunks(data)) {
    const without = rows.find(({ completion }) => completion === undefined);
    if (without !== undefined) throw expected('bad_data', 'completion', `a completion in row "${without.id}"`, 'none');
    const encoded = await opened.policy.encode(rows, signal);
    const groups = encoded.map(supervisedGroup).map((group) => ({
      ...group,
      completions: group.completions.map((completion) => ({ ...completion, temperature })),
    }));
    const found = await opened.model.logprobs(groups, { entropy });
    let at = 0;
    for (const [i, row] of encoded.entries()) {
      const { length } = row.completionTokens!;
      const logprobs = found.logprobs.subarray(at, at + length);
      const sum = logprobs.reduce((total, value) => total + value, 0);
      const entropies = entropy ? { entropies: [...found.entropies.subarray(at, at + length)] } : {};
      at += length;
      if (json)
        print(
          JSON.stringify({
            id: rows[i]!.id,
            sum,
            tokens: [...row.completionTokens!],
            logprobs: [...logprobs],
            ...entropies,
          }),
        );
      else print(`${rows[i]!.id}: ${sum.toFixed(6)} over ${length} tokens, mean ${(sum / length).toFixed(6)}`);
    }
  }
}

export async function evalCommand(options: EvalCommandOptions): Promise<void> {
  const { model: folder, data: path, oneOrder = false, maxNewTokens, temperature, seed, verifier, json } = options;
  const progress = progressOnTerminal();
  await using opened = await openPolicy(folder);
  await using data = await JsonlDataset.open(path);
  const interrupts = new Interrupts((text) => progress.line(text));
  try {
    const job = train(
      opened.policy,
      evaluate({
        set: fileEvaluationSet(data, { bothOrders: !oneOrder }),
        judge: { ...defaultJudge, verifier: verifierByName(verifier) },
        options: { maxNewTokens, temperature, seed },
      }),
      { signal: interrupts.signal, stage: 'eval' },
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
  } finally {
    interrupts.release();
  }
}

/** The rows of a file in order, some at a time. */
async function* fileChunks(path: string): AsyncGenerator<Row[], void, undefined> {
  await using data = await JsonlDataset.open(path);
  yield* chunks(data);
}

async function* chunks(data: Dataset): AsyncGenerator<Row[], void, undefined> {
  for (let start = 0; start < data.size; start += chunkRows) {
    const rows: Row[] = [];
    for (let i = start; i < Math.min(data.size, start + chunkRows); i++) rows.push(await data.row(i));
    yield rows;
  }
}
