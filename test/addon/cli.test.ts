// The commands that use a model, as a user types them: what they print is what the API computes, and JSON lines are whole.
import { execFile, spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { afterAll, describe, expect, it } from 'vitest';
import { describeCheckpoint } from '../../src/engine/describe-checkpoint.js';
import { createEngine, datasetFromRows, judgingRow, Policy, RunFolder, sft, train, type Row } from '../../src/index.js';
import { FakeHub } from '../support/fake-hub.js';
import { picture } from '../support/pictures.js';
import { command, configuration, failureOfCommand } from './bad-input.js';
import { temporaryFolder, textFolder, textGroup, visionFolder } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

function gavel(args: readonly string[], env: Record<string, string> = {}): string {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
  });
  expect(status, stderr).toBe(0);
  return stdout;
}
const linesOf = <T>(text: string): T[] =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as T);

const rows: Row[] = [
  { id: 'a', prompt: 'which one', images: [], completion: 'this one' },
  { id: 'b', prompt: [{ role: 'user', content: 'hello there' }], images: [], completion: 'a cat' },
];

async function rowsFile(): Promise<string> {
  const path = join(await temporaryFolder(), 'rows.jsonl');
  await writeFile(path, rows.map(({ images: _, ...row }) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}

interface SampleLine {
  id: string;
  index: number;
  text: string;
  tokens: number[];
  logprobs: number[];
  finishReason: string;
}
interface ScoreLine {
  id: string;
  promptTokens: number[];
  tokens: number[];
  logprobs: number[];
  sum: number;
}

describe('gavel train', () => {
  it('makes no run folder when the data of any stage is bad', async () => {
    const late = `- name: late\n    recipe: evaluate\n    data: { path: gone.jsonl }`;
    const stage = `recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 1, batchSize: 2 }\n  ${late}`;
    const path = await configuration({ stage });
    expect(failureOfCommand(['train', path])).toMatchObject({
      code: 'io',
      message: expect.stringContaining('gone') as string,
    });
    expect(await readdir(dirname(path))).toEqual(['data.jsonl', 'run.yaml']);
  });
});

describe('gavel sample', () => {
  const args = ['sample', '--model', textFolder, '--group', '3', '--seed', '7', '--max-new-tokens', '6'];

  it('prints a JSON line a completion, in order, and the same ones again', async () => {
    const input = await rowsFile();
    const text = gavel([...args, '--input', input]);
    const lines = linesOf<SampleLine>(text);
    expect(lines.map(({ id, index }) => `${id}${index}`)).toEqual(['a0', 'a1', 'a2', 'b0', 'b1', 'b2']);
    expect(Object.keys(lines[0]!)).toEqual(['id', 'index', 'text', 'tokens', 'logprobs', 'finishReason']);
    for (const { tokens, logprobs, finishReason } of lines) {
      expect(tokens.length).toBe(logprobs.length);
      expect(finishReason).toBe(tokens.length === 6 ? 'length' : 'stop');
    }
    expect(gavel([...args, '--input', input])).toBe(text);
  });

  it('prints the text of one prompt, or its JSON line', () => {
    const text = gavel(['sample', '--model', textFolder, '--prompt', 'which one', '--max-new-tokens', '4']);
    const [line] = linesOf<SampleLine>(
      gavel(['sample', '--model', textFolder, '--prompt', 'which one', '--max-new-tokens', '4', '--json']),
    );
    expect(text).toBe(`${line!.text}\n`);
  });

  it('takes a hub id', async () => {
    const hub = await FakeHub.start({ folder: textFolder });
    const cache = await temporaryFolder();
    // The hub answers from this process: the command must not block it.
    const run = (env: Record<string, string>): Promise<string> =>
      new Promise((resolve, reject) =>
        execFile(
          process.execPath,
          [command, 'sample', '--model', 'org/model', '--prompt', 'which one', '--max-new-tokens', '4'],
          { env: { ...process.env, HF_HUB_CACHE: cache, ...env } },
          (error, stdout, stderr) => (error ? reject(new Error(stderr)) : resolve(stdout)),
        ),
      );
    const online = await run({ HF_ENDPOINT: hub.url });
    expect(online).toBe(gavel(['sample', '--model', textFolder, '--prompt', 'which one', '--max-new-tokens', '4']));
    expect(await run({ HF_HUB_OFFLINE: '1' })).toBe(online);
  });
});

describe('gavel judge', () => {
  it('asks a task in the words of its rows, of what it was given', async () => {
    const image = join(await temporaryFolder(), 'a.png');
    const { rgb, width, height } = picture(28, 28);
    await sharp(rgb, { raw: { width, height, channels: 3 } })
      .png()
      .toFile(image);
    const args = ['judge', '--model', visionFolder, '--prompt', 'a dog', '--max-new-tokens', '4', '--json'];
    const judged = JSON.parse(gavel([...args, '--task', 'image-score', '--image', image])) as Record<string, unknown>;
    expect(Object.keys(judged)).toEqual(['rationale', 'answer', 'task', 'score', 'text', 'finishReason']);
    expect(judged).toMatchObject({ task: 'image-score', score: null, finishReason: 'length' });
    // The same words by hand are the same prompt.
    const row = judgingRow({ kind: 'image-score', caption: 'a dog', image: { path: image } }, { id: 'prompt' });
    const asked = JSON.parse(gavel([...args, '--prompt', row.prompt as string, '--image', image])) as { text: string };
    expect(asked.text).toBe(judged['text']);
    expect(failureOfCommand([...args.slice(0, -1), '--task', 'image-pair', '--image', image])).toMatchObject({
      ...{ code: 'invalid_argument', exitCode: 2 },
    });
    expect(failureOfCommand([...args.slice(0, -1), '--answer', 'x']).message).toMatch(/--task beside it/);
  });
});

describe('gavel logprobs', () => {
  it('prints what the model computes, bit for bit', async () => {
    const lines = linesOf<ScoreLine>(gavel(['logprobs', '--model', textFolder, '--input', await rowsFile()]));
    await using model = await engine.loadModel(textFolder);
    await using policy = await Policy.open(model);
    const encoded = await policy.encode(rows, new AbortController().signal);
    for (const [i, { id, promptTokens, tokens, logprobs, sum }] of lines.entries()) {
      expect(id).toBe(rows[i]!.id);
      expect(promptTokens).toEqual([...encoded[i]!.promptTokens]);
      expect(tokens).toEqual([...encoded[i]!.completionTokens!]);
      const group = {
        promptTokens: encoded[i]!.promptTokens,
        images: [],
        completions: [{ tokens: encoded[i]!.completionTokens! }],
      };
      const found = [...(await model.logprobs([group])).logprobs];
      expect(logprobs).toEqual(found);
      expect(sum).toBe(found.reduce((total, value) => total + value, 0));
    }
  });
});

describe('gavel inspect', () => {
  it('counts what the engine counts, by part', async () => {
    for (const folder of [textFolder, visionFolder]) {
      const found = JSON.parse(gavel(['inspect', folder, '--json'])) as {
        family: string;
        parameters: Record<string, number>;
        sizeBytes: number;
      };
      await using model = await engine.loadModel(folder);
      const sizes = model.tensors().map(({ shape }) => shape.reduce((product, size) => product * size, 1));
      expect(found.family).toBe(model.family);
      expect(found.parameters['total']).toBe(sizes.reduce((sum, size) => sum + size, 0));
      expect(found.sizeBytes).toBe(4 * found.parameters['total']!);
    }
  });

  it('reads of a hub model the headers alone', async () => {
    const hub = await FakeHub.start({ folder: visionFolder });
    const options = { endpoint: hub.url, cacheFolder: await temporaryFolder(), offline: false };
    const remote = await describeCheckpoint('org/model', options);
    const local = await describeCheckpoint(visionFolder);
    expect({ ...remote, name: '', path: '' }).toEqual({ ...local, name: '', path: '' });
    expect(await readdir(remote.path)).not.toContain('model.safetensors');
  });

  it('prints a table with what is missing', async () => {
    const folder = join(await temporaryFolder(), 'bare');
    await mkdir(folder);
    for (const name of ['config.json', 'model.safetensors']) {
      await writeFile(join(folder, name), await readFile(join(visionFolder, name)));
    }
    const text = gavel(['inspect', folder]);
    expect(text).toMatch(/^family +qwen2_5_vl$/m);
    expect(text).toMatch(/^ {2}vision +64,704$/m);
    expect(text).toMatch(/^tokenizer +MISSING: tokenizer\.json$/m);
    expect(text).toMatch(/^image processor +MISSING: preprocessor_config\.json$/m);
  });
});

describe('gavel export', () => {
  it('writes the weights of a run with a card that names recipe, data and metrics', async () => {
    const path = join(await temporaryFolder(), 'run');
    {
      await using model = await engine.loadModel(textFolder);
      await using policy = await Policy.open(model);
      const config = {
        run: 'run',
        model: { path: 'org/base' },
        stages: [{ name: 'cold', data: { path: 'rows.jsonl' } }],
      };
      await using run = await RunFolder.open(path, config);
      const validation = {
        set: {
          name: 'held out',
          size: 1,
          item: async () => ({ row: { ...rows[0]!, solution: 'x' }, unseen: false }),
        },
        options: { maxNewTokens: 2 },
      };
      const options = { steps: 2, batchSize: 2, learningRate: 1e-3, evaluateEvery: 1 };
      const recipe = sft({ data: datasetFromRows('rows', rows), options, validation });
      await train(policy, recipe, { run, stage: 'cold' }).result;
      await model.exportHf(join(path, 'final'));
    }
    const out = join(await temporaryFolder(), 'exported');
    expect(gavel(['export', '--model', path, '--out', out, '--license', 'apache-2.0'])).toContain(out);
    const card = await readFile(join(out, 'README.md'), 'utf8');
    expect(card).toMatch(/^---\nlicense: apache-2\.0\nbase_model: org\/base\nbase_model_relation: finetune\n/);
    expect(card).toMatch(/tags:\n {2}- gavel-rl\n {2}- sft\n---/);
    expect(card).toMatch(/\| cold \| sft \| rows\.jsonl \| 2 \| [\d.]+ \| - \| \d+ \|/);
    expect(card).toMatch(/\| cold \| held out \| \d \| 1 \| 0 \[0, 0\.\d+\] \|/);
    const weights = (folder: string): Promise<Buffer> => readFile(join(folder, 'model.safetensors'));
    expect((await weights(out)).equals(await weights(join(path, 'final')))).toBe(true);
  });

  it('writes an adapter as it is, or merged into its base', async () => {
    const folder = join(await temporaryFolder(), 'adapter');
    {
      await using model = await engine.loadModel(textFolder, { lora: { rank: 2, seed: 1 } });
      await model.forwardBackward([textGroup()], [{ kind: 'nll' }]);
      await model.optimizerStep({ learningRate: 1e-2 });
      await model.saveAdapter(folder);
    }
    const input = await rowsFile();
    const scores = (name: string): number[] =>
      linesOf<ScoreLine>(gavel(['logprobs', '--model', name, '--input', input])).map(({ sum }) => sum);
    const merged = join(await temporaryFolder(), 'merged');
    const alone = join(await temporaryFolder(), 'alone');
    expect(gavel(['export', '--model', folder, '--out', alone])).toMatch(/^PEFT adapter \(qwen2, fp32\)/);
    expect(gavel(['export', '--model', folder, '--out', merged, '--merge'])).toMatch(/^Model \(qwen2, fp32\)/);
    expect(await readFile(join(alone, 'README.md'), 'utf8')).toContain('library_name: peft');
    const [adapted, exported, whole, base] = [folder, alone, merged, textFolder].map(scores);
    expect(exported).toEqual(adapted);
    for (const [i, sum] of whole!.entries()) {
      expect(sum).toBeCloseTo(adapted![i]!, 4);
      expect(Math.abs(sum - base![i]!)).toBeGreaterThan(1e-3);
    }
  });
});
