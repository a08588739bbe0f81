/** A model's tensors to and from safetensors files: headers are made here, data moves in native code, and a signal ends it. */
import type { NativeModel, NativeTensorSink, NativeTensorSource } from '../binding/contract.js';
import type { JobRunner } from './job-runner.js';
import { writeSafetensorsHeader, type TensorPlan } from './safetensors.js';

/** Whose tensors they are, and what may end the call. */
export interface StoredModel {
  native: NativeModel;
  runner: JobRunner;
  signal?: AbortSignal | undefined;
}

export interface PlannedTensor extends NativeTensorSink {
  shape: readonly number[];
  /** Name in the file. */
  stored: string;
}

/** Writes the tensors in the order given, and syncs. */
export async function writeTensors(
  { native, runner, signal }: StoredModel,
  path: string,
  tensors: readonly PlannedTensor[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const plans = tensors.map(({ stored, dtype, shape }): TensorPlan => ({ name: stored, dtype, shape }));
  const header = new Uint8Array(writeSafetensorsHeader(plans, metadata));
  const sinks = tensors.map(({ name, kind, dtype }) => ({ name, kind, dtype }));
  await runner.run(signal, (job) => native.saveTensors(path, header, sinks, job));
}

/** Reads tensors into the model; what was read before an abort or a failure stays. */
export async function readTensors(
  { native, runner, signal }: StoredModel,
  sources: readonly NativeTensorSource[],
): Promise<void> {
  await runner.run(signal, (job) => native.loadTensors(sources, job));
}
