/** `gavel inspect`: what a checkpoint holds and what running it takes. */
import { describeCheckpoint, type CheckpointDescription } from '../engine/describe-checkpoint.js';
import { modelParts } from '../engine/tensor-parts.js';
import { estimateMemory, type MemoryEstimate } from '../engine/estimate-memory.js';
import type { JsonObject } from '../engine/model-config.js';
import { GavelError } from '../errors.js';
import type { InspectCommandOptions } from './command-options.js';
import { exitCodes } from './exit-codes.js';
import { modelOf } from './open-policy.js';
import { print, printJson } from './terminal.js';

const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

export function formatBytes(bytes: number): string {
  const step = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${step === 0 ? bytes : (bytes / 1024 ** step).toFixed(step === 1 ? 0 : 2)} ${units[step]}`;
}

const grouped = (value: number): string => value.toLocaleString('en-US');

/** The report as lines. */
export function inspectLines(found: CheckpointDescription): string[] {
  const { parameters, dtypes, files } = found;
  const lines: string[] = [];
  const row = (name: string, value: string): number => lines.push(`${name.padEnd(16)}  ${value}`);
  row(found.kind, found.name);
  if (found.path !== found.name) row('folder', found.path);
  if (found.kind === 'adapter') row('base model', found.base ?? 'not named');
  else row('family', `${found.family ?? 'none named'}${found.supported ? '' : ' (not supported)'}`);
  if (found.reason !== null) row('', found.reason);
  if (found.contextLength !== null) row('context', `${grouped(found.contextLength)} tokens`);
  if (found.vocabularySize !== null) row('vocabulary', `${grouped(found.vocabularySize)} tokens`);
  if (found.layers !== null) row('layers', `${found.layers}, width ${found.hiddenSize ?? '?'}`);
  if (found.problem !== null) row('BROKEN', found.problem);
  row('parameters', grouped(parameters.total));
  for (const part of modelParts) if (parameters[part] > 0) row(`  ${part}`, grouped(parameters[part]));
  if (found.tiedHead && parameters.head === 0) row('  head', 'the embedding');
  row('weights', formatBytes(found.sizeBytes));
  for (const [dtype, { tensors, sizeBytes }] of Object.entries(dtypes)) {
    row(`  ${dtype}`, `${tensors} tensors, ${formatBytes(sizeBytes)}`);
  }
  if (found.kind === 'adapter') return lines;
  row('tokenizer', files.tokenizer ?? 'MISSING: tokenizer.json');
  row('chat template', files.chatTemplate ?? 'MISSING: chat_template.jinja');
  if (parameters.vision > 0) row('image processor', files.imageProcessor ?? 'MISSING: preprocessor_config.json');
  if (files.videoProcessor !== null) row('video processor', files.videoProcessor);
  return lines;
}

/** What the estimates are for, said in words and planned by the engine. */
interface Workload {
  promptTokens: number;
  maxNewTokens: number;
  group: number;
}

interface Need {
  work: string;
  memory: MemoryEstimate;
}

async function needsOf(config: JsonObject, { promptTokens, maxNewTokens, group }: Workload): Promise<Need[]> {
  const training = { completions: group, completionTokens: maxNewTokens, activationCheckpointing: true };
  const sampling = { completions: group, maxNewTokens };
  const cases = [
    { work: 'sampling', options: { sampling } },
    { work: 'GRPO, LoRA', options: { sampling, training: { ...training, reference: true }, lora: { rank: 16 } } },
    { work: 'GRPO, full', options: { sampling, training: { ...training, reference: true } } },
  ];
  const needs: Need[] = [];
  for (const { work, options } of cases) {
    needs.push({ work, memory: await estimateMemory(config, { promptTokens, ...options }) });
  }
  return needs;
}

function needLines(needs: readonly Need[], { promptTokens, maxNewTokens, group }: Workload): string[] {
  const about = `one prompt of ${promptTokens} tokens, ${group} completions of ${maxNewTokens}, blocks recomputed`;
  const lines = [`memory need for ${about}`];
  for (const { work, memory } of needs) {
    const { weightBytes, gradientBytes, optimizerBytes, activationBytes, promptCacheBytes } = memory;
    const { scratchBytes, referenceBytes } = memory;
    const samplingBytes = memory.kvBytes + memory.samplingBytes;
    const parts = [
      ...[
        ['weights', weightBytes],
        ['gradients', gradientBytes],
        ['optimizer', optimizerBytes],
      ],
      ...[
        // They take turns.
        activationBytes > samplingBytes ? ['activations', activationBytes] : ['sampling', samplingBytes],
        ['kept prompts', promptCacheBytes],
        ['scratch', scratchBytes],
        ['reference', referenceBytes],
      ],
    ] as [string, number][];
    const named = parts.filter(([, bytes]) => bytes > 0).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
    lines.push(`  ${work.padEnd(14)}  ${formatBytes(memory.totalBytes)}: ${named.join(', ')}`);
  }
  return lines;
}

/** Returns the exit status: failure for a checkpoint whose weights are not those of its config. */
export async function inspectCommand(name: string, options: InspectCommandOptions): Promise<number> {
  const found = await describeCheckpoint(await modelOf(name));
  const context = found.contextLength ?? Infinity;
  const workload = {
    promptTokens: options.promptTokens ?? Math.min(1024, Math.floor(context / 2)),
    maxNewTokens: options.maxNewTokens ?? Math.min(512, Math.floor(context / 2)),
    group: options.group,
  };
  let needs: Need[] | null = null;
  try {
    if (found.config !== null && found.supported) needs = await needsOf(found.config, workload);
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    // The engine's own word on a config; without an addon only the plan is missing.
    if (error.code !== 'binary_missing') found.supported = false;
    found.reason = error.message;
  }
  if (options.json) printJson({ ...found, memory: needs === null ? null : { workload, needs } });
  else {
    for (const line of inspectLines(found)) print(line);
    if (needs !== null) for (const line of needLines(needs, workload)) print(line);
  }
  return found.problem === null ? exitCodes.ok : exitCodes.failure;
}
