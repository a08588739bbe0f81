/**
 * The quickstart: a judge that reasons, from random weights, in minutes. Perception, cold start (stopping where accuracy has
 * left chance), rejection sampling, GRPO; each tested on artists it has and has not seen. Resumable at every checkpoint.
 */
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { createEngine } from '../engine/engine.js';
import { evaluate, type EvaluateOptions, type EvaluationResult } from '../recipes/evaluate.js';
import type { TrainEvent } from '../recipes/events.js';
import type { GrpoOptions } from '../recipes/grpo.js';
import { train, type TrainJob } from '../recipes/job.js';
import { pipeline, type PipelineStage, type StageResults } from '../recipes/pipeline.js';
import { Policy } from '../recipes/policy.js';
import type { RejectionOptions } from '../recipes/rejection.js';
import { sft, type SftOptions } from '../recipes/sft.js';
import { unifiedRewardThinkStages } from '../recipes/unified-reward-think.js';
import { guarded } from '../runs/file-errors.js';
import { RunFolder } from '../runs/run-folder.js';
import type { RunSummary } from '../runs/summary.js';
import { loadEmojiBank } from './bank.js';
import { QuickstartData } from './quickstart-data.js';
import { reportQuickstart } from './quickstart-report.js';
import { type JudgeModelShape, writeJudgeFolder } from './vocabulary.js';

/** Everything a quickstart does, by number; recipes fill in the rest. */
export interface QuickstartPlan {
  readonly shape: JudgeModelShape;
  readonly dtype: 'fp32' | 'bf16';
  /** Wall-clock bound of all stages; the stages' own bounds may sum to more, so that a slow one can borrow. */
  readonly budgetSeconds: number;
  /** Test items a stage, and validation items. */
  readonly test: { readonly seen: number; readonly unseen: number };
  readonly validationItems: number;
  readonly evaluation: EvaluateOptions;
  readonly perception: { readonly items: number; readonly testItems: number; readonly options: SftOptions };
  readonly coldStart: { readonly items: number; readonly directEvery: number; readonly options: SftOptions };
  readonly rejection: {
    readonly items: number;
    readonly directEvery: number;
    readonly options: RejectionOptions;
    /** Whose pictures the labelled pool shows. Default: all, those without rationales too. */
    readonly artists?: 'all' | 'seen';
  };
  readonly grpo: { readonly options: GrpoOptions };
}

export interface QuickstartOptions {
  /** Run folder. */
  out: string;
  seed: number;
  plan: QuickstartPlan;
  /** Continue the run in `out` at its last checkpoint. Otherwise a run that is there is moved aside. */
  resume?: boolean;
  threads?: number;
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
  /** Gets the job once it runs, to stop it gracefully. */
  onJob?: (job: TrainJob<StageResults>) => void;
  /** Further lines for the reader. */
  onNote?: (text: string) => void;
}

export type QuickstartResult =
  | { stopped: true; checkpoint: string | null }
  | {
      stopped: false;
      summary: RunSummary;
      /** Folder of the final weights, and files that were made beside. */
      finalFolder: string;
      pagePath: string;
      /** What to type next. */
      judgeArguments: string[];
    };

const stageNames = ['perception', 'cold-start', 'rejection', 'grpo'] as const;

/** Runs or resumes the quickstart. Errors: those of the recipes ('gate_refused' among them) and of the run folder. */
export async function runQuickstart(options: QuickstartOptions): Promise<QuickstartResult> {
  const { out, seed, plan, resume = false, signal, onEvent, onJob } = options;
  if (!resume) await moveAside(out, options.onNote);
  const bank = await loadEmojiBank();
  await using data = new QuickstartData(
    bank,
    seed,
    plan.rejection.artists === 'seen' ? bank.seenArtists : bank.artists,
  );
  const modelFolder = join(out, 'model');
  await guarded('write', modelFolder, () => writeJudgeFolder(modelFolder, bank.words, plan.shape));
  await using engine = await createEngine({
    device: 'cpu',
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  const config = JSON.parse(await readFile(join(modelFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
  const model = await engine.createModel(config, { dtype: plan.dtype, seed, companions: modelFolder });
  await using policy = await Policy.open(model, modelFolder, { threads: 1 });
  await using run = await RunFolder.open(out, { kind: 'quickstart', seed, plan }, { resume });
  const clock = new Map<string, { seconds: number; tokensPerSecond: number | null }>();
  const startedMs = performance.now();
  const job = train(policy, pipeline(stagesOf(data, plan, seed), { budgetSeconds: plan.budgetSeconds }), {
    run,
    stage: 'quickstart',
    ...(signal && { signal }),
  });
  onJob?.(job);
  for await (const event of job) {
    if (event.type === 'stage-end') clock.set(event.stage, event);
    onEvent?.(event);
  }
  const result = await job.result;
  if (result.stopped) return { stopped: true, checkpoint: result.checkpoint };
  const finalFolder = join(out, 'final');
  await model.exportHf(finalFolder);
  return {
    stopped: false,
    finalFolder,
    ...(await reportQuickstart({
      run,
      policy,
      data,
      plan,
      seed,
      signal,
      clock,
      startedMs,
      finalFolder,
      results: result.value,
      stageNames,
    })),
  };
}

/** Perception, then UnifiedReward-Think; each stage is followed by the test of what it made. */
function stagesOf(data: QuickstartData, plan: QuickstartPlan, seed: number): PipelineStage[] {
  const evaluation = { ...plan.evaluation, seed };
  const { perception, coldStart } = plan;
  return [
    {
      name: 'perception',
      make: () => sft({ data: data.looks(perception.items), options: { ...perception.options, seed } }),
    },
    {
      name: 'perception-test',
      make: () => evaluate({ ...data.lookTest(perception.testItems, perception.testItems), options: evaluation }),
    },
    ...unifiedRewardThinkStages({
      coldStart: data.rationales(coldStart.items, coldStart.directEvery),
      pool: data.pool(plan.rejection.items),
      isSound: data.isSound,
      alsoTrain: (kept) => data.poolDirect(kept, plan.rejection.directEvery),
      validation: { ...data.validation(plan.validationItems), options: evaluation },
      test: { ...data.test(plan.test.seen, plan.test.unseen), options: evaluation },
      options: {
        coldStart: { ...coldStart.options, seed },
        rejection: { ...plan.rejection.options, seed },
        grpo: { ...plan.grpo.options, seed },
      },
    }),
  ];
}

/** Test result of a stage; absent when the stage has none. */
export function testResult(results: StageResults, stage: string): EvaluationResult | undefined {
  return results[`${stage}-test`] as EvaluationResult | undefined;
}

/** A run that is there already keeps its files under another name: nothing is ever deleted. */
async function moveAside(out: string, onNote: ((text: string) => void) | undefined): Promise<void> {
  if (!existsSync(join(out, 'config.json')))
    return guarded('make', out, async () => void (await mkdir(out, { recursive: true })));
  let number = 1;
  while (existsSync(`${out}.${number}`)) number++;
  await guarded('move', out, () => rename(out, `${out}.${number}`));
  onNote?.(`An earlier run was moved to ${out}.${number}. (To continue it instead, use --resume.)`);
  await guarded('make', out, async () => void (await mkdir(out, { recursive: true })));
}
