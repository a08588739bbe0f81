/** `gavel eval`: a judge on a file or a published benchmark: accuracy with intervals, form, orders, ties, sub-sets. */
import { JsonlDataset } from '../data/jsonl.js';
import { expected } from '../errors.js';
import type { Benchmark } from '../evaluation/benchmarks/benchmark.js';
import { benchmarkByName, loadBenchmark } from '../evaluation/benchmarks/load.js';
import { headlinesWithIntervals } from '../evaluation/benchmarks/headlines.js';
import type { Judgement } from '../evaluation/judgement.js';
import type { EvaluationResult } from '../evaluation/result.js';
import { evaluationTables, plainTables } from '../evaluation/table.js';
import { evaluate, type EvaluationSet } from '../recipes/evaluate.js';
import { fileEvaluationSet } from '../recipes/file-evaluation-set.js';
import { train } from '../recipes/job.js';
import { defaultJudge } from '../recipes/judge.js';
import { verifierByName } from '../rewards/verifier.js';
import type { EvalCommandOptions } from './eval-command.js';
import { EvalFolder, weightsKey } from './eval-folder.js';
import { evalFrom } from './eval-from.js';
import { Interrupts } from './interrupt.js';
import { fetchModel, openPolicy } from './open-policy.js';
import type { ProgressRenderer } from './progress.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

export async function evalCommand(options: EvalCommandOptions): Promise<void> {
  checkCombination(options);
  const { from, seed, out, json } = options;
  const benchmark = options.benchmark === undefined ? undefined : benchmarkByName(options.benchmark);
  if (from !== undefined) return evalFrom({ from, benchmark, seed, out, json });
  const progress = progressOnTerminal();
  const kept =
    out === undefined
      ? 'nothing was written. Run it again from the start.'
      : `what was drawn is kept in ${out}. Run the same command again to go on.`;
  using interrupts = new Interrupts((text) => progress.line(text), kept);
  const { signal } = interrupts;
  await using set = await openSet(options, benchmark, signal, progress);
  await using folder =
    out === undefined ? undefined : await EvalFolder.open(out, await configOf(options, set, progress));
  const judgements: Judgement[] = [];
  const value = await judgeAll(options, set, folder, signal, progress, ({ text, ...judgement }) => {
    judgements.push(judgement);
    folder?.add(text === undefined ? judgement : { ...judgement, text });
  });
  if (value === undefined) return;
  const headlines = await headlinesWithIntervals(benchmark, judgements);
  const result = benchmark === undefined ? value : { ...value, benchmark: benchmark.name, headlines };
  const tables = evaluationTables(value, headlines);
  await folder?.finish(
    result,
    `Evaluation of ${options.model} on ${benchmark?.title ?? set.name}`,
    tables,
    value.calibration,
  );
  if (json) return printJson(result);
  print(`${value.count} items, ${value.seconds.toFixed(1)} s, ${Math.round(value.tokensPerSecond)} tokens/s\n`);
  print(plainTables(tables));
}

type OpenedSet = EvaluationSet & AsyncDisposable;

async function openSet(
  options: EvalCommandOptions,
  benchmark: Benchmark | undefined,
  signal: AbortSignal,
  progress: ProgressRenderer,
): Promise<OpenedSet> {
  const { input, oneOrder = false, direct = false, directPrompt, groupBy, seed } = options;
  const bothOrders = !oneOrder;
  if (benchmark !== undefined) {
    const loaded = await loadBenchmark(benchmark.name, options.data!, {
      bothOrders,
      direct,
      seed,
      signal,
      ties: options.ties === 'ask' ? 'ask' : 'skip',
      templates: {
        ...(options.prompt !== undefined && { reasoned: options.prompt }),
        ...(directPrompt !== undefined && { direct: directPrompt }),
      },
    });
    if (loaded.numTiesSkipped > 0) {
      progress.line(`${loaded.numTiesSkipped} pairs whose gold is a tie are left out; --ties ask keeps them.`);
    }
    return { ...loaded, [Symbol.asyncDispose]: async () => {} };
  }
  const data = await JsonlDataset.open(input!, {
    canSkip: false,
    signal,
    ...(options.imageFolder !== undefined && { imageFolder: options.imageFolder }),
  });
  const set = fileEvaluationSet(data, { bothOrders, groupBy, ...(direct && { direct: { prompt: directPrompt } }) });
  return { ...set, [Symbol.asyncDispose]: () => data.dispose() };
}

/** Undefined when it was stopped. */
async function judgeAll(
  options: EvalCommandOptions,
  set: EvaluationSet,
  folder: EvalFolder | undefined,
  signal: AbortSignal,
  progress: ProgressRenderer,
  onJudgement: (judgement: Judgement) => void,
): Promise<EvaluationResult | undefined> {
  const { samples, stop: stopStrings, maxNewTokens, temperature, seed, verifier, threads } = options;
  await using opened = await openPolicy(options.model!, {
    signal,
    progress,
    ...(threads !== undefined && { engine: { threads } }),
  });
  const recipe = evaluate({
    set,
    judge: { ...defaultJudge, verifier: verifierByName(verifier) },
    options: { samples, stopStrings, maxNewTokens, temperature, seed },
    onJudgement,
    ...(folder !== undefined && { kept: { pool: folder.pool, weights: 'model' } }),
  });
  const job = train(opened.policy, recipe, { signal, stage: 'eval' });
  for await (const event of job) if (event.type === 'sampling-progress') progress.show(event);
  progress.clear();
  const result = await job.result;
  return result.stopped ? undefined : result.value;
}

/** What the numbers of a folder depend on. */
async function configOf(
  options: EvalCommandOptions,
  set: EvaluationSet,
  progress: ProgressRenderer,
): Promise<Record<string, unknown>> {
  const { model, json: _json, out: _out, input: _input, data: _data, threads: _threads, stop, ...asked } = options;
  const weights = await weightsKey(await fetchModel(model!, { progress }));
  const stopped = stop.length > 0 && { stop };
  return { model, weights, set: set.name, ...asked, ...stopped, content: set.fingerprint };
}

/** One source of prompts with a model, or judgements. */
function checkCombination(options: EvalCommandOptions): void {
  const { model, input, benchmark, data, from, direct, prompt, directPrompt, ties, groupBy, imageFolder, threads } =
    options;
  const refuse = (name: string, what: string, received: unknown, advice: string): never => {
    throw expected('invalid_argument', name, what, received, advice);
  };
  if (from !== undefined) {
    const beside = {
      '--model': model,
      '--input': input,
      '--data': data,
      '--threads': threads,
      '--stop': options.stop[0],
    };
    for (const [name, value] of Object.entries({ ...beside, '--image-folder': imageFolder })) {
      if (value !== undefined)
        refuse(name, 'nothing beside --from', value, 'Judgements need neither model nor prompts.');
    }
    return;
  }
  if (model === undefined) refuse('--model', 'a model', 'none', 'Give one, or --from with judgements.');
  if ((input === undefined) === (benchmark === undefined))
    refuse('--input', 'either --input or --benchmark', input === undefined ? 'neither' : 'both', 'Give one of them.');
  if ((benchmark === undefined) !== (data === undefined))
    refuse(
      '--data',
      '--benchmark with --data',
      benchmark === undefined ? '--data alone' : '--benchmark alone',
      'Give both.',
    );
  if (input === undefined && imageFolder !== undefined)
    refuse('--image-folder', 'it with --input only', imageFolder, 'A benchmark says where its pictures lie.');
  if (threads === 0) refuse('--threads', 'an integer >= 1', threads, '');
  if (benchmark === undefined && prompt !== undefined)
    refuse('--prompt', 'it with --benchmark only', prompt, 'Rows of --input have prompts of their own.');
  if (benchmark === undefined && ties !== undefined)
    refuse('--ties', 'it with --benchmark only', ties, 'Rows of --input say their ties themselves.');
  if (benchmark !== undefined && groupBy.length > 0)
    refuse('--group-by', 'it with --input only', groupBy.join(), 'A benchmark has divisions of its own.');
  if (ties !== undefined && ties !== 'skip' && ties !== 'ask') refuse('--ties', 'skip or ask', ties, '');
  if (directPrompt !== undefined && direct !== true)
    refuse('--direct-prompt', 'it with --direct', directPrompt, 'Add --direct.');
}
