import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ChatTemplate } from '../../src/data/template.js';
import { GavelError } from '../../src/errors.js';
import { tokenReader, type TokenBytes } from '../../src/data/token-bytes.js';
import { Tokenizer } from '../../src/data/tokenizer.js';
import type { ChatMessage } from '../../src/data/rows.js';

interface Golden {
  cases: { text: string; ids: number[]; decoded: string; decoded_skip_special: string }[];
  chats: { messages: ChatMessage[]; add_generation_prompt: boolean; text: string; ids: number[] }[];
  incremental_decode: { ids: number[]; prefixes: string[] };
}

const goldens = new URL('../goldens/', import.meta.url).pathname;
const golden = JSON.parse(await readFile(join(goldens, 'tokenizer.json'), 'utf8')) as Golden;
const tokenizer = await Tokenizer.load(join(goldens, 'micro-text'));

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-tokenizer-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** A word-level tokenizer folder, as the main job writes it. */
async function wordLevel(words: string[], config: Record<string, unknown> = {}): Promise<string> {
  const path = await mkdtemp(join(folder, 'words-'));
  const special = ['<pad>', '<eos>'];
  const vocab = Object.fromEntries([...special, ...words].map((word, id) => [word, id]));
  const added_tokens = special.map((content, id) => ({
    id,
    content,
    special: true,
    normalized: false,
    lstrip: false,
    rstrip: false,
    single_word: false,
  }));
  const model = { type: 'WordLevel', vocab, unk_token: words.includes('<unk>') ? '<unk>' : null };
  const definition = {
    version: '1.0',
    added_tokens,
    normalizer: null,
    pre_tokenizer: { type: 'WhitespaceSplit' },
    post_processor: null,
    decoder: null,
    model,
  };
  await writeFile(join(path, 'tokenizer.json'), JSON.stringify(definition));
  await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<eos>', ...config }));
  return path;
}

const textOf = ({ bytes, offsets }: TokenBytes, ids: readonly number[]): string =>
  Buffer.concat(ids.map((id) => bytes.subarray(offsets[id], offsets[id + 1]))).toString();

describe('bytes of tokens', () => {
  it.each(golden.cases)('are those of the text: $text', ({ ids, decoded_skip_special: text }) => {
    expect(textOf(tokenizer.tokenBytes(), ids)).toBe(text);
  });

  it('of a word-level vocabulary stand behind blanks, special tokens have none', async () => {
    const words = await Tokenizer.load(await wordLevel(['<unk>', 'red', 'car']));
    const ids = [words.eosId, ...words.encode('red car')];
    expect(textOf(words.tokenBytes(), ids)).toBe(' red car');
  });

  it('are those of decoded text, whatever tokenizer_config.json says of cleaning up', async () => {
    const words = await Tokenizer.load(await wordLevel(['<unk>', 'red', '.'], { clean_up_tokenization_spaces: true }));
    const ids = words.encode('red .');
    expect(textOf(words.tokenBytes(), ids)).toBe(' red .');
    expect(words.decode(ids)).toBe('red .');
  });

  it('know SentencePiece forms, with and without bytes as tokens', () => {
    const read = (decoder: unknown): ReturnType<typeof tokenReader> => tokenReader({ decoder });
    const fallback = read({
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
      ],
    })!;
    expect(Buffer.from(fallback('▁a▁é')).toString()).toBe(' a é');
    expect([...fallback('<0xE2>')]).toEqual([0xe2]);
    const metaspace = read({ type: 'Metaspace', replacement: '▁' })!;
    expect(Buffer.from(metaspace('▁<0xE2>')).toString()).toBe(' <0xE2>');
    expect(read({ type: 'WordPiece' })).toBeUndefined();
  });

  it('of a decoder that is not known are refused', async () => {
    const path = await wordLevel(['<unk>', 'red']);
    const file = join(path, 'tokenizer.json');
    const definition = JSON.parse(await readFile(file, 'utf8')) as object;
    await writeFile(
      file,
      JSON.stringify({ ...definition, decoder: { type: 'WordPiece', prefix: '##', cleanup: true } }),
    );
    const pieces = await Tokenizer.load(path);
    expect(() => pieces.tokenBytes()).toThrow(/Stop at tokens instead of strings/);
  });
});

describe('tokenizer', () => {
  it.each(golden.cases)('equals the reference on $text', ({ text, ids, decoded, decoded_skip_special: skipped }) => {
    expect(tokenizer.encode(text)).toEqual(ids);
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(decoded);
    expect(tokenizer.decode(ids)).toBe(skipped);
  });

  it('gives the same ids whether or not a segment was seen before', async () => {
    const piece = fc.oneof(
      fc.constantFrom('<|im_start|>', '<|im_end|>', '<image>', ' ', 'hello', '\n'),
      fc.string({ unit: 'grapheme' }),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(piece, { maxLength: 8 }), async (pieces) => {
        const text = pieces.join('');
        const first = tokenizer.encode(text);
        expect(tokenizer.encode(text)).toEqual(first);
        // Byte-level: nothing is lost but what NFC changes.
        expect(tokenizer.decode(first, { skipSpecial: false })).toBe(text.normalize('NFC'));
      }),
      { numRuns: 200 },
    );
  });

  it('decodes a stream: whole characters only, and the same text in the end', () => {
    const { ids, prefixes } = golden.incremental_decode;
    const stream = tokenizer.incremental();
    let text = '';
    for (const [i, id] of ids.entries()) {
      text += stream.push(id);
      expect(text).toBe(prefixes[i]!.replace(/\ufffd$/, ''));
    }
    expect(text + stream.flush()).toBe(prefixes.at(-1));
  });

  it('streams any ids to the text of all of them, even where the bytes are no characters', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(tokenizer.vocabSize - 1), { maxLength: 40 }), fc.boolean(), (ids, skipSpecial) => {
        const stream = tokenizer.incremental({ skipSpecial });
        const text = ids.map((id) => stream.push(id)).join('') + stream.flush();
        expect(text).toBe(tokenizer.decode(ids, { skipSpecial }));
      }),
      { numRuns: 300 },
    );
  });

  it('knows special tokens and the end of a turn', async () => {
    expect(tokenizer.specialId('<|im_end|>')).toBe(505);
    expect(tokenizer.eosId).toBe(505);
    expect(tokenizer.eosIds).toEqual([505]);
    expect(tokenizer.isSpecial(505)).toBe(true);
    expect(tokenizer.isSpecial(39)).toBe(false);
    expect(tokenizer.vocabSize).toBe(512);
    expect(() => tokenizer.specialId('<|nothing|>')).toThrow(expect.objectContaining({ code: 'tokenizer_mismatch' }));
    expect(() => tokenizer.decode([512])).toThrow(expect.objectContaining({ code: 'tokenizer_mismatch' }));
    expect(() => tokenizer.selfCheck(511)).toThrow(expect.objectContaining({ code: 'tokenizer_mismatch' }));
    expect(() => tokenizer.selfCheck(512)).not.toThrow();

    const several = join(folder, 'several-eos');
    await cp(join(goldens, 'micro-text'), several, { recursive: true });
    await writeFile(join(several, 'generation_config.json'), JSON.stringify({ eos_token_id: [503, 505] }));
    expect((await Tokenizer.load(several)).eosIds).toEqual([503, 505]);
    await writeFile(join(several, 'generation_config.json'), JSON.stringify({ eos_token_id: 9999 }));
    await expect(Tokenizer.load(several)).rejects.toMatchObject({ code: 'tokenizer_mismatch' });
  });

  it('takes a word-level vocabulary, with and without an unknown token', async () => {
    const plain = await Tokenizer.load(await wordLevel(['dog', 'cat', '<think>']));
    const ids = plain.encode('<think> dog  cat<eos>');
    expect(ids).toEqual([4, 2, 3, 1]);
    expect(plain.decode(ids)).toBe('<think> dog cat');
    const stream = plain.incremental();
    expect(ids.map((id) => stream.push(id)).join('') + stream.flush()).toBe('<think> dog cat');
    expect(() => plain.encode('dog bird')).toThrow(expect.objectContaining({ code: 'tokenizer_mismatch' }));
    const open = await Tokenizer.load(await wordLevel(['dog', '<unk>']));
    expect(open.encode('dog bird')).toEqual([2, 3]);
  });

  it('refuses a folder without a usable tokenizer', async () => {
    await expect(Tokenizer.load(join(folder, 'nowhere'))).rejects.toMatchObject({ code: 'io' });
    const broken = await wordLevel(['dog']);
    await writeFile(join(broken, 'tokenizer.json'), '{"model":');
    await expect(Tokenizer.load(broken)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await writeFile(join(broken, 'tokenizer.json'), '{}');
    await expect(Tokenizer.load(broken)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    await expect(Tokenizer.load(await wordLevel(['dog'], { eos_token: null }))).rejects.toMatchObject({
      code: 'tokenizer_mismatch',
    });
  });
});

describe('the Digits pre-tokenizer', () => {
  // Ids of Python's tokenizers 0.23 for this definition: both superscripts are numeric, though not ASCII.
  it.each([
    [true, [1, 5, 6, 1]],
    [false, [1, 7, 1]],
  ])('individual_digits %s splits every numeric character of Unicode', async (individual_digits, ids) => {
    const path = await mkdtemp(join(folder, 'digits-'));
    const words = ['<eos>', 'a', 'Â', '²', '³', 'Â²', 'Â³', 'Â²Â³', 'aÂ'];
    const eos = { lstrip: false, rstrip: false, single_word: false, normalized: false, special: true };
    const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
    const definition = {
      version: '1.0',
      added_tokens: [{ id: 0, content: '<eos>', ...eos }],
      normalizer: null,
      pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'Digits', individual_digits }, byteLevel] },
      post_processor: null,
      decoder: { ...byteLevel, add_prefix_space: true },
      model: {
        type: 'BPE',
        unk_token: null,
        vocab: Object.fromEntries(words.map((word, id) => [word, id])),
        merges: [
          ['a', 'Â'],
          ['Â', '²'],
          ['Â', '³'],
          ['Â²', 'Â³'],
        ],
      },
    };
    await writeFile(join(path, 'tokenizer.json'), JSON.stringify(definition));
    await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<eos>' }));
    expect((await Tokenizer.load(path)).encode('a²³a')).toEqual(ids);
  });
});

describe('chat template', () => {
  it.each(golden.chats)(
    'renders as the reference does ($text)',
    async ({ messages, add_generation_prompt: open, text, ids }) => {
      const template = await ChatTemplate.load(join(goldens, 'micro-text'));
      const rendered = template.render(messages, { addGenerationPrompt: open });
      expect(rendered).toBe(text);
      expect(tokenizer.encode(rendered)).toEqual(ids);
    },
  );

  it('looks in chat_template.jinja, chat_template.json, tokenizer_config.json, processor_config.json', async () => {
    const path = await mkdtemp(join(folder, 'template-'));
    const load = async (): Promise<string> => (await ChatTemplate.load(path)).render([{ role: 'user', content: 'x' }]);
    await expect(load()).rejects.toMatchObject({ code: 'unsupported' });
    await writeFile(join(path, 'processor_config.json'), JSON.stringify({ chat_template: 'fourth' }));
    expect(await load()).toBe('fourth');
    const named = [
      { name: 'tool_use', template: 'tool' },
      { name: 'default', template: 'third {{ messages[0].content }}' },
    ];
    await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify({ chat_template: named }));
    expect(await load()).toBe('third x');
    await writeFile(
      join(path, 'chat_template.json'),
      JSON.stringify({ chat_template: 'second {{ messages[0].content }}' }),
    );
    expect(await load()).toBe('second x');
    await writeFile(join(path, 'chat_template.jinja'), 'first {{ messages[0].content }}');
    expect(await load()).toBe('first x');
    await writeFile(join(path, 'chat_template.jinja'), '{% if %}');
    await expect(load()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
  });

  it('passes variables in and reports what the template refuses', () => {
    const template = new ChatTemplate(
      '{{ bos_token }}{% if messages[0].role != "user" %}{{ raise_exception("user first") }}{% endif %}',
    );
    expect(template.render([{ role: 'user', content: '' }], { variables: { bos_token: '<s>' } })).toBe('<s>');
    expect(() => template.render([{ role: 'system', content: '' }])).toThrow(
      expect.objectContaining({ code: 'bad_data', message: expect.stringContaining('user first') as string }),
    );
  });
});

describe('a damaged tokenizer.json', () => {
  // The library makes a list as long as the largest id: two thousand million took minutes and all memory.
  it.each([2_113_829_262, -1, 0.5, '7', null])('refuses the id %j, of an added token or of a word', async (id) => {
    const path = await mkdtemp(join(folder, 'ids-'));
    await cp(join(goldens, 'micro-text'), path, { recursive: true });
    const original = JSON.parse(await readFile(join(path, 'tokenizer.json'), 'utf8')) as {
      added_tokens: { id: unknown }[];
      model: { vocab: Record<string, unknown> };
    };
    for (const change of [
      (copy: typeof original) => (copy.added_tokens[4]!.id = id),
      (copy: typeof original) => (copy.model.vocab['a'] = id),
    ]) {
      const copy = structuredClone(original);
      change(copy);
      await writeFile(join(path, 'tokenizer.json'), JSON.stringify(copy));
      await expect(Tokenizer.load(path)).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    }
  });

  it('throws nothing but GavelError, whatever stands in it', async () => {
    const original = JSON.parse(await readFile(join(goldens, 'micro-text', 'tokenizer.json'), 'utf8')) as unknown;
    const path = await mkdtemp(join(folder, 'fuzz-'));
    await writeFile(join(path, 'tokenizer_config.json'), JSON.stringify({ eos_token: '<|im_end|>' }));
    const places: (string | number)[][] = [];
    const walk = (value: unknown, place: (string | number)[]): void => {
      if (place.length > 0) places.push(place);
      if (typeof value !== 'object' || value === null || place.length > 3) return;
      for (const key of Object.keys(value).slice(0, 12)) walk((value as Record<string, unknown>)[key], [...place, key]);
    };
    walk(original, []);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...places),
        fc.oneof(fc.jsonValue({ maxDepth: 1 }), fc.constant(undefined)),
        async (place, value) => {
          const copy = structuredClone(original) as Record<string, unknown>;
          let at = copy as Record<string | number, unknown>;
          for (const key of place.slice(0, -1)) at = at[key] as Record<string | number, unknown>;
          if (value === undefined) delete at[place.at(-1)!];
          else at[place.at(-1)!] = value;
          await writeFile(join(path, 'tokenizer.json'), JSON.stringify(copy));
          try {
            (await Tokenizer.load(path)).encode('some text <|im_end|> 7');
          } catch (error) {
            expect(error).toBeInstanceOf(GavelError);
          }
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);
});
