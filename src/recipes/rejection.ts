/**
 * Rejection sampling: draw k completions an item, mark them, keep one correct completion an item for supervised training,
 * hand the items that were not all right to reinforcement learning. The weights are fixed while it samples, so a killed run
 * continues from its pool and never samples an item twice.
 */
import { z } from 'zod';
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import type { GavelError } from '../errors.js';
import { expected } from '../errors.js';
import { SamplePool } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import type { Evaluator } from './evaluate.js';
import type { Recipe } from './job.js';
import { defaultJudge, type Judge } from './judge.js';
import { drawSchema, markSamples } from './mark-samples.js';
import { Pace } from './pace.js';
import { routeSamples, type RoutedItem, type Routing } from './route.js';
import { sft, sftOptionsSchema, type SftResult } from './sft.js';

export const rejectionOptionsSchema = z
  .strictObject({
    ...drawSchema.shape,
    seed: z.number().int().min(0).default(0).describe('Key of sampling and of the choice among correct samples.'),
    samplingBudgetSeconds: z
      .number()
      .positive()
      .optional()
      .describe('Sampling stops after this; items not reached are left out.'),
    sft: sftOptionsSchema.prefault({}),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound of the stage.'),
  })
  .describe('Rejection sampling and training on what it keeps.');

export type RejectionOptions = z.input<typeof rejectionOptionsSchema>;
type ResolvedOptions = z.output<typeof rejectionOptionsSchema>;

export interface RejectionParts {
  data: Dataset;
  judge?: Judge;
  /** Which correct samples are sound enough to train on, such as those that do not contradict themselves. Default: all. */
  isSound?: (completion: string, row: Row) => boolean;
  /** Validation while training on the kept samples. */
  validation?: Evaluator;
  /** Rows trained beside the kept ones, such as direct answers. `kept` are the data set indices that gave a sample. */
  alsoTrain?: (kept: readonly number[]) => Promise<Row[]>;
  options?: RejectionOptions;
}

export interface RejectionResult extends Omit<Routing, 'kept'> {
  /** Items sampled, and those that gave a training row. */
  items: number;
  kept: number;
  training: SftResult | null;
}

interface Progress {
  /** Name of the weights that sampled. */
  weights: string;
  routing?: Routing;
  items: number;
}

export function rejection(parts: RejectionParts): Recipe<RejectionResult> {
  const options = parseOptions(rejectionOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'rejection',
    config: { data: parts.data.name, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runRejection(context, parts, options),
  };
}

async function runRejection(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
): Promise<RejectionResult> {
  const progress = context.progress<Progress>() ?? { weights: context.weightsName, items: 0 };
  const pool = context.run?.samples ?? SamplePool.inMemory();
  if (progress.routing === undefined) {
    const items = await markItems(context, parts, options, pool, progress.weights);
    progress.items = items.length;
    progress.routing = routeSamples(items, options.seed);
    await context.checkpoint(1, progress);
  }
  const { kept, ...routing } = progress.routing;
  context.note(
    `Rejection sampling kept ${kept.length} of ${progress.items} items; ${routing.hard.length} go on, ${routing.allWrong} all wrong.`,
    { kept: kept.length, items: progress.items, hard: routing.hard.length, allWrong: routing.allWrong },
  );
  const training = kept.length === 0 ? null : await trainOnKept(context, parts, options, pool, progress);
  return { ...routing, items: progress.items, kept: kept.length, training };
}

/** Every item that the pool holds whole after sampling, and which of its samples may be trained on. */
async function markItems(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
  pool: SamplePool,
  weights: string,
): Promise<RoutedItem[]> {
  const { data, judge = defaultJudge, isSound } = parts;
  const items: RoutedItem[] = [];
  const { samplingBudgetSeconds: budgetSeconds } = options;
  await markSamples(context, { ...options, data, judge, pool, weights, budgetSeconds }, async (item, row) => {
    const { index, id, samples } = item;
    const correct = samples.map((entry) => entry.correct);
    const sound = isSound && samples.map(async (entry) => entry.correct && isSound((await pool.read(entry)).text, row));
    items.push({ index, id, correct, ...(sound && { sound: await Promise.all(sound) }) });
  });
  return items;
}

async function trainOnKept(
  context: RecipeContext,
  parts: RejectionParts,
  options: ResolvedOptions,
  pool: SamplePool,
  progress: Progress,
): Promise<SftResult> {
  const kept = progress.routing!.kept;
  const rows = await Promise.all(kept.map(({ index }) => parts.data.row(index)));
  const texts: string[] = [];
  const pace = new Pace();
  for (const [i, { sample }] of kept.entries()) {
    const { id } = rows[i]!;
    const entry = pool.entries(progress.weights, id).find((candidate) => candidate.sample === sample);
    if (entry === undefined) throw lostSample(id, sample);
    texts.push((await pool.read(entry)).text);
    await pace.breathe();
  }
  const also = (await parts.alsoTrain?.(kept.map(({ index }) => index))) ?? [];
  const data = generatedDataset({
    name: `${parts.data.name} kept`,
    size: kept.length + also.length,
    // Pictures are covered by the fingerprint of the data they come from; hashing them again would hold the event loop.
    key: JSON.stringify([parts.data.fingerprint, progress.weights, kept, texts, also.map(({ id }) => id)]),
    make: (index) =>
      index < kept.length ? { ...rows[index]!, completion: texts[index]! } : also[index - kept.length]!,
  });
  const recipe = sft({
    data,
    options: options.sft,
    ...(parts.validation === undefined ? {} : { validation: parts.validation }),
  });
  return context.runStage(`${context.stage}/train`, recipe);
}

function lostSample(item: string, sample: number): GavelError {
  return expected(
    'bad_data',
    'samples',
    `sample ${sample} of item "${item}" in the pool`,
    'none',
    'The samples folder was changed since the checkpoint; restore it or start a new run.',
  );
}
