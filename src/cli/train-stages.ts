/** The stages of run.yaml as recipes: their data opened, their judge and validation made. */
import { openData, openPairs, type DataConfig, type OpenedData, type OpenedPairs } from '../data/open-data.js';
import type { PairDataset } from '../data/pairs.js';
import { accuracyReward } from '../rewards/accuracy.js';
import { formatReward } from '../rewards/format.js';
import { verifierByName } from '../rewards/verifier.js';
import { datasetPart } from '../recipes/dataset-part.js';
import { dpo } from '../recipes/dpo.js';
import { evaluate, type Evaluator } from '../recipes/evaluate.js';
import { evaluateScorerRecipe } from '../recipes/evaluate-scorer.js';
import { fileEvaluationSet } from '../recipes/file-evaluation-set.js';
import { grpo } from '../recipes/grpo.js';
import type { Recipe } from '../recipes/job.js';
import { joint } from '../recipes/joint.js';
import { defaultJudge, type Judge } from '../recipes/judge.js';
import type { StageResults } from '../recipes/pipeline.js';
import { answerJudge, questionSet } from '../recipes/question-set.js';
import { r3v, type R3vResult } from '../recipes/r3v.js';
import { dpoPairsOf } from '../recipes/r3v-pairs.js';
import { r3vPrompts, type R3vPrompts } from '../recipes/r3v-prompts.js';
import { rejection, type RejectionResult } from '../recipes/rejection.js';
import type { RunStage } from '../recipes/run-config.js';
import { selectEvaluation } from '../recipes/select-evaluation.js';
import { sft } from '../recipes/sft.js';
import { unifiedRewardThink } from '../recipes/unified-reward-think.js';
import type { SamplePool } from '../runs/sample-pool.js';

type Of<R extends RunStage['recipe']> = Extract<RunStage, { recipe: R }>;
type Validation = NonNullable<Of<'sft'>['validation']>;

/** Data of a run, closed with it. */
export class OpenFiles implements AsyncDisposable {
  readonly #open: (OpenedData | OpenedPairs)[] = [];
  readonly #resolvePath: (path: string) => string;
  readonly #signal: AbortSignal;

  constructor(resolvePath: (path: string) => string, signal: AbortSignal) {
    this.#resolvePath = resolvePath;
    this.#signal = signal;
  }

  rows(config: DataConfig): Promise<OpenedData> {
    return this.#kept(openData(config, this.#options()));
  }

  pairs(config: DataConfig): Promise<OpenedPairs> {
    return this.#kept(openPairs(config, this.#options()));
  }

  #options(): { resolvePath: (path: string) => string; signal: AbortSignal } {
    return { resolvePath: this.#resolvePath, signal: this.#signal };
  }

  async #kept<T extends OpenedData | OpenedPairs>(opening: Promise<T>): Promise<T> {
    const data = await opening;
    this.#open.push(data);
    if (data.numSkipped > 0) {
      const first = data.skipped.slice(0, 3).map(({ line, reason }) => `line ${line}: ${reason}`);
      process.stderr.write(`${data.name}: ${data.numSkipped} bad rows left out (${first.join('; ')}).\n`);
    }
    return data;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const data of this.#open.splice(0)) await data.dispose();
  }
}

/** What a stage is made from. */
export interface StageParts {
  /** Of the stages before it. */
  results: StageResults;
  files: OpenFiles;
  /** Every stage of the run, and the pool that they mark: needed where needsEarlier() says so. */
  stages: readonly RunStage[];
  pool?: SamplePool;
  signal: AbortSignal;
}

/** Whether a stage is made from what earlier ones found. */
export const needsEarlier = (stage: RunStage): boolean =>
  (stage.recipe === 'grpo' && stage.hardOf !== undefined) || (stage.recipe === 'dpo' && stage.pairsOf !== undefined);

/** The recipe of a stage, given the results of those before it. Errors: those of its files. */
export async function stageRecipe(stage: RunStage, parts: StageParts): Promise<Recipe<unknown>> {
  const { results, files } = parts;
  const pairwise = async ({ bothOrders, ...settings }: Validation): Promise<Evaluator> => {
    const { source, options } = splitValidation(settings);
    return { set: fileEvaluationSet(await files.rows(source), { bothOrders }), judge: judgeOf(stage), options };
  };
  const validationOf = async (settings: Validation | undefined): Promise<{ validation?: Evaluator }> =>
    settings === undefined ? {} : { validation: await pairwise(settings) };
  const judge = judgeOf(stage);
  switch (stage.recipe) {
    case 'sft':
      return sft({
        data: await files.rows(stage.data),
        options: stage.options,
        ...(await validationOf(stage.validation)),
      });
    case 'rejection':
      return rejection({
        data: await files.rows(stage.data),
        judge,
        options: stage.options,
        ...(await validationOf(stage.validation)),
      });
    case 'grpo': {
      const all = await files.rows(stage.data);
      const hard = stage.hardOf === undefined ? undefined : (results[stage.hardOf] as RejectionResult).hard;
      const data = hard === undefined ? all : datasetPart(all, `${all.name} hard`, hard);
      return grpo({ data, judge, options: stage.options, ...(await validationOf(stage.validation)) });
    }
    case 'unified-reward-think':
      return unifiedRewardThink({
        coldStart: await files.rows(stage.coldStart),
        pool: await files.rows(stage.pool),
        judge,
        validation: await pairwise(stage.validation!),
        ...(stage.test === undefined ? {} : { test: await pairwise(stage.test) }),
        options: stage.options,
      });
    case 'dpo': {
      const { options, validation } = stage;
      if (stage.pairsOf === undefined) {
        return dpo({ data: await files.pairs(stage.data!), options, ...(await validationOf(validation)) });
      }
      const { source, data } = await pairsOf(stage.pairsOf, parts);
      const asked = answerJudge(stage.verifier, stage.answer);
      const set = validation === undefined ? undefined : await questions(files, validation, promptsOf(source), asked);
      return dpo({ data, options, ...(set && { validation: set }) });
    }
    case 'joint':
      return joint({
        data: await files.pairs(stage.data),
        ...(stage.validation === undefined ? {} : { validation: await files.pairs(stage.validation) }),
        options: stage.options,
      });
    case 'r3v': {
      const prompts = promptsOf(stage);
      return r3v({
        data: await files.rows(stage.data),
        ...(stage.warmUp === undefined ? {} : { warmUp: await files.rows(stage.warmUp) }),
        ...(stage.validation === undefined
          ? {}
          : { validation: await questions(files, stage.validation, prompts, judge) }),
        judge,
        prompts,
        options: stage.options,
      });
    }
    case 'select-evaluation':
      return selectEvaluation({
        data: await files.rows(stage.data),
        judge,
        prompts: promptsOf(stage),
        options: stage.options,
      });
    case 'evaluate': {
      if (stage.ask === undefined) return evaluate(await pairwise(stage.data));
      return evaluate(await questions(files, stage.data, promptsOf(stage), judge, stage.ask));
    }
    case 'evaluate-scorer':
      return evaluateScorerRecipe(await files.pairs(stage.data));
  }
}

/** Which part of a validation names its rows, and which says how they are sampled. */
function splitValidation({
  path,
  imageFolder,
  format,
  split,
  instruction,
  sampling,
  checkMedia,
  onBadRow,
  ...options
}: Omit<Validation, 'bothOrders'>): { source: DataConfig; options: NonNullable<Evaluator['options']> } {
  const optional = Object.entries({ imageFolder, format, split, instruction }).filter(
    ([, value]) => value !== undefined,
  );
  return { source: { path, sampling, checkMedia, onBadRow, ...Object.fromEntries(optional) }, options };
}

/** Validation by questions: there are no two candidates to exchange. */
async function questions(
  files: OpenFiles,
  { bothOrders: _, ...settings }: Validation,
  prompts: R3vPrompts,
  judge: Judge,
  ask: 'rationale' | 'direct' | 'both' = 'rationale',
): Promise<Evaluator> {
  const { source, options } = splitValidation(settings);
  return { set: questionSet(await files.rows(source), { prompts, ask }), judge, options };
}

/** Pairs of what an r3v stage drew, under the prompts it was asked with. */
async function pairsOf(
  name: string,
  { results, files, stages, pool, signal }: StageParts,
): Promise<{ source: Of<'r3v'>; data: PairDataset }> {
  const source = stages.find((stage): stage is Of<'r3v'> => stage.recipe === 'r3v' && stage.name === name)!;
  const data = await files.rows(source.data);
  const result = results[name] as R3vResult;
  return { source, data: await dpoPairsOf(result, { pool: pool!, data, prompts: promptsOf(source), signal }) };
}

/** Prompts that ask for answers as the verifier reads them; where it reads both forms, for tags. */
const promptsOf = ({ answer }: Of<'r3v' | 'select-evaluation' | 'evaluate'>): R3vPrompts =>
  r3vPrompts(answer === 'either' ? 'tags' : answer);

function judgeOf(stage: RunStage): Judge {
  if (!('verifier' in stage)) return defaultJudge;
  const isQuestions = stage.recipe === 'evaluate' && stage.ask !== undefined;
  if (isQuestions || stage.recipe === 'r3v' || stage.recipe === 'select-evaluation')
    return answerJudge(stage.verifier, stage.answer);
  const verifier = verifierByName(stage.verifier, stage.answer);
  if (stage.recipe !== 'grpo') return { ...defaultJudge, verifier };
  const rewards = [
    { name: 'format', reward: formatReward(), weight: stage.rewards.format },
    { name: 'accuracy', reward: accuracyReward(verifier), weight: stage.rewards.accuracy },
  ];
  return { ...defaultJudge, verifier, rewards: rewards.filter(({ weight }) => weight !== 0) };
}
