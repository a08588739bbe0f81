/**
 * Named stages over one run: each is a recipe made from the results of those before it, has its own time budget, and is
 * skipped when the resumed run already holds its result.
 */
import { expected } from '../errors.js';
import type { RecipeContext } from './context.js';
import type { Recipe } from './job.js';

/** Results of finished stages by name: plain data, as they come back from a checkpoint. */
export type StageResults = Readonly<Record<string, unknown>>;

export interface PipelineStage {
  name: string;
  /** Wall-clock bound; the recipe's own holds too. */
  budgetSeconds?: number;
  make: (results: StageResults) => Recipe<unknown> | Promise<Recipe<unknown>>;
}

/**
 * Runs `stages` in order. The result holds each stage's result by name. As a stage of another pipeline its stages are called
 * "<that stage>/<name>", so that two of them, or one beside a stage of the same name, never share their state. Errors: 'invalid_config' for
 * two equal names.
 */
export function pipeline(
  stages: readonly PipelineStage[],
  options: { budgetSeconds?: number } = {},
): Recipe<StageResults> {
  const names = stages.map(({ name }) => name);
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined)
    throw expected('invalid_config', 'stages', 'distinct names', twice, 'Rename one of the stages.');
  return {
    kind: 'pipeline',
    config: {
      stages: stages.map(({ name, budgetSeconds }) => ({ name, budgetSeconds: budgetSeconds ?? null })),
      ...options,
    },
    budgetSeconds: options.budgetSeconds,
    run: (context) => runStages(context, stages),
  };
}

async function runStages(context: RecipeContext, stages: readonly PipelineStage[]): Promise<StageResults> {
  const results: Record<string, unknown> = {};
  for (const { name, budgetSeconds, make } of stages) {
    const stage = context.innerName(name);
    const known = context.stageState(stage);
    if (known?.result !== undefined) {
      results[name] = known.result;
      context.stageRestored(stage);
      continue;
    }
    const recipe = await make(results);
    const bound = Math.min(budgetSeconds ?? Infinity, recipe.budgetSeconds ?? Infinity);
    results[name] = await context.runStage(stage, {
      kind: recipe.kind,
      config: recipe.config,
      ...(bound === Infinity ? {} : { budgetSeconds: bound }),
      run: (inner) => recipe.run(inner),
    });
  }
  return results;
}
