/** What a train job tells while it runs: plain data, noun-verb names, in the order things happened. */
import type { EvaluationResult } from './evaluate.js';
import type { ScorerResult } from './evaluate-scorer.js';
import type { SelectEvaluationResult } from './select-evaluation.js';

export interface StageStart {
  type: 'stage-start';
  stage: string;
  recipe: string;
  budgetSeconds: number | null;
}

/** One optimizer step. `metrics` holds everything under the field's names. */
export interface StepEnd {
  type: 'step-end';
  stage: string;
  /** Steps of this stage done so far, and planned; the plan may shrink once to fit the budget. */
  step: number;
  totalSteps: number;
  loss: number;
  /** Mean reward; null in supervised stages. */
  reward: number | null;
  learningRate: number;
  gradNorm: number;
  /** False when the gradient was not finite and the step was left out. */
  applied: boolean;
  tokensPerSecond: number;
  stepSeconds: number;
  /** Estimate for this stage. */
  secondsLeft: number | null;
  metrics: Record<string, number>;
}

/** Items sampled and marked, in rejection sampling and evaluations. */
export interface SamplingProgress {
  type: 'sampling-progress';
  stage: string;
  purpose: string;
  done: number;
  total: number;
  /** Share marked correct so far. */
  accuracy: number;
  tokensPerSecond: number;
  secondsLeft: number | null;
}

export interface EvaluationEnd {
  type: 'evaluation-end';
  stage: string;
  name: string;
  step: number;
  result: EvaluationResult;
}

/** A scorer was evaluated on pairs. */
export interface ScoringEnd {
  type: 'scoring-end';
  stage: string;
  name: string;
  step: number;
  result: Omit<ScorerResult, 'scores'>;
  /** 1 or 0 by id of each pair with a preference: whether it has the higher score. */
  marks: Record<string, number>;
}

/** Test-time selection was compared with pass@1 and majority vote. */
export interface SelectionEnd {
  type: 'selection-end';
  stage: string;
  name: string;
  step: number;
  result: Omit<SelectEvaluationResult, 'marks'>;
  marks: SelectEvaluationResult['marks'];
}

export interface CheckpointSaved {
  type: 'checkpoint-saved';
  stage: string;
  step: number;
  folder: string;
}

/** Something the reader of a log should know: a shortened plan, a rewind, a routed pool. */
export interface NoteTaken {
  type: 'note-taken';
  stage: string;
  message: string;
  fields: Record<string, number | string | boolean | null>;
}

export interface StageEnd {
  type: 'stage-end';
  stage: string;
  seconds: number;
  tokensPerSecond: number | null;
  /** True when the stage was already complete in the run that is resumed. */
  restored: boolean;
}

export interface RunEnd {
  type: 'run-end';
  reason: 'finished' | 'stopped';
  seconds: number;
}

export type TrainEvent =
  | StageStart
  | StepEnd
  | SamplingProgress
  | EvaluationEnd
  | ScoringEnd
  | SelectionEnd
  | CheckpointSaved
  | NoteTaken
  | StageEnd
  | RunEnd;

const isTrainEvent: Readonly<Record<TrainEvent['type'], true>> = {
  'stage-start': true,
  'step-end': true,
  'sampling-progress': true,
  'evaluation-end': true,
  'scoring-end': true,
  'selection-end': true,
  'checkpoint-saved': true,
  'note-taken': true,
  'stage-end': true,
  'run-end': true,
};

/** The name of every event, for readers that dispatch on it. */
export const trainEventTypes = Object.keys(isTrainEvent) as readonly TrainEvent['type'][];
