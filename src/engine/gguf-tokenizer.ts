/**
 * A GGUF file's byte-level BPE as tokenizer.json and tokenizer_config.json. The pre-tokenizer's pattern is not in the file
 * but named by `tokenizer.ggml.pre`; the patterns are those of the models' own tokenizers.
 */
import { corruptFile } from './checkpoint-files.js';
import type { GgufHeader } from './gguf.js';
import {
  ggufBoolean,
  ggufCount,
  ggufNumbers,
  ggufText,
  ggufTexts,
  required,
  unsupportedGguf,
} from './gguf-metadata.js';
import type { JsonObject } from './model-config.js';

/** `tokenizer.ggml.token_type`: 3 is control, 4 user-defined. */
const controlType = 3;
const userType = 4;

const byteLevel = (useRegex: boolean): JsonObject => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});
const sequence = (...parts: JsonObject[]): JsonObject => ({ type: 'Sequence', pretokenizers: parts });
const isolated = (pattern: string): JsonObject => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});
const split = (pattern: string): JsonObject => sequence(isolated(pattern), byteLevel(false));
/** Words, `digits`, punctuation and blanks, as in the tokenizers of GPT-4's line. */
const wordPattern = (digits: string): string =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

interface PreTokenizer {
  normalizer: JsonObject | null;
  preTokenizer: JsonObject;
  /** A word that is a token is that token, whatever the merges say. */
  ignoreMerges: boolean;
}

const gpt2: PreTokenizer = { normalizer: null, preTokenizer: byteLevel(true), ignoreMerges: false };
const preTokenizers: Readonly<Record<string, PreTokenizer>> = {
  default: gpt2,
  'gpt-2': gpt2,
  smollm: {
    normalizer: null,
    // Every numeric character is a word of its own, as `Digits` has it in the models' own file.
    preTokenizer: sequence(isolated('\\p{N}'), byteLevel(true)),
    ignoreMerges: false,
  },
  qwen2: { normalizer: { type: 'NFC' }, preTokenizer: split(wordPattern('\\p{N}')), ignoreMerges: false },
  'llama-bpe': { normalizer: null, preTokenizer: split(wordPattern('\\p{N}{1,3}')), ignoreMerges: true },
};

function preTokenizerOf(header: GgufHeader): PreTokenizer {
  const modelKey = 'tokenizer.ggml.model';
  const model = required(ggufText(header, modelKey), header, modelKey);
  if (model !== 'gpt2') throw unsupportedGguf(header, modelKey, '"gpt2" (byte-level BPE)', model);
  const key = 'tokenizer.ggml.pre';
  const name = ggufText(header, key) ?? 'default';
  if (!Object.hasOwn(preTokenizers, name)) {
    throw unsupportedGguf(header, key, Object.keys(preTokenizers).join(', '), name);
  }
  return preTokenizers[name]!;
}

interface Vocabulary {
  tokens: string[];
  types: ArrayLike<number>;
}

function vocabularyOf(header: GgufHeader): Vocabulary {
  const tokensKey = 'tokenizer.ggml.tokens';
  const tokens = required(ggufTexts(header, tokensKey), header, tokensKey);
  const typesKey = 'tokenizer.ggml.token_type';
  const types = ggufNumbers(header, typesKey) ?? new Int32Array(tokens.length).fill(1);
  if (types.length !== tokens.length) {
    throw corruptFile(header.path, `"${typesKey}" has ${types.length} entries for ${tokens.length} tokens`);
  }
  const seen = new Set<string>();
  tokens.forEach((token, id) => {
    if (token === '' || seen.has(token)) {
      throw corruptFile(header.path, `token ${id} of "${tokensKey}" is ${token === '' ? 'empty' : 'there twice'}`);
    }
    seen.add(token);
  });
  return { tokens, types };
}

function mergesOf(header: GgufHeader, { tokens }: Vocabulary): [string, string][] {
  const key = 'tokenizer.ggml.merges';
  const known = new Set(tokens);
  return required(ggufTexts(header, key), header, key).map((merge, i) => {
    const space = merge.indexOf(' ', 1);
    const [left, right] = [merge.slice(0, space), merge.slice(space + 1)];
    if (space < 1 || !known.has(left) || !known.has(right) || !known.has(left + right)) {
      throw corruptFile(header.path, `merge ${i} of "${key}" names tokens that are not there`);
    }
    return [left, right];
  });
}

/** tokenizer.json of the file. Errors: 'unsupported' (another kind of tokenizer), 'corrupt_checkpoint'. */
export function ggufTokenizer(header: GgufHeader): JsonObject {
  const { normalizer, preTokenizer, ignoreMerges } = preTokenizerOf(header);
  const vocabulary = vocabularyOf(header);
  const { tokens, types } = vocabulary;
  const added = tokens.flatMap((content, id) => {
    const special = types[id] === controlType;
    if (!special && types[id] !== userType) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: { ...byteLevel(true), trim_offsets: false },
    decoder: byteLevel(true),
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: ignoreMerges,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: mergesOf(header, vocabulary),
    },
  };
}

const namedTokens = { bos: 'bos_token', eos: 'eos_token', padding: 'pad_token', unknown: 'unk_token' } as const;

/** tokenizer_config.json: the named special tokens. An id that is no token throws 'corrupt_checkpoint'. */
export function ggufTokenizerConfig(header: GgufHeader, context: number): JsonObject {
  const { tokens } = vocabularyOf(header);
  const named: Record<string, string> = {};
  for (const [name, property] of Object.entries(namedTokens)) {
    const key = `tokenizer.ggml.${name}_token_id`;
    const id = ggufCount(header, key);
    if (id === undefined) continue;
    if (id >= tokens.length) throw corruptFile(header.path, `"${key}" is ${id}, of ${tokens.length} tokens`);
    named[property] = tokens[id]!;
  }
  return {
    tokenizer_class: 'PreTrainedTokenizerFast',
    clean_up_tokenization_spaces: false,
    model_max_length: context,
    add_bos_token: ggufBoolean(header, 'tokenizer.ggml.add_bos_token') ?? false,
    ...named,
  };
}
