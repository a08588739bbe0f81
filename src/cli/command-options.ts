/** What commander hands to each command. */

export interface SampleCommandOptions {
  model: string;
  input?: string;
  prompt?: string;
  image: string[];
  video: string[];
  group: number;
  maxNewTokens: number;
  temperature: number;
  topP?: number;
  topK?: number;
  minP?: number;
  stop: string[];
  seed: number;
  threads?: number;
  json: boolean;
}

export interface LogprobsCommandOptions {
  model: string;
  input: string;
  temperature: number;
  entropy?: boolean;
}

export interface ExportCommandOptions {
  model: string;
  out: string;
  merge?: boolean;
  dtype?: string;
  base?: string;
  license?: string;
  json: boolean;
}

export interface InspectCommandOptions {
  promptTokens?: number;
  maxNewTokens?: number;
  group: number;
  json: boolean;
}

export interface JudgeCommandOptions {
  model: string;
  prompt: string;
  task?: string;
  answer: string[];
  direct?: boolean;
  image: string[];
  video: string[];
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
