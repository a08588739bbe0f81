/** The engine ring's public names. */
export { createEngine, deviceInfo, Engine } from './engine.js';
export type { EngineDevice } from './device.js';
export { importGguf } from './gguf-import.js';
export { estimateMemory, type EstimateMemoryOptions, type MemoryEstimate } from './estimate-memory.js';
export { resolveCheckpoint, type ResolveOptions } from './hub.js';
export {
  Model,
  type CompletionInput,
  type Group,
  type ImageInput,
  type Logprobs,
  type LogprobsOptions,
  type Memory,
  type OptimizerResult,
  type SampleOptions,
  type SampleRequest,
  type ScoreOptions,
  type StepOptions,
  type StepResult,
  type TensorInfo,
  type TensorKind,
} from './model.js';
export type { ModelDtype } from './model-config.js';
export {
  verbSchemas,
  type CreateModelOptions,
  type EngineOptions,
  type LoadModelOptions,
  type Objective,
  type OptimizerStepOptions,
  type SaveOptions,
} from './options.js';
export type { RankingObjective } from './ranking-objective.js';
export type { HeadFusion, RewardHead, RewardHeadOptions } from './reward-head.js';
export { fuseScores, type Scores } from './scores.js';
export { SampleRun, type Completion, type SampleStats } from './sample-run.js';
