// Rows, pictures and prompts that cannot be used. What each case checks stands in bad-input.ts.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { datasetFromRows, JsonlDataset } from '../../src/index.js';
import {
  engine,
  failureOf,
  failureOfCommand,
  word,
  picture,
  trainOn,
  configuration,
  brokenCopy,
  describeMistakes,
  editJson,
} from './bad-input.js';
import { temporaryFolder, textFolder, visionFolder, visionGroup } from './model-fixture.js';

describeMistakes('rows', [
  {
    what: 'a picture that is not there',
    make: () => failureOf(() => trainOn(visionFolder, picture([{ path: '/nowhere/cat.png' }]))),
    code: 'image_unreadable',
    expected: /Expected a readable picture in row "a"/,
    received: /received \/nowhere\/cat\.png: .*missing/,
    advice: /Replace the file or leave the row out/,
  },
  {
    what: 'a picture that is none',
    make: () =>
      failureOf(() => trainOn(visionFolder, picture([{ bytes: new TextEncoder().encode('not a picture at all') }]))),
    code: 'image_unreadable',
    expected: /Expected a readable picture in row "a"/,
    received: /received 20 bytes in memory: .*unsupported image format/,
    advice: /Replace the file or leave the row out/,
  },
  {
    what: 'a picture that the judge command cannot read',
    make: async () =>
      failureOfCommand(['judge', '--model', visionFolder, '--prompt', 'which one', '--image', '/nowhere/cat.png']),
    code: 'image_unreadable',
    exitCode: 1,
    expected: /Expected a readable picture/,
    received: /\/nowhere\/cat\.png/,
    advice: /Replace the file/,
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
    advice: /one mark for each image/,
  },
  {
    what: 'a row of a file with two marks for one picture',
    make: async () => {
      const path = join(await temporaryFolder(), 'data.jsonl');
      const row = JSON.stringify({ prompt: '<image><image> which one', images: ['a.png'] });
      await writeFile(path, `${JSON.stringify(word)}\n${row}\n`);
      return failureOf(() => JsonlDataset.open(path));
    },
    code: 'image_count_mismatch',
    expected: /Expected a valid row at .*data\.jsonl:2/,
    received: /2 "<image>" marks in the prompt but 1 images/,
    advice: /Correct the row, or set `onBadRow` to "skip"/,
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
    advice: /Give every image that the prompt names/,
  },
  {
    what: 'a prompt that does not fit',
    make: () => failureOf(() => trainOn(textFolder, word, { maxPromptTokens: 3 })),
    code: 'prompt_too_long',
    expected: /Expected a prompt of at most 3 tokens/,
    received: /received \d+ in row "a"/,
    advice: /Shorten it, lower `maxPixels`, or raise `maxPromptTokens`/,
  },
  {
    what: 'a prompt longer than the context of the model',
    make: async () => {
      const folder = await brokenCopy(textFolder, (copy) =>
        editJson(join(copy, 'config.json'), (config) => void (config.max_position_embeddings = 6)),
      );
      return failureOf(() => trainOn(folder, word));
    },
    code: 'prompt_too_long',
    expected: /Expected a prompt of at most 6 tokens/,
    received: /received \d+ in row "a"/,
    advice: /Shorten it/,
  },
  {
    what: 'a template with a token that the tokenizer does not know',
    make: async () => {
      const folder = await brokenCopy(textFolder, async (copy) => {
        const path = join(copy, 'chat_template.jinja');
        await writeFile(path, `${await readFile(path, 'utf8')}<|never_seen|>`);
      });
      return failureOf(() => trainOn(folder, word));
    },
    code: 'tokenizer_mismatch',
    expected: /Expected a chat template of known tokens/,
    received: /received "<\|never_seen\|>", which the tokenizer lacks/,
    advice: /Use template and tokenizer of one checkpoint/,
  },
  {
    what: 'a picture that is cut short',
    make: async () => {
      const path = join(await temporaryFolder(), 'cut.png');
      const rgb = { raw: { width: 40, height: 40, channels: 3 as const } };
      const whole = await sharp(Buffer.alloc(4800, 7), rgb).png().toBuffer();
      await writeFile(path, whole.subarray(0, whole.length - 20));
      return failureOf(() => trainOn(visionFolder, picture([{ path }])));
    },
    code: 'image_unreadable',
    expected: /Expected a readable picture in row "a"/,
    received: /received .*cut\.png: /,
    advice: /Replace the file or leave the row out/,
  },
  {
    what: 'a row without the text to score',
    make: async () => {
      const path = join(await temporaryFolder(), 'rows.jsonl');
      await writeFile(path, JSON.stringify({ id: 'seven', prompt: 'which one' }));
      return failureOfCommand(['logprobs', '--model', textFolder, '--input', path]);
    },
    code: 'bad_data',
    exitCode: 1,
    expected: /Expected a `completion` in row "seven" of .*rows\.jsonl/,
    received: /received none/,
    advice: /Add the text to score/,
  },
  {
    what: 'a prompt that does not fit the limit of run.yaml',
    make: async () => failureOfCommand(['train', await configuration({ model: 'maxPromptTokens: 3' })]),
    code: 'prompt_too_long',
    exitCode: 1,
    expected: /Expected a prompt of at most 3 tokens/,
    received: /received \d+ in row "row \d"/,
    advice: /raise `maxPromptTokens`/,
  },
  {
    what: 'a data set without rows',
    make: () => failureOf(() => datasetFromRows('empty', [])),
    code: 'bad_data',
    expected: /Expected at least one row in data set "empty"/,
    received: /received none/,
    advice: /Check its source/,
  },
  {
    what: 'a data file without rows',
    make: async () => failureOfCommand(['train', await configuration({ data: '\n' })]),
    code: 'bad_data',
    exitCode: 1,
    expected: /Expected at least one row in data set ".*data\.jsonl"/,
    received: /received none/,
    advice: /Check its source/,
  },
  {
    what: 'pictures for a text model',
    make: () =>
      failureOf(() => trainOn(textFolder, picture([{ rgb: new Uint8Array(28 * 28 * 3), width: 28, height: 28 }]))),
    code: 'unsupported',
    expected: /Expected no images or videos for a text model/,
    received: /received 1 and 0 in row "a"/,
    advice: /Use a vision-language checkpoint/,
  },
]);
