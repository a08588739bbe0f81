// Checkpoints, tokenizers and models that cannot be used. What each case checks stands in bad-input.ts.
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { RunFolder } from '../../src/index.js';
import {
  engine,
  failureOf,
  failureOfCommand,
  word,
  trainOn,
  withTrained,
  brokenCopy,
  editJson,
  editTensors,
  lastTensor,
  configuration,
  spoilHeader,
  cutShort,
  describeMistakes,
} from './bad-input.js';
import { temporaryFolder, textFolder, visionFolder } from './model-fixture.js';

describeMistakes('checkpoints', [
  {
    what: 'weights with a broken header',
    make: async () => {
      const folder = await brokenCopy(textFolder, spoilHeader);
      return failureOf(() => withTrained((model) => model.load(folder)));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected a well-formed checkpoint file/,
    received: /received ".*model\.safetensors": header/,
    advice: /Fetch or write the checkpoint again/,
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
    advice: /Fetch or write the checkpoint again/,
  },
  {
    what: 'weights that were cut short, given to the command',
    make: async () =>
      failureOfCommand(['sample', '--model', await brokenCopy(textFolder, cutShort), '--prompt', 'which one']),
    code: 'corrupt_checkpoint',
    exitCode: 1,
    expected: /Expected a well-formed checkpoint file/,
    received: /past the file's 300000/,
    advice: /Fetch or write the checkpoint again/,
  },
  {
    what: 'a tensor that is missing',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editTensors(copy, (tensors, data) => {
          const name = lastTensor(tensors);
          const [begin] = tensors[name]!.data_offsets;
          delete tensors[name];
          return data.subarray(0, begin);
        }),
      );
      return failureOf(() => engine.loadModel(folder));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected the tensors of its config in ".*model"/,
    received: /these are missing: [\w.]+/,
    advice: /Fetch the checkpoint again, with all its files/,
  },
  {
    what: 'a tensor too many',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editTensors(copy, (tensors, data) => {
          tensors['model.layers.9.mlp.up_proj.weight'] = {
            dtype: 'F32',
            shape: [1],
            data_offsets: [data.length, data.length + 4],
          };
          return Buffer.concat([data, Buffer.alloc(4)]);
        }),
      );
      return failureOf(() => engine.loadModel(folder));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected the tensors of its config in ".*model"/,
    received: /these are unexpected: model\.layers\.9\.mlp\.up_proj\.weight/,
    advice: /Its config\.json belongs to another model/,
  },
  {
    what: 'a tensor of another shape',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editTensors(copy, (tensors) => void tensors['model.layers.0.mlp.up_proj.weight']!.shape.reverse()),
      );
      return failureOf(() => engine.loadModel(folder));
    },
    code: 'corrupt_checkpoint',
    expected: /Expected the tensors of its config in ".*model"/,
    received: /model\.layers\.0\.mlp\.up_proj\.weight is \[64, 160\], not \[160, 64\]/,
    advice: /Its config\.json belongs to another model/,
  },
  {
    what: 'a tensor of integers',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editTensors(copy, (tensors) => void (tensors['model.norm.weight']!.dtype = 'I32')),
      );
      return failureOf(() => engine.loadModel(folder));
    },
    code: 'unsupported',
    expected: /Expected F32, BF16 or F16 for tensor "model\.norm\.weight"/,
    received: /received I32/,
    advice: /Convert the checkpoint/,
  },
  {
    what: 'an index that names a file which is not there',
    make: async () => {
      const folder = await brokenCopy(textFolder, async (copy) => {
        await rm(join(copy, 'model.safetensors'));
        const index = { weight_map: { 'model.norm.weight': 'model-00001-of-00002.safetensors' } };
        await writeFile(join(copy, 'model.safetensors.index.json'), JSON.stringify(index));
      });
      return failureOf(() => engine.loadModel(folder));
    },
    code: 'io',
    expected: /Expected to read a safetensors file/,
    received: /model-00001-of-00002\.safetensors" but received ENOENT/,
    advice: /Check that the path exists/,
  },
  {
    what: 'a hub id without a network, given to the command',
    make: async () =>
      failureOfCommand(['sample', '--model', 'org/none', '--prompt', 'hi'], { env: { HF_HUB_OFFLINE: '1' } }),
    code: 'io',
    exitCode: 1,
    expected: /Expected "org\/none" at revision "main" in the hub cache/,
    received: /received no such revision in/,
    advice: /Fetch it once with the network, or name a local folder/,
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
    advice: /Remove that checkpoint folder to resume from the one before/,
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
    advice: /Use the tokenizer the model was made with/,
  },
  {
    what: 'a size of the config that is none',
    make: async () =>
      failureOf(async () =>
        engine.loadModel(
          await brokenCopy(textFolder, (copy) =>
            editJson(join(copy, 'config.json'), (config) => void (config.num_hidden_layers = 2.5)),
          ),
        ),
      ),
    code: 'invalid_config',
    expected: /Expected an integer from 1 to \d+ for `num_hidden_layers` in config\.json of family qwen2/,
    received: /received 2\.5/,
    advice: /Use the config\.json that the checkpoint was published with/,
  },
  ...(
    [
      ['rms_norm_eps', 'small', /Expected a number for `rms_norm_eps`/, /but received "small"/],
      ['hidden_size', '64', /Expected an integer >= 1 for `hidden_size`/, /but received "64"/],
      ['head_dim', [16, 16], /Expected an integer for `head_dim`/, /but received a list/],
      ['num_attention_heads', undefined, /Expected an integer >= 1 for `num_attention_heads`/, /but it is missing/],
    ] as const
  ).map(([key, value, expected, received]) => ({
    what: `${JSON.stringify(value) ?? 'nothing'} for ${key}`,
    make: async () =>
      failureOf(async () =>
        engine.loadModel(
          await brokenCopy(textFolder, (copy) =>
            editJson(join(copy, 'config.json'), (config) => void (config[key] = value)),
          ),
        ),
      ),
    code: 'invalid_config' as const,
    expected,
    received,
    advice: /Use the config\.json that the checkpoint was published with/,
  })),
  {
    what: 'a family this engine does not have',
    make: async () =>
      failureOf(async () =>
        engine.loadModel(
          await brokenCopy(textFolder, (copy) =>
            editJson(join(copy, 'config.json'), (config) => void (config.model_type = 'mamba')),
          ),
        ),
      ),
    code: 'unsupported',
    expected: /Expected one of llama, .*llava_onevision for `model_type` of the model's config/,
    received: /received "mamba"/,
    advice: /Choose a checkpoint of one of these families\./,
  },
  {
    what: 'a checkpoint of another family',
    make: () => failureOf(() => withTrained((model) => model.load(visionFolder))),
    code: 'corrupt_checkpoint',
    expected: /Expected a checkpoint of family "qwen2"/,
    received: /received "qwen2_5_vl"/,
    advice: /Load it as a model of its own/,
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
    advice: /Name the folder of a whole checkpoint/,
  },
  {
    what: 'a model larger than any memory',
    make: async () => {
      const config = JSON.parse(await readFile(join(textFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
      const huge = {
        intermediate_size: 2 ** 20,
        hidden_size: 65536,
        num_hidden_layers: 1000,
        num_attention_heads: 1024,
        num_key_value_heads: 1024,
        head_dim: 64,
      };
      return failureOf(() => engine.createModel({ ...config, ...huge }));
    },
    code: 'out_of_memory',
    expected: /Expected \d{15,} bytes/,
    received: /but \d+ are available/,
    advice: /Use bf16, a smaller model/,
  },
]);
