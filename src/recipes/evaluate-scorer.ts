/** Evaluation of a scorer inside a recipe: every pair scored without generation, then the numbers of evaluation/scores.ts. */
import type { PairDataset, PairRow } from '../data/pairs.js';
import {
  evaluateScoresWithIntervals,
  scorePairs,
  type ScoreEvaluation,
  type ScoreIntervals,
} from '../evaluation/scores.js';
import type { RecipeContext } from './context.js';
import type { Recipe } from './job.js';
import { Pace } from '../pace.js';
import { scoreRows, type RowScore } from './score-rows.js';

/** Pairs scored at once. */
const chunkPairs = 64;

export type ScorerResult = ScoreEvaluation &
  ScoreIntervals & {
    name: string;
    seconds: number;
    /** Both candidates' scores, by pair id. */
    scores: Record<string, { first: RowScore; second: RowScore }>;
  };

/** Scores every pair, telling its progress; emits 'scoring-end'. `onStates` gets hidden states, [2 pairs, hidden] a chunk. */
export async function evaluateScorer(
  context: RecipeContext,
  data: PairDataset,
  step = 0,
  onStates?: (states: Float32Array) => void,
): Promise<ScorerResult> {
  const startedMs = performance.now();
  const pairs: PairRow[] = [];
  const scores: { first: RowScore; second: RowScore }[] = [];
  const pace = new Pace();
  const marks: Record<string, number> = {};
  const counted = { strict: 0, right: 0 };
  for (let start = 0; start < data.size; start += chunkPairs) {
    context.signal.throwIfAborted();
    const count = Math.min(chunkPairs, data.size - start);
    const chunk = await Promise.all(Array.from({ length: count }, (_, i) => data.pair(start + i)));
    const found = await scoreRows(
      context.policy,
      chunk.flatMap(({ first, second }) => [first, second]),
      { signal: context.signal, ...(onStates && { states: onStates }) },
    );
    for (const [i, { id, preference, meta }] of chunk.entries()) {
      const [first, second] = [found[2 * i]!, found[2 * i + 1]!];
      pairs.push({ id, preference, ...(meta && { meta }) } as PairRow);
      scores.push({ first, second });
      if (preference === 'tie') continue;
      const margin = first.fused.mu - second.fused.mu;
      counted.strict++;
      marks[id] = Number(preference === 'first' ? margin > 0 : margin < 0);
      counted.right += marks[id];
    }
    const seconds = (performance.now() - startedMs) / 1000;
    context.emit({
      type: 'sampling-progress',
      stage: context.stage,
      purpose: data.name,
      done: start + count,
      total: data.size,
      accuracy: counted.right / Math.max(counted.strict, 1),
      tokensPerSecond: 0,
      secondsLeft: (seconds / pairs.length) * (data.size - pairs.length),
    });
    await pace.breathe();
  }
  const evaluation = await evaluateScoresWithIntervals(
    scorePairs(
      pairs,
      scores.map(({ first, second }) => ({ first: first.fused, second: second.fused })),
    ),
  );
  const result: ScorerResult = {
    name: data.name,
    ...evaluation,
    seconds: (performance.now() - startedMs) / 1000,
    scores: Object.fromEntries(pairs.map(({ id }, i) => [id, scores[i]!])),
  };
  const { scores: _scores, ...summary } = result;
  context.emit({ type: 'scoring-end', stage: context.stage, name: data.name, step, result: summary, marks });
  return result;
}

/** The evaluation of a scorer as a recipe of its own. */
export function evaluateScorerRecipe(data: PairDataset): Recipe<ScorerResult> {
  return { kind: 'evaluate-scorer', config: { data: data.name }, run: (context) => evaluateScorer(context, data) };
}
