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
  type ResolveOptions,
  type SampleOptions,
  type SampleRequest,
  type SampleStats,
  type SaveOptions,
  type StepOptions,
  type StepResult,
  type TensorInfo,
  type TensorKind,
} from './engine/index.js';

// Data sets, tokenizer and image processor of a checkpoint folder.
export { datasetFromRows, generatedDataset, type Dataset, type GeneratorOptions } from './data/dataset.js';
export { JsonlDataset, type BadRow, type JsonlOptions } from './data/jsonl.js';
export type { ChatMessage, ContentPart, ImageSource, Row, VideoSource } from './data/rows.js';
export { Processor, type EncodedRow, type ProcessorOptions } from './data/processor.js';
export type { VideoOptions } from './data/vision-processor.js';
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

// Runs on disk.
export { RunFolder, type RunOptions } from './runs/run-folder.js';
export { SamplePool, type MarkedSample } from './runs/sample-pool.js';
export type { Checkpoint, CheckpointManifest } from './runs/checkpoints.js';

// Recipes: what `train` runs on a policy.
export { Policy, type DrawnCompletion, type DrawOptions } from './recipes/policy.js';
export { train, type Recipe, type TrainJob, type TrainOptions, type TrainResult } from './recipes/job.js';
export type { RecipeContext } from './recipes/context.js';
export { sft, type SftOptions, type SftParts, type SftResult } from './recipes/sft.js';
export { rejection, type RejectionOptions, type RejectionParts, type RejectionResult } from './recipes/rejection.js';
export { grpo, type GrpoOptions, type GrpoParts, type GrpoResult } from './recipes/grpo.js';
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
  type StageEnd,
  type StageStart,
  type StepEnd,
  type TrainEvent,
} from './recipes/events.js';
