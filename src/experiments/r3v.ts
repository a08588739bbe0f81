/**
 * R3V on composed pictures: questions with known answers and no rationales, but for a few. Does self-training on refining and
 * selecting beat self-training on right solutions alone (STaR), and does asking the model to select beat voting? Every
 * variant begins with the same base, which names what two artists' pictures show and answers questions about words. The
 * questions are about a third artist's pictures too; the test shows a fourth, whom no training has seen.
 */
import { join } from 'node:path';
import { pairsFromRows } from '../data/pairs.js';
import type { Row } from '../data/rows.js';
import { loadEmojiBank, type EmojiBank } from '../emoji-judge/bank.js';
import { questionPerception, questionWords } from '../emoji-judge/questions.js';
import { RowSource } from '../emoji-judge/row-source.js';
import type { CellWords } from '../emoji-judge/scene.js';
import { createEngine, type Engine } from '../engine/engine.js';
import { pairedBootstrap, type BootstrapResult } from '../evaluation/bootstrap.js';
import { dpo, type DpoOptions } from '../recipes/dpo.js';
import { evaluate, type EvaluationResult, type Evaluator } from '../recipes/evaluate.js';
import { Policy } from '../recipes/policy.js';
import { r3v, type R3vResult } from '../recipes/r3v.js';
import type { R3vOptions } from '../recipes/r3v-options.js';
import { dpoPairs } from '../recipes/r3v-pairs.js';
import type { R3vPrompts } from '../recipes/r3v-prompts.js';
import { selectEvaluation, type SelectEvaluationResult } from '../recipes/select-evaluation.js';
import { SamplePool } from '../runs/sample-pool.js';
import { emojiBase, runRecipe } from './emoji-base.js';
import { kept, type Experiment, type SeedContext } from './experiment.js';
import { fixed } from './markdown.js';
import { r3vReport } from './r3v-report.js';

interface R3vPlan {
  baseSteps: number;
  questions: number;
  warmUp: number;
  test: { unseen: number; seen: number };
  options: R3vOptions;
  dpo: DpoOptions;
}

const optimizer = { beta2: 0.98, weightDecay: 0.01 };
const training = {
  epochs: 3,
  batchSize: 32,
  learningRate: 7e-4,
  schedule: { kind: 'cosine', warmupSteps: 10, minRatio: 0.1 },
  optimizer,
  checkpointEvery: 10_000,
} as const;

const plan: R3vPlan = {
  baseSteps: 300,
  questions: 1200,
  warmUp: 120,
  test: { unseen: 1000, seen: 500 },
  options: {
    iterations: 2,
    maxNewTokens: 24,
    // Most direct answers are out of reach of so small a model, and learned by heart.
    weights: { direct: 0.1 },
    warmUp: { ...training, epochs: 8 },
    sft: training,
    keep: 'last',
  },
  dpo: { learningRate: 5e-5, batchSize: 32, epochs: 1, optimizer },
};

const smokePlan: R3vPlan = {
  ...plan,
  baseSteps: 10,
  questions: 48,
  warmUp: 16,
  test: { unseen: 16, seen: 16 },
};

/**
 * What is compared; each is R3V with something left out, but DPO, which goes on from STaR. R3V's mixture has about 2.5 rows for
 * each of STaR's, so STaR is also trained on that many.
 */
const variants = {
  distilled: { iterations: 0 },
  STaR: { refine: false, select: false },
  'STaR, as many rows': { refine: false, select: false, weights: { selfCot: 2.5 } },
  'STaR + DPO': undefined,
  R3V: {},
  'without refine': { refine: false },
  'without select': { select: false },
  'without iteration': { iterate: false },
} as const satisfies Record<string, R3vOptions | undefined>;
export type Variant = keyof typeof variants;

interface VariantResult {
  seconds: number;
  test: EvaluationResult;
  iterations: { accuracy: number | null; items: unknown; passAt1: number | null }[];
  pairs?: number;
}

export interface R3vExperimentResult {
  plan: R3vPlan;
  base: EvaluationResult;
  variants: Record<Variant, VariantResult>;
  select: SelectEvaluationResult;
  comparisons: Record<string, BootstrapResult>;
}

/** With questions enough to learn the seen artists by heart, and with half of them. */
export const r3vExperiments = [experimentOf('r3v', plan), experimentOf('r3v-few', { ...plan, questions: 600 })];

function experimentOf(name: string, whole: R3vPlan): Experiment<R3vExperimentResult> {
  return {
    name,
    runSeed: (context) => runSeed(context, context.smoke ? smokePlan : whole),
    report: (results) => Promise.resolve(r3vReport(name, results)),
  };
}

/** The task's own words: the prompt of a row asks for reasons. */
const prompts: R3vPrompts = {
  direct: (question) => ({
    ...question,
    prompt: (question.prompt as string).replace(` ${questionWords[0]} `, ' answer '),
  }),
  rationale: (question) => question,
  refine: (question, solution) => ({ ...question, prompt: `${question.prompt as string} refine ${solution}` }),
  select: (question, candidates) => ({
    ...question,
    prompt: `${question.prompt as string} select ${candidates.join(' ')}`,
  }),
  answer: (answer) => `<answer> ${answer}</answer>`,
};

async function runSeed(context: SeedContext, own: R3vPlan): Promise<R3vExperimentResult> {
  const { out, seed, signal, threads, say } = context;
  const bank = await loadEmojiBank();
  await using engine = await createEngine({ device: 'cpu', ...(threads === undefined ? {} : { threads }) });
  const base = await emojiBase(engine, bank, context, own.baseSteps, (index) => ({
    split: 'base',
    index,
    artists: artistsWithRationales(bank),
    forms: [index % 2 === 0 ? 'look' : 'question-told'],
  }));
  await using source = new RowSource(bank, seed);
  const test = testOf(source, own);
  const zeroShot = await kept(join(out, 'base.json'), () =>
    withPolicy(engine, base, (policy) => runRecipe(policy, evaluate(test), signal)),
  );
  const results: Partial<Record<Variant, VariantResult>> = {};
  for (const variant of Object.keys(variants) as Variant[]) {
    const folder = variant.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
    results[variant] = await kept(join(out, `${folder}.json`), () =>
      variant === 'STaR + DPO'
        ? runDpo(engine, source, own, out, test, signal)
        : runVariant(engine, source, base, own, variants[variant], join(out, folder), test, signal),
    );
    const { accuracy, unseenAccuracy, directAccuracy } = results[variant].test;
    say(`${variant}: unseen ${fixed(unseenAccuracy)}, seen ${fixed(accuracy)}, direct ${fixed(directAccuracy)}`);
  }
  const select = await kept(join(out, 'select.json'), () =>
    withPolicy(engine, join(out, 'r3v', 'final'), (policy) =>
      runRecipe(
        policy,
        selectEvaluation({
          data: questionsOf(source, 'r3v-test-unseen', own.test.unseen, bank.unseenArtists),
          prompts,
          options: { seed, candidates: 3, maxNewTokens: own.options.maxNewTokens! },
        }),
        signal,
      ),
    ),
  );
  const marks = (variant: Variant): number[] => Object.values(results[variant]!.test.marks).slice(own.test.seen);
  const against = (from: Variant, to: Variant): Promise<BootstrapResult> => pairedBootstrap(marks(from), marks(to));
  const system = (name: string): number[] => Object.values(select.marks[name]!);
  const most = select.atSize.at(-1)!.size;
  return {
    plan: own,
    base: zeroShot,
    variants: results as Record<Variant, VariantResult>,
    select,
    comparisons: {
      'STaR over distilled': await against('distilled', 'STaR'),
      'STaR + DPO over STaR': await against('STaR', 'STaR + DPO'),
      'R3V over STaR': await against('STaR', 'R3V'),
      'R3V over STaR, as many rows': await against('STaR, as many rows', 'R3V'),
      'R3V over without refine': await against('without refine', 'R3V'),
      'R3V over without select': await against('without select', 'R3V'),
      'R3V over without iteration': await against('without iteration', 'R3V'),
      [`majority over pass@1, N = ${most}`]: await pairedBootstrap(
        system(`passAt1@${most}`),
        system(`majority@${most}`),
      ),
      [`select over majority, N = ${most}`]: await pairedBootstrap(
        system(`majority@${most}`),
        system(`select@${most}`),
      ),
      [`select over pass@1, N = ${most}`]: await pairedBootstrap(system(`passAt1@${most}`), system(`select@${most}`)),
    },
  };
}

async function withPolicy<T>(engine: Engine, folder: string, work: (policy: Policy) => Promise<T>): Promise<T> {
  const model = await engine.loadModel(folder);
  try {
    await using policy = await Policy.open(model, folder, { threads: 1 });
    return await work(policy);
  } finally {
    await model.dispose();
  }
}

/** Trains one variant from the base, keeps its weights, tests them. */
function runVariant(
  engine: Engine,
  source: RowSource,
  base: string,
  own: R3vPlan,
  left: R3vOptions,
  folder: string,
  test: Evaluator,
  signal: AbortSignal,
): Promise<VariantResult> {
  const { bank, seed } = source;
  const startedMs = performance.now();
  return withPolicy(engine, base, async (policy) => {
    const result: R3vResult = await runRecipe(
      policy,
      r3v({
        data: questionsOf(source, 'r3v', own.questions, bank.seenArtists),
        warmUp: source.dataset('r3v-warm-up', own.warmUp, (index) => ({
          split: 'r3v-warm-up',
          index,
          artists: artistsWithRationales(bank),
          forms: ['question-cot'],
        })),
        prompts,
        options: { ...own.options, ...left, weights: { ...own.options.weights, ...left.weights }, seed },
      }),
      signal,
      folder,
    );
    const seconds = (performance.now() - startedMs) / 1000;
    await policy.model.exportHf(join(folder, 'final'));
    return {
      seconds,
      test: await runRecipe(policy, evaluate(test), signal),
      iterations: result.iterations.map(({ accuracy, items, bootstrap }) => ({
        accuracy,
        items,
        passAt1: bootstrap?.accuracy ?? null,
      })),
    };
  });
}

/** Preferences among STaR's own samples, trained from STaR's weights. */
async function runDpo(
  engine: Engine,
  source: RowSource,
  own: R3vPlan,
  out: string,
  test: Evaluator,
  signal: AbortSignal,
): Promise<VariantResult> {
  const { bank, seed } = source;
  const startedMs = performance.now();
  const pool = await SamplePool.open(join(out, 'star', 'samples', 'pool.jsonl'));
  try {
    const data = questionsOf(source, 'r3v', own.questions, bank.seenArtists);
    const pairs = await dpoPairs({ pool, data, weights: pool.checkpoints(), prompts, signal });
    return await withPolicy(engine, join(out, 'star', 'final'), async (policy) => {
      // Without a question that has both a right and a wrong sample there is nothing to prefer.
      if (pairs.length > 0) {
        const preferences = pairsFromRows('star-pairs', pairs);
        await runRecipe(policy, dpo({ data: preferences, options: { ...own.dpo, seed } }), signal);
      }
      const seconds = (performance.now() - startedMs) / 1000;
      return { seconds, test: await runRecipe(policy, evaluate(test), signal), iterations: [], pairs: pairs.length };
    });
  } finally {
    await pool.close();
  }
}

/** The base and the rationales know the pictures of these; the questions are about those of one more. */
const artistsWithRationales = (bank: EmojiBank): readonly string[] => bank.seenArtists.slice(0, -1);

const questionsOf = (source: RowSource, split: string, size: number, artists: readonly string[]) =>
  source.dataset(split, size, (index) => ({ split, index, artists, forms: ['question-ask'] }));

/** Greedy answers with reasons and without; seen artists first, then the one never seen. */
function testOf(source: RowSource, own: R3vPlan): Evaluator {
  const { bank } = source;
  const { seen, unseen } = own.test;
  const rows = source.kept((index) => ({
    split: index < seen ? 'r3v-test' : 'r3v-test-unseen',
    index: index < seen ? index : index - seen,
    artists: index < seen ? bank.seenArtists : bank.unseenArtists,
    forms: ['question-ask', 'question-direct'],
  }));
  return {
    set: {
      name: 'test',
      size: seen + unseen,
      item: async (index) => {
        const [row, direct] = (await rows(index)) as [Row, Row];
        return { row, direct: withoutCompletion(direct), unseen: index >= seen };
      },
    },
    inspect: (text, row) => ({ perception: questionPerception(text, row.meta!['cells'] as CellWords) }),
    options: { maxNewTokens: own.options.maxNewTokens! },
  };
}

const withoutCompletion = ({ completion: _, ...row }: Row): Row => row;
