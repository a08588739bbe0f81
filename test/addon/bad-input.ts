/**
 * Bad input, one case a mistake: what is done, which code comes of it, that the message says what was expected, what was
 * received and what to do, and that nothing is lost. Through the public API and the command, as a user would.
 */
import { spawnSync } from 'node:child_process';
import { chmod, cp, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  createEngine,
  datasetFromRows,
  GavelError,
  Policy,
  sft,
  train,
  type ErrorCode,
  type Evaluator,
  type Model,
  type Row,
} from '../../src/index.js';
import { sameBits, temporaryFolder, textFolder, textGroup } from './model-fixture.js';

export const command = join(import.meta.dirname, '../../dist/cli/main.js');
export const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

export interface Failure {
  code: string;
  message: string;
  /** Of the command; null where the API was called. */
  exitCode: number | null;
}

/** The typed error of a call. */
export async function failureOf(action: () => unknown): Promise<Failure> {
  try {
    await action();
  } catch (error) {
    if (GavelError.is(error)) return { code: error.code, message: error.message, exitCode: null };
    throw error;
  }
  throw new Error('expected a GavelError but nothing was thrown');
}

/** The typed error of a command, from its exit code and the end of what it says on standard error. */
export function failureOfCommand(
  args: readonly string[],
  options: { uid?: number; gid?: number; env?: Record<string, string> } = {},
): Failure {
  const { env, ...user } = options;
  const { status, stderr } = spawnSync(process.execPath, [command, ...args], {
    encoding: 'utf8',
    ...user,
    env: { ...process.env, ...env },
  });
  const said = /gavel: ([\s\S]*) \[(\w+)\]\s*$/.exec(stderr);
  if (said === null) throw new Error(`the command ended with ${status} and said: ${stderr}`);
  return { code: said[2]!, message: said[1]!, exitCode: status };
}

export const word: Row = { id: 'a', prompt: 'which one', images: [], completion: 'this one' };
export const picture = (images: Row['images'], prompt = '<image> which one'): Row => ({ ...word, prompt, images });
export const steps = { steps: 1, batchSize: 1, learningRate: 1e-3 } as const;
export const validation = (rows: readonly Row[]): Evaluator => ({
  set: { name: 'validation', size: rows.length, item: async (i) => ({ row: rows[i]!, unseen: false }) },
  options: { maxNewTokens: 2 },
});
export const rollouts = { groupSize: 2, promptsPerStep: 1, steps: 1, maxCompletionLength: 4, gate: { enabled: false } };

export const nameOf = (model: Model): string => model.tensors().at(-1)!.name;

/** Runs `use` on a policy and demands that its weights are afterwards what they were. */
export async function withPolicy(
  folder: string,
  use: (policy: Policy) => Promise<unknown>,
  limits = {},
): Promise<void> {
  await using model = await engine.loadModel(folder);
  const before = await model.readTensor(nameOf(model));
  await using policy = await Policy.open(model, folder, { threads: 1, ...limits });
  try {
    await use(policy);
  } finally {
    expect(sameBits(await model.readTensor(nameOf(model)), before)).toBe(true);
  }
}

export const trainOn = (folder: string, row: Row, limits = {}): Promise<void> =>
  withPolicy(
    folder,
    (policy) => train(policy, sft({ data: datasetFromRows('rows', [row]), options: steps })).result,
    limits,
  );

/** Runs `use` on a model that has learnt something, and demands that it has forgotten nothing. */
export async function withTrained(use: (model: Model) => Promise<unknown>): Promise<void> {
  await using model = await engine.loadModel(textFolder);
  await model.forwardBackward([textGroup()], [{ kind: 'nll' }]);
  await model.optimizerStep({ learningRate: 1e-3 });
  const kinds = ['value', 'moment1'] as const;
  const before = await Promise.all(kinds.map((kind) => model.readTensor(nameOf(model), kind)));
  try {
    await use(model);
  } finally {
    for (const [i, kind] of kinds.entries())
      expect(sameBits(await model.readTensor(nameOf(model), kind), before[i]!)).toBe(true);
    expect(model.optimizerSteps).toBe(1);
    // What failed has left no gradient behind.
    expect((await model.optimizerStep({ learningRate: 1e-3 })).gradNorm).toBe(0);
  }
}

/** A copy of a checkpoint folder with something wrong. */
export async function brokenCopy(from: string, spoil: (folder: string) => Promise<unknown>): Promise<string> {
  const folder = join(await temporaryFolder(), 'model');
  await cp(from, folder, { recursive: true });
  await spoil(folder);
  return folder;
}

export async function editJson(path: string, change: (value: any) => unknown): Promise<void> {
  const value: unknown = JSON.parse(await readFile(path, 'utf8'));
  await writeFile(path, JSON.stringify(change(value) ?? value));
}

/** A run.yaml beside its data; `text` replaces parts of it. */
export async function configuration(text: { model?: string; stage?: string; data?: string } = {}): Promise<string> {
  const folder = await temporaryFolder();
  await chmod(folder, 0o755);
  await writeFile(
    join(folder, 'data.jsonl'),
    text.data ?? Array.from({ length: 4 }, (_, i) => JSON.stringify({ ...word, id: `row ${i}` })).join('\n'),
  );
  const stage = text.stage ?? 'recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 1, batchSize: 2 }';
  await writeFile(
    join(folder, 'run.yaml'),
    `run: run\nmodel:\n  path: ${textFolder}\n  ${text.model ?? 'trainable: all'}\nengine: { threads: 1 }\n` +
      `stages:\n  - name: only\n    ${stage}\n`,
  );
  return join(folder, 'run.yaml');
}

export const spoilHeader = async (folder: string): Promise<void> => {
  const path = join(folder, 'model.safetensors');
  const bytes = await readFile(path);
  bytes.write('no json', 8);
  await writeFile(path, bytes);
};
export const cutShort = (folder: string): Promise<void> => truncate(join(folder, 'model.safetensors'), 300_000);

// Root may write anywhere: there the command runs as nobody, who must be able to read this checkout and run this Node.
export const isRoot = process.getuid?.() === 0;
export const nobody = { uid: 65534, gid: 65534 };
export const nobodyCanRun = (): boolean =>
  spawnSync(process.execPath, ['-e', `require('fs').accessSync(${JSON.stringify(command)})`], nobody).status === 0;

export interface Mistake {
  what: string;
  /** Why it cannot be made here. */
  impossible?: () => string | undefined;
  make: () => Promise<Failure>;
  code: ErrorCode;
  exitCode?: number;
  expected: RegExp;
  received: RegExp;
  advice: RegExp;
}

/** Every case of a list as a test of its own. */
export function describeMistakes(name: string, mistakes: readonly Mistake[]): void {
  describe(`bad input: ${name}`, () => {
    it.for(mistakes.map((mistake) => [mistake.what, mistake] as const))('%s', async ([, mistake], context) => {
      const obstacle = mistake.impossible?.();
      if (obstacle !== undefined) context.skip(obstacle);
      const { code, message, exitCode } = await mistake.make();
      expect({ code, exitCode }, message).toEqual({ code: mistake.code, exitCode: mistake.exitCode ?? null });
      for (const part of ['expected', 'received', 'advice'] as const) expect(message, part).toMatch(mistake[part]);
    });
  });
}

interface StoredTensor {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Rewrites the header of a checkpoint's weights; `change` may also return other data. */
export async function editTensors(
  folder: string,
  change: (tensors: Record<string, StoredTensor>, data: Buffer) => Buffer | void,
): Promise<void> {
  const path = join(folder, 'model.safetensors');
  const bytes = await readFile(path);
  const end = 8 + Number(bytes.readBigUInt64LE());
  const header = JSON.parse(bytes.toString('utf8', 8, end)) as Record<string, StoredTensor>;
  const data = change(header, bytes.subarray(end)) ?? bytes.subarray(end);
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(path, Buffer.concat([length, text, data]));
}

/** The tensor that lies last in a file, so that it can be dropped without a gap. */
export const lastTensor = (tensors: Record<string, StoredTensor>): string =>
  Object.entries(tensors)
    .filter(([name]) => name !== '__metadata__')
    .sort(([, a], [, b]) => a.data_offsets[1] - b.data_offsets[1])
    .at(-1)![0];
