// What a command's model may be called, what is said of one that is broken, and where its output cannot be written.
import { spawnSync } from 'node:child_process';
import { existsSync, openSync, closeSync } from 'node:fs';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, datasetFromRows, Policy, RunFolder, sft, train } from '../../src/index.js';
import {
  brokenCopy,
  command,
  editTensors,
  failureOf,
  failureOfCommand,
  lastTensor,
  picture,
  trainOn,
} from './bad-input.js';
import { temporaryFolder, textFolder, visionFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const gavel = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' });

/** A run that has trained for three steps; its final weights stand in `final` when asked for. */
async function runFolder({ final }: { final: boolean }): Promise<string> {
  const path = join(await temporaryFolder(), 'run');
  await using model = await engine.loadModel(textFolder);
  await using policy = await Policy.open(model);
  await using run = await RunFolder.open(path, { run: 'run' });
  const data = datasetFromRows('rows', [{ id: 'a', prompt: 'which one', images: [], completion: 'this one' }]);
  await train(policy, sft({ data, options: { steps: 3, batchSize: 1, learningRate: 1e-3 } }), { run, stage: 'only' })
    .result;
  if (final) await model.exportHf(join(path, 'final'));
  return path;
}

describe('a run folder as a model', () => {
  it.each([true, false])('is its final weights, else its last checkpoint (final: %s)', async (final) => {
    const run = await runFolder({ final });
    const input = join(await temporaryFolder(), 'rows.jsonl');
    await writeFile(input, JSON.stringify({ id: 'a', prompt: 'which one', completion: 'this one' }));
    const exported = join(await temporaryFolder(), 'exported');
    expect(gavel('export', '--model', run, '--out', exported)).toMatchObject({ status: 0 });
    const scores = (model: string): string => gavel('logprobs', '--model', model, '--input', input).stdout;
    expect(scores(run)).toMatch(/"logprobs"/);
    expect(scores(run)).toBe(scores(exported));
    expect(scores(run)).not.toBe(scores(textFolder));
    expect(gavel('sample', '--model', run, '--prompt', 'which one', '--max-new-tokens', '2')).toMatchObject({
      status: 0,
    });
    expect(gavel('inspect', run).stdout).toMatch(/^family +qwen2$/m);
  });
});

describe('a file as a model', () => {
  it.each(['sample', 'inspect'])('is refused by gavel %s, which says what it takes', async (verb) => {
    const args = verb === 'inspect' ? ['inspect'] : ['sample', '--prompt', 'a', '--model'];
    const failure = failureOfCommand([...args, join(textFolder, 'config.json')]);
    expect(failure).toMatchObject({ code: 'invalid_argument', exitCode: 2 });
    expect(failure.message).toMatch(
      /^Expected a folder, a \.gguf file or a hub id for `model` but received ".*config\.json"\. Name the folder of the file\.$/,
    );
  });
});

describe('a broken checkpoint', () => {
  const withoutLast = (): Promise<string> =>
    brokenCopy(textFolder, (copy) =>
      editTensors(copy, (tensors, data) => {
        const name = lastTensor(tensors);
        const [begin] = tensors[name]!.data_offsets;
        delete tensors[name];
        return data.subarray(0, begin);
      }),
    );

  it('is told by gavel inspect, which ends with 1', async () => {
    const folder = await withoutLast();
    const { status, stdout } = gavel('inspect', folder);
    expect(status).toBe(1);
    expect(stdout).toMatch(/^BROKEN +Expected the tensors of its config in ".*" but these are missing: \S+\. /m);
    const { problem } = JSON.parse(gavel('inspect', folder, '--json').stdout) as { problem: string };
    expect(await failureOf(() => engine.loadModel(folder))).toMatchObject({
      code: 'corrupt_checkpoint',
      message: problem,
    });
    expect(JSON.parse(gavel('inspect', textFolder, '--json').stdout)).toMatchObject({ problem: null });
  });

  it('without processor files is no text model, and good for text', async () => {
    const folder = join(await temporaryFolder(), 'model');
    await mkdir(folder);
    await cp(visionFolder, folder, { recursive: true });
    for (const name of ['preprocessor_config.json', 'processor_config.json']) await rm(join(folder, name));
    const image = { rgb: new Uint8Array(28 * 28 * 3), width: 28, height: 28 };
    const failure = await failureOf(() => trainOn(folder, picture([image])));
    expect(failure.code).toBe('io');
    expect(failure.message).toMatch(
      /Expected preprocessor_config\.json in ".*model" for the images or videos of row "a" but found none\. Add the processor files/,
    );
    expect(gavel('sample', '--model', folder, '--prompt', 'which one', '--max-new-tokens', '1').status).toBe(0);
  });
});

describe.skipIf(!existsSync('/dev/full'))('a full disk under standard output', () => {
  it.each([
    ['schema', ['schema']],
    ['sample', ['sample', '--model', textFolder, '--prompt', 'which one', '--max-new-tokens', '2']],
    ['inspect', ['inspect', textFolder]],
  ])('ends gavel %s with disk_full and no stack', (_, args) => {
    const full = openSync('/dev/full', 'w');
    const { status, stderr } = spawnSync(process.execPath, [command, ...args], {
      stdio: ['ignore', full, 'pipe'],
      encoding: 'utf8',
    });
    closeSync(full);
    expect(status, stderr).toBe(1);
    expect(stderr.trim()).toMatch(
      /^gavel: Expected free space to write `standard output` but received ENOSPC\. .* \[disk_full\]$/,
    );
  });
});
