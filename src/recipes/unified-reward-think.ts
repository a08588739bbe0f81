/**
 * UnifiedReward-Think (Wang et al. 2025, arXiv 2505.03318): a judge that reasons, in three stages over one marked pool.
 * Cold start on distilled rationales teaches the form; rejection sampling trains on the model's own correct rationales;
 * GRPO goes on with the items that were not all right.
 */
import { z } from 'zod';
import type { Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import { datasetPart } from './dataset-part.js';
import { evaluate, type Evaluator } from './evaluate.js';
import { grpo, grpoOptionsSchema } from './grpo.js';
import type { Recipe } from './job.js';
import type { Judge } from './judge.js';
import { pipeline, type PipelineStage, type StageResults } from './pipeline.js';
import { rejection, rejectionOptionsSchema, type RejectionResult } from './rejection.js';
import { sft, sftOptionsSchema } from './sft.js';

const stageNames = ['cold-start', 'rejection', 'grpo'] as const;

export const unifiedRewardThinkOptionsSchema = z
  .strictObject({
    stages: z
      .array(z.enum(stageNames))
      .min(1)
      .default([...stageNames])
      .describe('Which stages run, in the order of the method; leave one out to see what it does.'),
    coldStart: sftOptionsSchema.prefault({}).describe('Supervised training on distilled rationales.'),
    rejection: rejectionOptionsSchema.prefault({}).describe('Rejection sampling on the labelled pool.'),
    grpo: grpoOptionsSchema.prefault({}).describe('GRPO on what is still wrong.'),
    budgetSeconds: z.number().positive().optional().describe('Wall-clock bound of all stages.'),
  })
  .describe('UnifiedReward-Think: cold start, rejection sampling, GRPO.');

export type UnifiedRewardThinkOptions = z.input<typeof unifiedRewardThinkOptionsSchema>;

export interface UnifiedRewardThinkParts {
  /** Rows with a distilled rationale whose answer is the gold one. */
  coldStart: Dataset;
  /** Labelled rows without rationales: what rejection sampling and GRPO draw on. */
  pool: Dataset;
  judge?: Judge;
  /** See `RejectionParts`. */
  isSound?: (completion: string, row: Row) => boolean;
  alsoTrain?: (kept: readonly number[]) => Promise<Row[]>;
  /** Measures on the way, and is what the gate before GRPO looks at. */
  validation: Evaluator;
  /** Runs after each stage, as a stage "<name>-test". */
  test?: Evaluator;
  options?: UnifiedRewardThinkOptions;
}

/** The method as stages of a pipeline, for pipelines that do more. */
export function unifiedRewardThinkStages(parts: UnifiedRewardThinkParts): PipelineStage[] {
  const { pool, judge, validation, test } = parts;
  const options = parseOptions(unifiedRewardThinkOptionsSchema, parts.options ?? {}, 'options');
  const judged = judge === undefined ? {} : { judge };
  const { isSound, alsoTrain } = parts;
  const stages: Record<(typeof stageNames)[number], PipelineStage['make']> = {
    'cold-start': () => sft({ data: parts.coldStart, validation, options: options.coldStart }),
    rejection: () =>
      rejection({
        data: pool,
        ...judged,
        ...(isSound && { isSound }),
        ...(alsoTrain && { alsoTrain }),
        options: options.rejection,
      }),
    grpo: (results) => {
      const hard = (results['rejection'] as RejectionResult | undefined)?.hard;
      const data = hard === undefined ? pool : datasetPart(pool, `${pool.name} hard`, hard);
      return grpo({ data, ...judged, validation, options: options.grpo });
    },
  };
  return stageNames
    .filter((name) => options.stages.includes(name))
    .flatMap((name) => [
      { name, make: stages[name] },
      ...(test === undefined ? [] : [{ name: `${name}-test`, make: () => evaluate(test) }]),
    ]);
}

/** The whole method. Its result holds that of each stage by name. Errors: those of its stages, 'gate_refused' among them. */
export function unifiedRewardThink(parts: UnifiedRewardThinkParts): Recipe<StageResults> {
  const { budgetSeconds } = parseOptions(unifiedRewardThinkOptionsSchema, parts.options ?? {}, 'options');
  return pipeline(unifiedRewardThinkStages(parts), budgetSeconds === undefined ? {} : { budgetSeconds });
}
