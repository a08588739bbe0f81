/**
 * The completions an evaluation judges: those that fixed weights drew before are read back, the others are drawn and kept
 * one by one, so that a killed evaluation repeats nothing that had ended.
 */
import type { Row } from '../data/rows.js';
import { SamplePool } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import type { DrawSettings } from './draw-options.js';
import { Pace } from '../pace.js';

/** Where the completions of an evaluation are kept, and under which name of the weights. */
export interface KeptSamples {
  pool: SamplePool;
  weights: string;
}

export interface AskedPrompt {
  row: Row;
  /** Unique in the evaluation. */
  key: string;
  /** The item it belongs to, as in the data. */
  item: { row: Row };
  order: 'given' | 'swapped';
  direct: boolean;
}

export interface JudgedText {
  sample: number;
  text: string;
  numTokens: number;
  finishReason: 'stop' | 'length';
}

/**
 * `samples` completions of each prompt, in their order. Returns them with the tokens that were drawn now. `set.content` tells
 * apart what one pool holds of several evaluations; kept samples of other settings are not taken for these.
 */
export async function drawKept(
  context: RecipeContext,
  set: { name: string; content: string },
  prompts: readonly AskedPrompt[],
  settings: DrawSettings & { samples: number; seed: number; maxNewTokens: number },
  kept: KeptSamples | undefined,
): Promise<{ texts: JudgedText[][]; tokens: number }> {
  const { samples, seed, temperature, stopStrings = [], maxNewTokens } = settings;
  const { pool, weights } = kept ?? { pool: SamplePool.inMemory(), weights: '' };
  const setting = [
    set.content,
    `seed ${seed}`,
    `temperature ${temperature}`,
    `tokens ${maxNewTokens}`,
    ...(stopStrings.length === 0 ? [] : [`stop ${JSON.stringify(stopStrings)}`]),
  ].join(', ');
  const itemOf = ({ key, row }: AskedPrompt): string => `evaluation (${setting}) ${key} ${row.id}`;
  let tokens = 0;
  for (const { first, count, asked } of missingOf(prompts, samples, (prompt, sample) =>
    pool.has(weights, itemOf(prompt), sample),
  )) {
    const { signal } = context;
    const rows = await context.policy.encode(
      asked.map(({ row }) => row),
      signal,
    );
    if (kept !== undefined) {
      for (const prompt of asked) context.run?.items.add({ ...prompt.row, id: itemOf(prompt) }, set.name);
    }
    const options = { count, firstSample: first, seed, temperature, stopStrings, maxNewTokens, signal };
    const stats = await context.policy.draw(rows, options, ({ item, sample, text, tokens: ids, finishReason }) => {
      const prompt = asked[item]!;
      const { order, direct } = prompt;
      pool.add({
        item: itemOf(prompt),
        checkpoint: weights,
        stage: context.stage,
        sample,
        seed,
        temperature,
        recency: 0,
        text,
        numTokens: ids.length,
        finishReason,
        // An evaluation marks afresh what it reads back: its judge may have changed.
        rewards: {},
        answer: null,
        correct: false,
        unmarked: true,
        evaluation: { name: set.name, item: prompt.item.row.id, order, direct },
      });
    });
    tokens += stats.completionTokens;
  }
  await pool.sync();
  context.countTokens(tokens);
  const pace = new Pace();
  const texts: JudgedText[][] = [];
  for (const prompt of prompts) {
    const entries = pool.entries(weights, itemOf(prompt)).filter(({ sample }) => sample < samples);
    texts.push(await Promise.all(entries.map((entry) => pool.read(entry))));
    await pace.breathe();
  }
  return { texts, tokens };
}

interface Missing {
  first: number;
  count: number;
  asked: AskedPrompt[];
}

/** What is to be drawn, as ranges of samples: prompts with the same range are drawn together. */
function missingOf(
  prompts: readonly AskedPrompt[],
  samples: number,
  has: (prompt: AskedPrompt, sample: number) => boolean,
): Missing[] {
  const ranges = new Map<string, Missing>();
  for (const prompt of prompts) {
    const missing = Array.from({ length: samples }, (_, sample) => sample).filter((sample) => !has(prompt, sample));
    if (missing.length === 0) continue;
    const first = missing[0]!;
    const count = missing.at(-1)! - first + 1;
    const range = ranges.get(`${first} ${count}`);
    if (range === undefined) ranges.set(`${first} ${count}`, { first, count, asked: [prompt] });
    else range.asked.push(prompt);
  }
  return [...ranges.values()];
}
