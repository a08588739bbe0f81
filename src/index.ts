/**
 * `gavel-rl`: train and sample reward models that reason. Every public name stands here, ring by ring; what is not here is
 * internal and may change. Importing the package loads no binary: the first engine does.
 */

// Errors: one class, closed codes.
export { errorCodes, GavelError, type ErrorCode, type ErrorFields } from './errors.js';

// The engine and its models: the verbs.
export {
  createEngine,
  deviceInfo,
  Engine,
  estimateMemory,
  fuseScores,
  importGguf,
  Model,
  resolveCheckpoint,
  SampleRun,
  verbSchemas,
  type Completion,
  type CompletionInput,
  type CreateModelOptions,
  type EngineOptions,
  type EstimateMemoryOptions,
  type Group,
  type HeadFusion,
  type ImageInput,
  type LoadModelOptions,
  type Logprobs,
  type LogprobsOptions,
  type Memory,
  type MemoryEstimate,
  type ModelDtype,
  type Objective,
  type OptimizerResult,
  type OptimizerStepOptions,
  type RankingObjective,
  type ResolveOptions,
  type RewardHead,
  type RewardHeadOptions,
  type SampleOptions,
  type SampleRequest,
  type SampleStats,
  type SaveOptions,
  type ScoreOptions,
  type Scores,
  type StepOptions,
  type StepResult,
  type TensorInfo,
  type TensorKind,
} from './engine/index.js';

// Data sets, tokenizer and image processor of a checkpoint folder.
export { datasetFromRows, generatedDataset, type Dataset, type GeneratorOptions } from './data/dataset.js';
export { JsonlDataset, JsonlPairs, type BadRow, type JsonlOptions } from './data/jsonl.js';
export { ParquetDataset, ParquetPairs } from './data/parquet.js';
export { openData, openPairs, type DataConfig, type OpenedData, type OpenedPairs } from './data/open-data.js';
export { dataFormats, type DataFormat } from './data/formats.js';
export { inspectData, type DataDescription, type InspectDataOptions, type RefusedRows } from './data/inspect-data.js';
export type { Locality } from './data/local-order.js';
export { batches, type Batch, type BatchOptions, type Cursor } from './data/shuffle.js';
export {
  generatedPairs,
  pairBatches,
  pairsFromRows,
  type PairBatch,
  type PairDataset,
  type PairGeneratorOptions,
  type PairRow,
  type Preference,
} from './data/pairs.js';
export {
  exchangeCandidates,
  judgingRow,
  verdictText,
  type JudgingKind,
  type JudgingRowOptions,
  type JudgingTask,
} from './data/judging-rows.js';
export type { ChatMessage, ContentPart, ImageSource, Row, VideoSource } from './data/rows.js';
export { Processor, type EncodedRow, type ProcessorOptions } from './data/processor.js';
export type { VideoOptions } from './data/vision-processor.js';
export type { TokenBytes } from './data/token-bytes.js';
export { Tokenizer, type DecodeTextOptions, type IncrementalDecoder } from './data/tokenizer.js';
export { DataThreads, type DataThreadsOptions, type EncodeOptions } from './data/threads.js';

// Rewards and verifiers.
export { accuracyReward } from './rewards/accuracy.js';
export { computeAdvantages, type AdvantageOptions, type Advantages } from './rewards/advantages.js';
export {
  formatReward,
  hasLooseFormat,
  hasStrictFormat,
  parseCompletion,
  type ParsedCompletion,
} from './rewards/format.js';
export {
  evaluateRewards,
  type NamedReward,
  type RewardFunction,
  type RewardInput,
  type RewardTable,
} from './rewards/reward.js';
export { extractAnswer, type AnswerForm } from './rewards/answer-forms.js';
export {
  exactDigitsVerifier,
  optionLetterVerifier,
  relaxedNumericVerifier,
  tabmwpVerifier,
} from './rewards/benchmark-verifiers.js';
export { overlongPenalty } from './rewards/overlong.js';
export { parseScore, preferByScore, scoreReward, scoreVerifier } from './rewards/pointwise.js';
export { balanceOrder, swapCandidates, type SwapOptions } from './rewards/swap.js';
export {
  lenientVerifier,
  strictVerifier,
  verifierByName,
  verifierNames,
  type Verdict,
  type Verifier,
  type VerifierName,
} from './rewards/verifier.js';

// Evaluation: pure functions over judged records and scores.
export { agreementOf, type Agreement } from './evaluation/agreement.js';
export {
  bootstrapInterval,
  pairedBootstrap,
  type BootstrapOptions,
  type BootstrapResult,
} from './evaluation/bootstrap.js';
export { benchmarkNames, loadBenchmark } from './evaluation/benchmarks/load.js';
export { calibrationOf, type Calibration } from './evaluation/calibration.js';
export { preferenceProbability } from './evaluation/confidence.js';
export { effectiveRank } from './evaluation/effective-rank.js';
export { wilsonInterval, type Interval } from './evaluation/interval.js';
export { parseJudgement, type Choice, type Judgement } from './evaluation/judgement.js';
export { positionOf } from './evaluation/position.js';
export { reliabilityPlot } from './evaluation/reliability-plot.js';
export { compareSelections, majorityVote, passAtK } from './evaluation/samples.js';
export {
  evaluateScores,
  evaluateScoresWithIntervals,
  scorePairs,
  type ScoredPair,
  type ScoreEvaluation,
} from './evaluation/scores.js';
export { summarize } from './evaluation/summary.js';
export { evaluationTables, markdownTables, plainTables } from './evaluation/table.js';

// Runs on disk.
export { RunFolder, type RunOptions } from './runs/run-folder.js';
export { SamplePool, type PoolReadOptions, type SampleEntry, type SampleQuery } from './runs/sample-pool.js';
export type { MarkedSample } from './runs/marked-sample.js';
export { readRunHistory, type RunHistory } from './runs/run-history.js';
export { findRuns, readRunReport, type RunReport } from './runs/run-report.js';
export { comparisonPlots, runPlots, writePlots } from './runs/run-plots.js';
export { writeSamplesParquet } from './runs/samples-parquet.js';
export type { Checkpoint, CheckpointManifest } from './runs/checkpoints.js';

// Recipes: what `train` runs on a policy.
export { Policy, type DrawnCompletion, type DrawOptions } from './recipes/policy.js';
export { train, type Recipe, type TrainJob, type TrainOptions, type TrainResult } from './recipes/job.js';
export type { RecipeContext } from './recipes/context.js';
export { markSamples, type MarkedItem, type MarkOptions, type MarkResult } from './recipes/mark-samples.js';
export { Reference } from './recipes/reference.js';
export { stepLoop, type StepPlan } from './recipes/step-loop.js';
export { StepReporter } from './recipes/step-report.js';
export { supervisedGroup } from './recipes/policy.js';
export { sft, type SftOptions, type SftParts, type SftResult } from './recipes/sft.js';
export { rejection, type RejectionOptions, type RejectionParts, type RejectionResult } from './recipes/rejection.js';
export { grpo, type GrpoParts, type GrpoResult } from './recipes/grpo.js';
export type { GrpoOptions } from './recipes/grpo-options.js';
export {
  unifiedRewardThink,
  unifiedRewardThinkStages,
  type UnifiedRewardThinkOptions,
  type UnifiedRewardThinkParts,
} from './recipes/unified-reward-think.js';
export { dpo, type DpoOptions, type DpoParts, type DpoResult } from './recipes/dpo.js';
export { joint, type JointParts, type JointResult } from './recipes/joint.js';
export type { JointOptions } from './recipes/joint-options.js';
export { evaluateScorerRecipe, type ScorerResult } from './recipes/evaluate-scorer.js';
export { scoreRows, type RowScore, type ScoreRowsOptions } from './recipes/score-rows.js';
export { r3v, type Bootstrap, type R3vIteration, type R3vParts, type R3vResult } from './recipes/r3v.js';
export type { R3vOptions } from './recipes/r3v-options.js';
export { r3vPrompts, type R3vPrompts } from './recipes/r3v-prompts.js';
export { dpoPairs } from './recipes/r3v-pairs.js';
export { answerJudge, questionSet, type QuestionSetOptions } from './recipes/question-set.js';
export {
  selectEvaluation,
  type SelectEvaluationOptions,
  type SelectEvaluationParts,
  type SelectEvaluationResult,
} from './recipes/select-evaluation.js';
export {
  evaluate,
  type EvaluateOptions,
  type EvaluationItem,
  type EvaluationResult,
  type EvaluationSet,
  type Evaluator,
} from './recipes/evaluate.js';
export { pipeline, type PipelineStage, type StageResults } from './recipes/pipeline.js';
export { defaultJudge, type Judge } from './recipes/judge.js';
export { fileEvaluationSet, type FileEvaluationOptions } from './recipes/file-evaluation-set.js';
export { datasetPart } from './recipes/dataset-part.js';
export { jsonSchemaOf, type RunConfig, type RunStage } from './recipes/run-config.js';
export {
  trainEventTypes,
  type CheckpointSaved,
  type EvaluationEnd,
  type NoteTaken,
  type RunEnd,
  type SamplingProgress,
  type ScoringEnd,
  type StageEnd,
  type StageStart,
  type StepEnd,
  type TrainEvent,
} from './recipes/events.js';
