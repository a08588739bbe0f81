/**
 * The rollout of one step: a group of completions for each prompt, marked and kept. Dynamic sampling (DAPO, Yu et al. 2025)
 * replaces groups that teach nothing by groups of further prompts, a limited number of times.
 */
import { computeAdvantages } from '../rewards/advantages.js';
import { overlongPenalty } from '../rewards/overlong.js';
import type { Verdict } from '../rewards/verifier.js';
import type { NamedReward } from '../rewards/reward.js';
import type { RecipeContext } from './context.js';
import { drawSettingsOf } from './draw-options.js';
import type { GrpoSettings } from './grpo-options.js';
import { rewardTable, verdictOf, type Judge } from './judge.js';
import { Pace } from '../pace.js';
import type { DrawnCompletion } from './policy.js';
import type { Prompt, PromptStream } from './prompt-stream.js';
import { seededWord } from '../seeded.js';

/** One prompt with its completions [G]. */
export interface RolloutGroup {
  prompt: Prompt;
  completions: DrawnCompletion[];
  /** By completion, then by reward function; null is missing. */
  rewards: (number | null)[][];
  verdicts: Verdict[];
}

export interface Rollout {
  /** What the step trains on: `promptsPerStep` groups. Those that were replaced are not among them. */
  groups: RolloutGroup[];
  /** Everything drawn, replaced groups too. */
  drawn: RolloutGroup[];
  /** Names and weights of the reward functions. */
  names: string[];
  weights: number[];
  /** Rounds of dynamic sampling, and groups they replaced. */
  rounds: number;
  replaced: number;
}

/** Draws the rollout of step `step`, counted from 0. */
export async function drawRollout(
  context: RecipeContext,
  prompts: PromptStream,
  judge: Judge,
  options: GrpoSettings,
  step: number,
): Promise<Rollout> {
  const rewards = rewardsOf(judge, options);
  const weights = rewards.map(({ weight = 1 }) => weight);
  let firstEpoch: number | undefined;
  const draw = async (count: number): Promise<RolloutGroup[]> => {
    const taken = await prompts.take(count);
    firstEpoch ??= taken[0]!.cursor.epoch;
    return drawGroups(context, { ...judge, rewards }, options, taken, step, firstEpoch);
  };
  const groups = await draw(options.promptsPerStep);
  const drawn = [...groups];
  let rounds = 0;
  for (; rounds < options.dynamicSamplingRounds; rounds++) {
    const idle = groups.flatMap((group, slot) => (isInformative(group.rewards, weights, options) ? [] : [slot]));
    if (idle.length === 0) break;
    const fresh = await draw(idle.length);
    drawn.push(...fresh);
    for (const [i, slot] of idle.entries()) groups[slot] = fresh[i]!;
  }
  const replaced = drawn.length - groups.length;
  return { groups, drawn, names: rewards.map(({ name }) => name), weights, rounds, replaced };
}

/** The judge's rewards, and the penalty the options ask for. */
export function rewardsOf(judge: Judge, options: GrpoSettings): readonly NamedReward[] {
  const { overlongPenalty: overlong, maxCompletionLength } = options;
  if (overlong === undefined) return judge.rewards;
  const { buffer, weight } = overlong;
  return [...judge.rewards, { name: 'overlong', reward: overlongPenalty({ maxCompletionLength, buffer }), weight }];
}

/** Whether the rewards of one group differ, so that some completion has an advantage. */
export function isInformative(
  rewards: RolloutGroup['rewards'],
  weights: readonly number[],
  { aggregation, baseline = 'group_mean' }: Pick<GrpoSettings, 'aggregation' | 'baseline'>,
): boolean {
  const { advantages } = computeAdvantages(rewards, {
    groupSize: rewards.length,
    weights,
    ...(aggregation === 'normalize_then_sum' ? { aggregation } : { baseline, scaleRewards: 'none' }),
  });
  return advantages.some((advantage) => Math.abs(advantage) > 1e-8);
}

async function drawGroups(
  context: RecipeContext,
  judge: Judge,
  options: GrpoSettings,
  prompts: readonly Prompt[],
  step: number,
  firstEpoch: number,
): Promise<RolloutGroup[]> {
  const { groupSize: count, maxCompletionLength: maxNewTokens } = options;
  const { signal } = context;
  // A prompt that comes again in a later epoch must not see the same random numbers: a later step has another seed, and
  // within a step its samples are counted on.
  const seed = seededWord(options.seed, step);
  const firstSample = prompts.map(({ cursor }) => (cursor.epoch - firstEpoch) * count);
  const drawn: DrawnCompletion[] = [];
  await context.policy.draw(
    prompts.map(({ encoded }) => encoded),
    { ...drawSettingsOf(options), count, firstSample, seed, maxNewTokens, signal },
    (completion) => drawn.push(completion),
  );
  drawn.sort((a, b) => a.item - b.item || a.sample - b.sample);
  const rows = prompts.map(({ row }) => row);
  const { values } = await rewardTable(judge, rows, drawn, signal);
  const pace = new Pace();
  const groups: RolloutGroup[] = [];
  for (const [g, prompt] of prompts.entries()) {
    const completions = drawn.slice(g * count, (g + 1) * count);
    const verdicts = completions.map(({ text }) => verdictOf(judge, prompt.row, text));
    groups.push({ prompt, completions, rewards: values.slice(g * count, (g + 1) * count), verdicts });
    await pace.breathe();
  }
  return groups;
}

/** What was drawn joins the marked pool, under the name of the step that drew it; replaced groups have no advantage. */
export async function keepRollout(
  context: RecipeContext,
  { seed, temperature, groupSize }: GrpoSettings,
  rollout: Rollout,
  advantages: ArrayLike<number>,
  step: number,
): Promise<void> {
  if (context.run === undefined) return;
  const pace = new Pace();
  for (const group of rollout.drawn) {
    const { prompt, completions, rewards, verdicts } = group;
    const place = rollout.groups.indexOf(group);
    context.run.items.add(prompt.row);
    for (const [i, { sample, text, tokens, finishReason }] of completions.entries()) {
      context.run.samples.add({
        item: prompt.row.id,
        checkpoint: `${context.stage}@${step}`,
        sample,
        stage: context.stage,
        step,
        seed,
        temperature,
        recency: step,
        text,
        numTokens: tokens.length,
        finishReason,
        rewards: Object.fromEntries(rollout.names.map((name, k) => [name, rewards[i]![k] ?? null])),
        advantage: place < 0 ? null : advantages[place * groupSize + i]!,
        ...verdicts[i]!,
      });
    }
    await pace.breathe();
  }
}
