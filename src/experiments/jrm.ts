/**
 * JRM on composed pictures: does a language loss on rationales, trained in the same forward, make a better scorer than
 * ranking alone? One base and the same pairs for every alpha; the test shows an artist that no training has seen. Also: how
 * many directions the scored states use, and what a score costs against generating the judgement.
 */
import { join } from 'node:path';
import { generatedPairs, type PairDataset, type PairRow } from '../data/pairs.js';
import type { Row } from '../data/rows.js';
import { loadEmojiBank, type EmojiBank } from '../emoji-judge/bank.js';
import { makePair } from '../emoji-judge/pair.js';
import { RowSource } from '../emoji-judge/row-source.js';
import { createEngine, type Engine } from '../engine/engine.js';
import { pairedBootstrap, type BootstrapResult } from '../evaluation/bootstrap.js';
import { effectiveRank } from '../evaluation/effective-rank.js';
import { evaluateScorer, type ScorerResult } from '../recipes/evaluate-scorer.js';
import type { Recipe } from '../recipes/job.js';
import { joint } from '../recipes/joint.js';
import type { JointOptions } from '../recipes/joint-options.js';
import { Pace } from '../pace.js';
import { Policy } from '../recipes/policy.js';
import { scoredGroup } from '../recipes/score-rows.js';
import { emojiBase, runRecipe } from './emoji-base.js';
import { kept, type Experiment, type SeedContext } from './experiment.js';
import { jrmReport } from './jrm-report.js';
import { fixed } from './markdown.js';

const alphas = [0, 0.3, 0.5, 0.7, 0.9] as const;
const latencyItems = 256;
const longestRationale = 16;
/** The candidates differ by two wrong cells or more. */
const difficulty = 'easy';

interface JrmPlan {
  baseSteps: number;
  pairs: number;
  test: { unseen: number; seen: number };
  options: JointOptions;
}

const plan: JrmPlan = {
  baseSteps: 80,
  pairs: 1000,
  test: { unseen: 1000, seen: 500 },
  options: {
    ranking: { loss: 'uncertainty' },
    steps: 600,
    batchSize: 16,
    learningRate: 3e-4,
    schedule: { kind: 'cosine', warmupSteps: 30, minRatio: 0.1 },
    optimizer: { beta2: 0.98, weightDecay: 0.01 },
  },
};

const smokePlan: JrmPlan = {
  baseSteps: 10,
  pairs: 64,
  test: { unseen: 32, seen: 32 },
  options: { ...plan.options, steps: 4, batchSize: 8 },
};

export interface SetResult {
  accuracy: number | null;
  low: number | null;
  high: number | null;
  margin: number | null;
  ece: number | null;
  effectiveRank: number;
  /** 1 where the better picture scored higher, by pair. */
  marks: number[];
}

export interface AlphaResult {
  alpha: number;
  seconds: number;
  loss: number | null;
  unseen: SetResult;
  seen: SetResult;
}

export interface Latency {
  items: number;
  scoreSeconds: number;
  generateSeconds: number;
  generatedTokens: number;
  /** One item at a time, median. */
  scoreOneMs: number;
  generateOneMs: number;
}

export interface JrmResult {
  plan: JrmPlan;
  alphas: AlphaResult[];
  /** Of the model of alpha 0.7. */
  latency: Latency;
  /** alpha 0.7 against alpha 0. */
  comparisons: { unseen: BootstrapResult; seen: BootstrapResult };
}

export const jrmExperiment: Experiment<JrmResult> = {
  name: 'jrm',
  runSeed,
  report: (r) => Promise.resolve(jrmReport(r)),
};

async function runSeed(context: SeedContext): Promise<JrmResult> {
  const { out, threads, smoke, say } = context;
  const own = smoke ? smokePlan : plan;
  const bank = await loadEmojiBank();
  await using engine = await createEngine({ device: 'cpu', ...(threads === undefined ? {} : { threads }) });
  const base = await emojiBase(engine, bank, context, own.baseSteps, (index) => ({
    split: 'look',
    index,
    artists: bank.seenArtists,
    forms: ['look'],
  }));
  const results: AlphaResult[] = [];
  let latency: Latency | undefined;
  for (const alpha of alphas) {
    const path = join(out, `alpha-${alpha}.json`);
    const { result, latency: measured } = await kept(path, () => runAlpha(engine, bank, base, alpha, own, context));
    say(`alpha ${alpha}: unseen ${fixed(result.unseen.accuracy)}, rank ${fixed(result.unseen.effectiveRank, 1)}`);
    results.push(result);
    latency ??= measured;
  }
  const marksOf = (alpha: number, set: 'unseen' | 'seen'): number[] =>
    results.find((one) => one.alpha === alpha)![set].marks;
  return {
    plan: own,
    alphas: results,
    latency: latency!,
    comparisons: {
      unseen: await pairedBootstrap(marksOf(0, 'unseen'), marksOf(0.7, 'unseen')),
      seen: await pairedBootstrap(marksOf(0, 'seen'), marksOf(0.7, 'seen')),
    },
  };
}

/** Trains one scorer from the base and tests it. */
async function runAlpha(
  engine: Engine,
  bank: EmojiBank,
  base: string,
  alpha: number,
  own: JrmPlan,
  context: SeedContext,
): Promise<{ result: AlphaResult; latency?: Latency }> {
  const { seed, signal } = context;
  await using model = await engine.loadModel(base, { rewardHead: { seed } });
  await using policy = await Policy.open(model, base, { threads: 1 });
  await using source = new RowSource(bank, seed);
  const startedMs = performance.now();
  const data = pairsOf(source, 'jrm', own.pairs, bank.seenArtists);
  const { loss } = await runRecipe(policy, joint({ data, options: { ...own.options, alpha, seed } }), signal);
  const seconds = (performance.now() - startedMs) / 1000;
  const unseen = pairsOf(source, 'jrm-test-unseen', own.test.unseen, bank.unseenArtists);
  const seen = pairsOf(source, 'jrm-test', own.test.seen, bank.seenArtists);
  const result: AlphaResult = {
    alpha,
    seconds,
    loss,
    unseen: await testOn(policy, unseen, signal),
    seen: await testOn(policy, seen, signal),
  };
  return alpha === 0.7 ? { result, latency: await measureLatency(policy, unseen, signal) } : { result };
}

/** Pairs of a split, each picture a candidate of its own. */
function pairsOf(source: RowSource, split: string, size: number, artists: readonly string[]): PairDataset {
  const { bank, seed } = source;
  const rows = source.kept((index) => ({ split, index, artists, forms: ['candidate-1', 'candidate-2'], difficulty }));
  const make = async (index: number): Promise<PairRow> => {
    const [first, second] = (await rows(index)) as [Row, Row];
    const { id, verdict } = makePair(bank, { seed, split, artists, difficulty }, index);
    return { id, first, second, preference: verdict === 'Image 1 is better' ? 'first' : 'second' };
  };
  return generatedPairs({ name: split, size, key: `emoji-judge 1 ${seed}`, make });
}

async function testOn(policy: Policy, data: PairDataset, signal: AbortSignal): Promise<SetResult> {
  const chunks: Float32Array[] = [];
  const recipe: Recipe<ScorerResult> = {
    kind: 'test-scorer',
    config: {},
    run: (context) => evaluateScorer(context, data, 0, (states) => chunks.push(states)),
  };
  const {
    scores,
    accuracyWithoutTies: accuracy,
    low,
    high,
    margin,
    calibration,
  } = await runRecipe(policy, recipe, signal);
  const states = new Float32Array(chunks.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const chunk of chunks) {
    states.set(chunk, at);
    at += chunk.length;
  }
  const pace = new Pace();
  const rank = await effectiveRank(states, states.length / (2 * data.size), () => pace.breathe());
  const marks: number[] = [];
  for (let index = 0; index < data.size; index++) {
    const { id, preference } = await data.pair(index);
    const { first, second } = scores[id]!;
    marks.push(
      Number(first.fused.mu > second.fused.mu === (preference === 'first') && first.fused.mu !== second.fused.mu),
    );
  }
  return { accuracy, low, high, margin, ece: calibration?.ece ?? null, effectiveRank: rank, marks };
}

/** The same rows scored, and judged by generating their rationale; all at once, then one by one. */
async function measureLatency(policy: Policy, data: PairDataset, signal: AbortSignal): Promise<Latency> {
  const { model } = policy;
  const rows: Row[] = [];
  for (let index = 0; rows.length < Math.min(latencyItems, 2 * data.size); index++) {
    const { first, second } = await data.pair(index);
    rows.push(first, second);
  }
  const encoded = await policy.encode(rows, signal);
  const token = model.rewardHead!.tokenId;
  const groups = encoded.map((row) => scoredGroup(row, token, false));
  const draw = { count: 1, seed: 0, temperature: 0, maxNewTokens: longestRationale, signal };
  let generatedTokens = 0;
  const score = (from: number, to: number): Promise<unknown> => model.score(groups.slice(from, to), { signal });
  const generate = (from: number, to: number): Promise<unknown> =>
    policy.draw(encoded.slice(from, to), draw, ({ tokens }) => (generatedTokens += tokens.length));
  const timed = async (work: () => Promise<unknown>): Promise<number> => {
    const startedMs = performance.now();
    await work();
    return performance.now() - startedMs;
  };
  const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1]!;
  const [scores, generations, scoreOne, generateOne]: number[][] = [[], [], [], []];
  // Interleaved, so that both meet the same machine.
  for (let round = 0; round < 5; round++) {
    scores!.push(await timed(() => score(0, rows.length)));
    generatedTokens = 0;
    generations!.push(await timed(() => generate(0, rows.length)));
  }
  const tokens = generatedTokens;
  for (let i = 0; i < Math.min(32, rows.length); i++) {
    scoreOne!.push(await timed(() => score(i, i + 1)));
    generateOne!.push(await timed(() => generate(i, i + 1)));
  }
  return {
    items: rows.length,
    scoreSeconds: median(scores!) / 1000,
    generateSeconds: median(generations!) / 1000,
    generatedTokens: tokens,
    scoreOneMs: median(scoreOne!),
    generateOneMs: median(generateOne!),
  };
}
