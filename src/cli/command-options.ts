/** What commander hands to each command. */

export interface EvalCommandOptions {
  model: string;
  data: string;
  oneOrder?: boolean;
  maxNewTokens: number;
  temperature: number;
  seed: number;
  verifier: string;
  json: boolean;
}

export interface SampleCommandOptions {
  model: string;
  data?: string;
  prompt?: string;
  image: string[];
  count: number;
  maxNewTokens: number;
  temperature: number;
  topP?: number;
  topK?: number;
  seed: number;
  json: boolean;
}

export interface LogprobsCommandOptions {
  model: string;
  data: string;
  temperature: number;
  entropy?: boolean;
  json: boolean;
}

export interface JudgeCommandOptions {
  model: string;
  prompt: string;
  image: string[];
  maxNewTokens: number;
  json: boolean;
}

export interface QuickstartCommandOptions {
  smoke?: boolean;
  out: string;
  seed: number;
  threads?: number;
  resume?: boolean;
  json: boolean;
}
