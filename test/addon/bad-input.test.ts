// Bad input, one row a mistake: what is done, which code comes of it, that the message says what was expected, what was
// received and what to do, and that nothing is lost. Through the public API and the command, as a user would.
import { spawnSync } from 'node:child_process';
import { chmod, cp, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import {
  createEngine,
  datasetFromRows,
  defaultJudge,
  errorCodes,
  GavelError,
  grpo,
  JsonlDataset,
  Policy,
  RunFolder,
  sft,
  train,
  type ErrorCode,
  type Evaluator,
  type Model,
  type Row,
} from '../../src/index.js';
import { sameBits, temporaryFolder, textFolder, textGroup, visionFolder, visionGroup } from './model-fixture.js';

const command = join(import.meta.dirname, '../../dist/cli/main.js');
const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

interface Failure {
  code: string;
  message: string;
  /** Of the command; null where the API was called. */
  exitCode: number | null;
}

/** The typed error of a call. */
async function failureOf(action: () => unknown): Promise<Failure> {
  try {
    await action();
  } catch (error) {
    if (GavelError.is(error)) return { code: error.code, message: error.message, exitCode: null };
    throw error;
  }
  throw new Error('expected a GavelError but nothing was thrown');
}

/** The typed error of a command, from its exit code and the end of what it says on standard error. */
function failureOfCommand(args: readonly string[], options: { uid?: number; gid?: number } = {}): Failure {
  const { status, stderr } = spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', ...options });
  const said = /gavel: ([\s\S]*) \[(\w+)\]\s*$/.exec(stderr);
  if (said === null) throw new Error(`the command ended with ${status} and said: ${stderr}`);
  return { code: said[2]!, message: said[1]!, exitCode: status };
}

const word: Row = { id: 'a', prompt: 'which one', images: [], completion: 'this one' };
const picture = (images: Row['images'], prompt = '<image> which one'): Row => ({ ...word, prompt, images });
const steps = { steps: 1, batchSize: 1, learningRate: 1e-3 } as const;
const validation = (rows: readonly Row[]): Evaluator => ({
  set: { name: 'validation', size: rows.length, item: async (i) => ({ row: rows[i]!, unseen: false }) },
  options: { maxNewTokens: 2 },
});
const rollouts = { groupSize: 2, promptsPerStep: 1, steps: 1, maxCompletionLength: 4, gate: { enabled: false } };

const nameOf = (model: Model): string => model.tensors().at(-1)!.name;

/** Runs `use` on a policy and demands that its weights are afterwards what they were. */
async function withPolicy(folder: string, use: (policy: Policy) => Promise<unknown>, limits = {}): Promise<void> {
  await using model = await engine.loadModel(folder);
  const before = await model.readTensor(nameOf(model));
  await using policy = await Policy.open(model, folder, { threads: 1, ...limits });
  try {
    await use(policy);
  } finally {
    expect(sameBits(await model.readTensor(nameOf(model)), before)).toBe(true);
  }
}

const trainOn = (folder: string, row: Row, limits = {}): Promise<void> =>
  withPolicy(
    folder,
    (policy) => train(policy, sft({ data: datasetFromRows('rows', [row]), options: steps })).result,
    limits,
  );

/** Runs `use` on a model that has learnt something, and demands that it has forgotten nothing. */
async function withTrained(use: (model: Model) => Promise<unknown>): Promise<void> {
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
async function brokenCopy(from: string, spoil: (folder: string) => Promise<unknown>): Promise<string> {
  const folder = join(await temporaryFolder(), 'model');
  await cp(from, folder, { recursive: true });
  await spoil(folder);
  return folder;
}

async function editJson(path: string, change: (value: any) => unknown): Promise<void> {
  const value: unknown = JSON.parse(await readFile(path, 'utf8'));
  await writeFile(path, JSON.stringify(change(value) ?? value));
}

/** A run.yaml beside its data; `text` replaces parts of it. */
async function configuration(text: { model?: string; stage?: string; data?: string } = {}): Promise<string> {
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

const spoilHeader = async (folder: string): Promise<void> => {
  const path = join(folder, 'model.safetensors');
  const bytes = await readFile(path);
  bytes.write('no json', 8);
  await writeFile(path, bytes);
};
const cutShort = (folder: string): Promise<void> => truncate(join(folder, 'model.safetensors'), 300_000);

// Root may write anywhere: there the command runs as nobody, who must be able to read this checkout and run this Node.
const isRoot = process.getuid?.() === 0;
const nobody = { uid: 65534, gid: 65534 };
const nobodyCanRun = (): boolean =>
  spawnSync(process.execPath, ['-e', `require('fs').accessSync(${JSON.stringify(command)})`], nobody).status === 0;

interface Mistake {
  what: string;
  /** Why it cannot be made here. */
  impossible?: () => string | undefined;
  make: () => Promise<Failure>;
  code: ErrorCode;
  exitCode?: number;
  expected: RegExp;
  received: RegExp;
  todo: RegExp;
}

const mistakes: Mistake[] = [
  {
    what: 'a picture that is not there',
    make: () => failureOf(() => trainOn(visionFolder, picture([{ path: '/nowhere/cat.png' }]))),
    code: 'image_unreadable',
    expected: /Expected a readable picture in row "a"/,
    received: /received \/nowhere\/cat\.png: .*missing/,
    todo: /Replace the file or leave the row out/,
  },
  {
    what: 'a picture that is none',
    make: () =>
      failureOf(() => trainOn(visionFolder, picture([{ bytes: new TextEncoder().encode('not a picture at all') }]))),
    code: 'image_unreadable',
    expected: /Expected a readable picture in row "a"/,
    received: /received 20 bytes in memory: .*unsupported image format/,
    todo: /Replace the file or leave the row out/,
  },
  {
    what: 'a picture that the judge command cannot read',
    make: async () =>
      failureOfCommand(['judge', '--model', visionFolder, '--prompt', 'which one', '--image', '/nowhere/cat.png']),
    code: 'image_unreadable',
    exitCode: 1,
    expected: /Expected a readable picture/,
    received: /\/nowhere\/cat\.png/,
    todo: /Replace the file/,
  },
  {
    what: 'two pictures for one mark',
    make: () => {
      const raw = { rgb: new Uint8Array(28 * 28 * 3), width: 28, height: 28 };
      return failureOf(() => datasetFromRows('rows', [picture([raw, raw])]));
    },
    code: 'image_count_mismatch',
    expected: /Expected one "<image>" mark per image in the prompt of row "a"/,
    received: /received 1 marks and 2 images/,
    todo: /one mark for each image/,
  },
  {
    what: 'a row of a file with two marks for one picture',
    make: async () => {
      const path = join(await temporaryFolder(), 'data.jsonl');
      const row = JSON.stringify({ prompt: '<image><image> which one', images: ['a.png'] });
      await writeFile(path, `${JSON.stringify(word)}\n${row}\n`);
      return failureOf(() => JsonlDataset.open(path));
    },
    code: 'bad_data',
    expected: /Expected a valid row at .*data\.jsonl:2/,
    received: /2 "<image>" marks in the prompt but 1 images/,
    todo: /Correct the row, or set `onBadRow` to "skip"/,
  },
  {
    what: 'placeholder tokens without their picture',
    make: () =>
      failureOf(async () => {
        await using model = await engine.loadModel(visionFolder);
        await model.logprobs([{ ...visionGroup(), images: [] }]);
      }),
    code: 'image_count_mismatch',
    expected: /Expected placeholder tokens for 0 images in the prompt/,
    received: /received more/,
    todo: /Give every image that the prompt names/,
  },
  {
    what: 'a prompt that does not fit',
    make: () => failureOf(() => trainOn(textFolder, word, { maxPromptTokens: 3 })),
    code: 'prompt_too_long',
    expected: /Expected a prompt of at most 3 tokens/,
    received: /received \d+ in row "a"/,
    todo: /Shorten it, lower `maxPixels`, or raise `maxPromptTokens`/,
  },
  {
    what: 'a prompt that does not fit the limit of run.yaml',
    make: async () => failureOfCommand(['train', await configuration({ model: 'maxPromptTokens: 3' })]),
    code: 'prompt_too_long',
    exitCode: 1,
    expected: /Expected a prompt of at most 3 tokens/,
    received: /received \d+ in row "row \d"/,
    todo: /raise `maxPromptTokens`/,
  },
  {
    what: 'a data set without rows',
    make: () => failureOf(() => datasetFromRows('empty', [])),
    code: 'bad_data',
    expected: /Expected at least one row in data set "empty"/,
    received: /received none/,
    todo: /Check its source/,
  },
  {
    what: 'a data file without rows',
    make: async () => failureOfCommand(['train', await configuration({ data: '\n' })]),
    code: 'bad_data',
    exitCode: 1,
    expected: /Expected at least one row in data set ".*data\.jsonl"/,
    received: /received none/,
    todo: /Check its source/,
  },
  {
    what: 'a key that run.yaml does not know',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({
          stage: 'recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 1, learningrat: 1 }',
        }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a known key/,
    received: /received `stages\.0\.options\.learningrat` \(line \d+\)/,
    todo: /Did you mean `learningRate`\?/,
  },
  {
    what: 'an option that a recipe does not know',
    make: () =>
      failureOf(() =>
        sft({ data: datasetFromRows('rows', [word]), options: { optimizer: { weightDecoy: 1 } } as object }),
      ),
    code: 'invalid_argument',
    expected: /Expected a known option/,
    received: /received `options\.optimizer\.weightDecoy`/,
    todo: /Did you mean `weightDecay`\?/,
  },
  {
    what: 'an option that a policy does not know',
    make: () => failureOf(() => trainOn(textFolder, word, { maxPromptToken: 3 })),
    code: 'invalid_argument',
    expected: /Expected a known option/,
    received: /received `options\.maxPromptToken`/,
    todo: /Did you mean `maxPromptTokens`\?/,
  },
  {
    what: 'a recipe that does not exist',
    make: async () => failureOfCommand(['train', await configuration({ stage: 'recipe: grop' })]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.recipe` \(line \d+\)/,
    received: /received "grop"/,
    todo: /'sft', 'rejection', 'grpo' or 'evaluate'/,
  },
  {
    what: 'a group of one',
    make: () =>
      failureOf(() =>
        grpo({
          data: datasetFromRows('rows', [word]),
          validation: validation([word]),
          options: { ...rollouts, groupSize: 1 },
        }),
      ),
    code: 'invalid_argument',
    expected: /Expected a valid `options\.groupSize`.*Expected an integer >= 2/,
    received: /received 1/,
    todo: /A group of one has no relative advantage/,
  },
  {
    what: 'a group of one in run.yaml',
    make: async () =>
      failureOfCommand([
        'train',
        await configuration({
          stage:
            'recipe: grpo\n    data: { path: data.jsonl }\n    validation: { path: data.jsonl }\n    options: { groupSize: 1 }',
        }),
      ]),
    code: 'invalid_config',
    exitCode: 2,
    expected: /Expected a valid `stages\.0\.options\.groupSize` \(line \d+\)/,
    received: /received 1/,
    todo: /A group of one has no relative advantage/,
  },
  {
    what: 'a reward that is not a number',
    make: () => {
      const judge = { ...defaultJudge, rewards: [{ name: 'broken', reward: () => NaN }] };
      const row = { ...word, solution: 'this one' };
      const recipe = grpo({
        data: datasetFromRows('rows', [row]),
        judge,
        validation: validation([row]),
        options: rollouts,
      });
      return failureOf(() => withPolicy(textFolder, (policy) => train(policy, recipe).result));
    },
    code: 'non_finite',
    expected: /Expected a finite number or null from reward function "broken" for item "a"/,
    received: /received NaN/,
    todo: /Return null where there is no reward/,
  },
  {
    what: 'weights with a broken header',
    make: async () => {
      const folder = await brokenCopy(textFolder, spoilHeader);
      return failureOf(() => withTrained((model) => model.load(folder)));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected a well-formed checkpoint file/,
    received: /received ".*model\.safetensors": header/,
    todo: /Fetch or write the checkpoint again/,
  },
  {
    what: 'weights that were cut short',
    make: async () => {
      const folder = await brokenCopy(textFolder, cutShort);
      return failureOf(() => withTrained((model) => model.load(folder)));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected a well-formed checkpoint file/,
    received: /received ".*model\.safetensors": tensors end at byte \d+, past the file's 300000/,
    todo: /Fetch or write the checkpoint again/,
  },
  {
    what: 'weights that were cut short, given to the command',
    make: async () =>
      failureOfCommand(['sample', '--model', await brokenCopy(textFolder, cutShort), '--prompt', 'which one']),
    code: 'corrupt_checkpoint',
    exitCode: 1,
    expected: /Expected a well-formed checkpoint file/,
    received: /past the file's 300000/,
    todo: /Fetch or write the checkpoint again/,
  },
  {
    what: 'a checkpoint of a run whose bytes have changed',
    make: async () => {
      const path = join(await temporaryFolder(), 'run');
      {
        await using run = await RunFolder.open(path, {});
        await run.saveCheckpoint(1, { at: 1 }, (folder) => writeFile(join(folder, 'weights'), 'abc'));
        await run.saveCheckpoint(2, { at: 2 }, (folder) => writeFile(join(folder, 'weights'), 'abc'));
      }
      await writeFile(join(path, 'checkpoints/step-000002/model/weights'), 'abd');
      const failure = await failureOf(() => RunFolder.open(path, {}, { resume: true }));
      // Nothing is thrown away for it, and what the message says helps.
      expect((await readdir(join(path, 'checkpoints'))).sort()).toEqual(['step-000001', 'step-000002']);
      await rm(join(path, 'checkpoints/step-000002'), { recursive: true });
      await using resumed = await RunFolder.open(path, {}, { resume: true });
      expect(resumed.restored?.state).toEqual({ at: 1 });
      return failure;
    },
    code: 'corrupt_checkpoint',
    expected: /Expected the file that the manifest describes for `model\/weights`/,
    received: /step-000002` but received another or none/,
    todo: /Remove that checkpoint folder to resume from the one before/,
  },
  {
    what: 'the tokenizer of a larger model',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editJson(join(copy, 'tokenizer.json'), (tokenizer) => {
          tokenizer.added_tokens.push({ ...tokenizer.added_tokens[0], id: 600, content: '<|far|>' });
        }),
      );
      return failureOf(() => trainOn(folder, word));
    },
    code: 'tokenizer_mismatch',
    expected: /Expected at most 512 ids, the rows of the embedding in the tokenizer of/,
    received: /received 601/,
    todo: /Use the tokenizer the model was made with/,
  },
  {
    what: 'a folder one may not write to',
    impossible: () =>
      isRoot && !nobodyCanRun() ? 'root may write anywhere, and nobody cannot read this folder' : undefined,
    make: async () => {
      const path = await configuration();
      if (isRoot) return failureOfCommand(['train', path], nobody);
      const folder = join(path, '..');
      await chmod(folder, 0o555);
      try {
        return failureOfCommand(['train', path]);
      } finally {
        await chmod(folder, 0o755);
      }
    },
    code: 'permission_denied',
    exitCode: 1,
    expected: /Expected permission to make/,
    received: /run.* received EACCES/,
    todo: /Choose another folder or change its owner or mode/,
  },
  {
    what: 'a folder of something else as the target of a save',
    make: async () => {
      const folder = await temporaryFolder();
      await writeFile(join(folder, 'thesis.txt'), 'precious');
      const failure = await failureOf(() => withTrained((model) => model.save(folder)));
      expect(await readFile(join(folder, 'thesis.txt'), 'utf8')).toBe('precious');
      return failure;
    },
    code: 'invalid_argument',
    expected: /Expected a new folder or one with config\.json for `folder`/,
    received: /which holds other things/,
    todo: /Name another one, or remove it/,
  },
  {
    what: 'a loss that is not finite',
    make: () => {
      const group = textGroup();
      const completions = group.completions.map((one) => ({ ...one, advantage: 1e308 }));
      return failureOf(() =>
        withTrained((model) =>
          model.forwardBackward(
            [{ ...group, completions }],
            [{ kind: 'grpo', lossType: 'luspo', epsilonLow: 0.2, weight: 100 }],
          ),
        ),
      );
    },
    code: 'non_finite',
    expected: /Expected a finite loss/,
    received: /received -?(inf|nan)/,
    todo: /lower the learning rate or check rewards and log-probs/,
  },
  {
    what: 'a family this engine does not have',
    make: async () =>
      failureOf(async () =>
        engine.loadModel(
          await brokenCopy(textFolder, (copy) =>
            editJson(join(copy, 'config.json'), (config) => void (config.model_type = 'llama')),
          ),
        ),
      ),
    code: 'unsupported',
    expected: /Expected `model_type` qwen2 or qwen2_5_vl/,
    received: /received "llama"/,
    todo: /Choose a checkpoint of one of these families/,
  },
  {
    what: 'a checkpoint of another family',
    make: () => failureOf(() => withTrained((model) => model.load(visionFolder))),
    code: 'corrupt_checkpoint',
    expected: /Expected a checkpoint of family "qwen2"/,
    received: /received "qwen2_5_vl"/,
    todo: /Load it as a model of its own/,
  },
  {
    what: 'an objective that does not exist',
    make: () =>
      failureOf(() => withTrained((model) => model.forwardBackward([textGroup()], [{ kind: 'gpro' } as never]))),
    code: 'invalid_argument',
    expected: /Expected a valid `objectives\[0\]\.kind`/,
    received: /received "gpro"/,
    todo: /Expected an objective this engine has: 'nll' or 'grpo'/,
  },
  {
    what: 'pictures for a text model',
    make: () =>
      failureOf(() => trainOn(textFolder, picture([{ rgb: new Uint8Array(28 * 28 * 3), width: 28, height: 28 }]))),
    code: 'unsupported',
    expected: /Expected no images for a text model/,
    received: /received 1 in row "a"/,
    todo: /Use a vision-language checkpoint/,
  },
  {
    what: 'a model folder that does not exist, for a model from nothing',
    make: async () => {
      const path = await configuration({ model: 'initializeSeed: 1' });
      return failureOfCommand(['train', path, '--set', 'model.path=/nowhere/model']);
    },
    code: 'io',
    exitCode: 1,
    expected: /Expected config\.json in "\/nowhere\/model"/,
    received: /but found none/,
    todo: /Name the folder of a whole checkpoint/,
  },
  {
    what: 'a model larger than any memory',
    make: async () => {
      const config = JSON.parse(await readFile(join(textFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
      const huge = { vocab_size: 2e9, hidden_size: 65536, num_attention_heads: 1024, num_key_value_heads: 1024 };
      return failureOf(() => engine.createModel({ ...config, ...huge }));
    },
    code: 'out_of_memory',
    expected: /Expected \d{15} bytes for weights/,
    received: /the system refused them/,
    todo: /Use bf16 or a smaller model/,
  },
];

describe('bad input', () => {
  it.for(mistakes.map((mistake) => [mistake.what, mistake] as const))('%s', async ([, mistake], context) => {
    const obstacle = mistake.impossible?.();
    if (obstacle !== undefined) context.skip(obstacle);
    const { code, message, exitCode } = await mistake.make();
    expect({ code, exitCode }, message).toEqual({ code: mistake.code, exitCode: mistake.exitCode ?? null });
    for (const part of ['expected', 'received', 'todo'] as const) expect(message, part).toMatch(mistake[part]);
  });

  it('covers every code that input can cause', () => {
    const elsewhere: ErrorCode[] = [
      // engine.test.ts, verbs.test.ts and recipes.test.ts of this folder, test/unit/load.test.ts, and below.
      'device_unavailable',
      'binary_missing',
      'gate_refused',
      'aborted',
      'disposed',
      'internal',
      'disk_full',
    ];
    const covered = new Set<ErrorCode>([...mistakes.map(({ code }) => code), ...elsewhere]);
    expect([...covered].sort()).toEqual([...errorCodes].sort());
  });
});

// A disk of its own that is too small for a second checkpoint; mounts of this namespace end with the process.
const fullDisk = `
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
const [command, config] = process.argv.slice(2);
const gavel = (...args) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [command, 'train', config, ...args], { encoding: 'utf8' });
  return { status, stdout, stderr, checkpoints: readdirSync('run/checkpoints').sort() };
};
const full = gavel();
const still = gavel('--resume');
const { status } = spawnSync('mount', ['-o', 'remount,size=64m', process.cwd()]);
console.log(JSON.stringify({ full, still, remounted: status, resumed: gavel('--resume', '--json') }));
`;

describe('a full disk', () => {
  it('at a checkpoint ends the run with disk_full, keeps the one before, and the run resumes from it', async (context) => {
    const config = await configuration({
      stage:
        'recipe: sft\n    data: { path: data.jsonl }\n    options: { steps: 6, batchSize: 2, checkpointEvery: 2, learningRate: 1e-3 }',
    });
    const folder = join(config, '..');
    const disk = join(folder, 'disk');
    await mkdir(disk);
    await writeFile(join(folder, 'full-disk.mjs'), fullDisk);
    const shell =
      'mount -t tmpfs -o size=2600k tmpfs "$1" && cd "$1" && cp ../data.jsonl . && ' +
      'cp ../run.yaml . && exec "$2" ../full-disk.mjs "$3" run.yaml';
    const { status, stdout, stderr } = spawnSync(
      'unshare',
      ['--mount', '--map-root-user', 'sh', '-c', shell, 'sh', disk, process.execPath, command],
      { encoding: 'utf8' },
    );
    if (status !== 0 && /unshare|mount/.test(stderr)) {
      context.skip(`a file system of its own cannot be mounted here: ${stderr.trim()}`);
    }
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { full, still, remounted, resumed } = JSON.parse(stdout) as Record<
      'full' | 'still' | 'resumed',
      { status: number; stdout: string; stderr: string; checkpoints: string[] }
    > & { remounted: number };
    for (const one of [full, still]) {
      expect(one.status, one.stderr).toBe(1);
      expect(one.stderr).toMatch(/\[disk_full\]\s*$/);
      expect(one.stderr).toMatch(/Expected to write .* but received: No space left on device/);
      expect(one.stderr).toMatch(/Free (some )?space .*untouched/);
      expect(one.checkpoints).toEqual(['step-000002']);
    }
    expect(remounted).toBe(0);
    expect(resumed.status, resumed.stderr).toBe(0);
    const events = resumed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { type: string; step?: number });
    // The first step after the checkpoint, not the first of all.
    expect(events.find(({ type }) => type === 'step-end')?.step).toBe(3);
    expect(events.at(-1)?.type).toBe('run-result');
  });

  it('at a save of the API leaves the checkpoint that was there', async () => {
    const folder = join(await temporaryFolder(), 'model');
    await withTrained(async (model) => {
      await model.save(folder);
      const before = await readFile(join(folder, 'model.safetensors'));
      const sinks = model.tensors().map(({ name }) => ({ name, kind: 'value' as const, dtype: 'F32' as const }));
      const failure = await failureOf(() => model.parts.native.saveTensors('/dev/full', new Uint8Array(8), sinks));
      expect(failure.code).toBe('disk_full');
      expect(before.equals(await readFile(join(folder, 'model.safetensors')))).toBe(true);
      await model.load(folder);
    });
  });
});
