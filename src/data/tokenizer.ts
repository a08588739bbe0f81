/**
 * A checkpoint's tokenizer: text to ids and back, over tokenizer.json. Special tokens inside text are recognised; none is
 * ever added. Ids equal Hugging Face's `tokenizer(text, add_special_tokens=False)`.
 */
import { Tokenizer as HubTokenizer } from '@huggingface/tokenizers';
import { GavelError } from '../errors.js';
import { corruptFile, readJson, readOptionalJson } from './checkpoint-files.js';
import { tokenBytesTable, tokenReader, type TokenBytes } from './token-bytes.js';
import { exactDefinition, idsReason } from './tokenizer-definition.js';

export interface DecodeTextOptions {
  /** Leaves special tokens out of the text; true by default. */
  skipSpecial?: boolean;
}

/** Splits off text as tokens arrive; characters whose bytes are still incomplete wait for the next token. */
export interface IncrementalDecoder {
  /** The text that this token completes, often "". */
  push(id: number): string;
  /** What is still held back (an incomplete character shows as U+FFFD). */
  flush(): string;
}

// Prompts of one data set share their fixed parts (system turn, instructions): short segments are remembered.
const memoLimit = 4096;
const memoLength = 400;

/** Text and ids of one checkpoint. Immutable; safe to share. */
export class Tokenizer {
  /** One more than the largest id. */
  readonly vocabSize: number;
  /** Ids that end a completion, from generation_config.json, else config.json, else the tokenizer's own eos token. */
  readonly eosIds: readonly number[];
  /** The id appended to a training target: the tokenizer's eos token, else the first of `eosIds`. */
  readonly eosId: number;
  /** The named special tokens of tokenizer_config.json (bos_token, eos_token, pad_token, ...), for chat templates. */
  readonly namedTokens: Readonly<Record<string, string>>;
  readonly #inner: HubTokenizer;
  readonly #folder: string;
  readonly #specialIds: ReadonlySet<number>;
  /** Splits text at added tokens, which are kept; undefined where a segment's ids depend on its neighbours. */
  readonly #separator: RegExp | undefined;
  readonly #memo = new Map<string, readonly number[]>();
  readonly #reader: ReturnType<typeof tokenReader>;
  #tokenBytes: TokenBytes | undefined;

  private constructor(
    inner: HubTokenizer,
    definition: Record<string, unknown>,
    folder: string,
    namedTokens: Record<string, string>,
    eosIds: number[],
  ) {
    this.#inner = inner;
    this.#folder = folder;
    this.namedTokens = namedTokens;
    let largest = -1;
    for (const id of inner.get_vocab().values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
    const special = new Set<number>();
    for (const [id, token] of inner.get_added_tokens_decoder()) if (token.special) special.add(id);
    this.#specialIds = special;
    this.#separator = segmentSeparator(inner, definition);
    this.#reader = tokenReader(definition);
    const named = namedTokens['eos_token'] === undefined ? undefined : inner.token_to_id(namedTokens['eos_token']);
    const first = named ?? eosIds[0];
    if (first === undefined) {
      throw mismatch(folder, 'an eos token in generation_config.json, config.json or tokenizer_config.json', 'none');
    }
    this.eosId = first;
    this.eosIds = eosIds.includes(first) ? eosIds : [first, ...eosIds];
  }

  /**
   * Reads tokenizer.json and tokenizer_config.json of a checkpoint folder. Errors: 'io', 'corrupt_checkpoint',
   * 'tokenizer_mismatch' (special tokens that do not encode to themselves, no eos token).
   */
  static async load(folder: string): Promise<Tokenizer> {
    const definition = exactDefinition(await readJson(folder, 'tokenizer.json'));
    const reason = idsReason(definition);
    if (reason !== undefined) throw corruptFile(`${folder}/tokenizer.json`, reason);
    const config = (await readOptionalJson(folder, 'tokenizer_config.json')) ?? {};
    const model = definition['model'] as Record<string, unknown> | undefined;
    const named = namedTokens(config);
    const eosIds = await readEosIds(folder);
    try {
      // A word-level vocabulary takes its unknown token from the configuration, where tokenizer.json keeps it in the model.
      const unknown = model?.['unk_token'] ?? undefined;
      const inner = new HubTokenizer(definition, {
        unk_token: unknown,
        ...config,
        // Text is what its tokens' bytes say: stop strings are looked for in these.
        clean_up_tokenization_spaces: false,
      });
      const tokenizer = new Tokenizer(inner, definition, folder, named, eosIds);
      tokenizer.selfCheck();
      return tokenizer;
    } catch (cause) {
      throw GavelError.is(cause) ? cause : notATokenizer(folder, cause);
    }
  }

  /** The ids of `text`. Throws 'tokenizer_mismatch' for text the vocabulary cannot express and that has no unknown token. */
  encode(text: string): number[] {
    if (this.#separator === undefined) return this.#encodeSegment(text);
    const ids: number[] = [];
    for (const segment of text.split(this.#separator)) {
      const known = this.#memo.get(segment);
      const found = known ?? this.#encodeSegment(segment);
      for (const id of found) ids.push(id);
      if (known !== undefined || segment.length > memoLength) continue;
      if (this.#memo.size >= memoLimit) this.#memo.clear();
      this.#memo.set(segment, found);
    }
    return ids;
  }

  #encodeSegment(text: string): number[] {
    if (text === '') return [];
    const { ids, tokens } = this.#guard(() => this.#inner.encode(text, { add_special_tokens: false }));
    const missing = ids.findIndex((id: number | undefined) => id === undefined);
    if (missing >= 0)
      throw mismatch(this.#folder, 'a vocabulary with an unknown token', `no id for "${tokens[missing]}"`);
    return ids;
  }

  /** What a broken definition makes the library throw in the middle of its work is the file's fault, not the text's. */
  #guard<T>(work: () => T): T {
    try {
      return work();
    } catch (cause) {
      throw notATokenizer(this.#folder, cause);
    }
  }

  /** The text of `ids`. Throws 'tokenizer_mismatch' for an id outside the vocabulary. */
  decode(ids: ArrayLike<number>, options: DecodeTextOptions = {}): string {
    const skip = options.skipSpecial ?? true;
    const kept: number[] = [];
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      if (this.#inner.id_to_token(id) === undefined)
        throw mismatch(this.#folder, `ids below ${this.vocabSize}`, String(id));
      if (!(skip && this.#specialIds.has(id))) kept.push(id);
    }
    return kept.length === 0 ? '' : this.#guard(() => this.#inner.decode(kept, { skip_special_tokens: false }));
  }

  /**
   * The bytes that each token adds to a text; none for special tokens, which texts leave out. A blank that a decoder
   * leaves out before the first word of a text is there. Made once.
   * Throws 'unsupported' for a tokenizer whose decoder writes a token depending on its neighbours.
   */
  tokenBytes(): TokenBytes {
    const read = this.#reader;
    if (read === undefined) {
      throw new GavelError(
        'unsupported',
        `Expected a byte-level or SentencePiece decoder in "${this.#folder}/tokenizer.json" but found another. Stop at tokens instead of strings.`,
        { fields: { folder: this.#folder } },
      );
    }
    const added = this.#inner.get_added_tokens_decoder();
    this.#tokenBytes ??= tokenBytesTable(this.vocabSize, (id) => {
      if (this.#specialIds.has(id)) return new Uint8Array(0);
      const content = added.get(id)?.content;
      if (content !== undefined) return new TextEncoder().encode(content);
      const token = this.#inner.id_to_token(id);
      return token === undefined ? new Uint8Array(0) : read(token);
    });
    return this.#tokenBytes;
  }

  /** A decoder for a stream of tokens: the pieces it returns concatenate to `decode` of all of them. */
  incremental(options: DecodeTextOptions = {}): IncrementalDecoder {
    // Text of the last finished token is kept as context: decoders treat the first token of a text differently.
    let context: number[] = [];
    let pending: number[] = [];
    let emitted = 0;
    const windowText = (): string => {
      const before = this.decode(context, options);
      const all = this.decode([...context, ...pending], options);
      return all.startsWith(before) ? all.slice(before.length) : '';
    };
    return {
      push: (id) => {
        pending.push(id);
        const text = windowText();
        const open = text.endsWith('\ufffd');
        const piece = text.slice(emitted, open ? -1 : undefined);
        if (open) emitted += piece.length;
        else if (text !== '') {
          context = pending;
          pending = [];
          emitted = 0;
        }
        return piece;
      },
      flush: () => {
        const piece = windowText().slice(emitted);
        context = [];
        pending = [];
        emitted = 0;
        return piece;
      },
    };
  }

  /** The id of a token, or undefined. */
  tokenId(token: string): number | undefined {
    return this.#inner.token_to_id(token);
  }

  /** The id of a special token. Throws 'tokenizer_mismatch' when the vocabulary has none of that name. */
  specialId(token: string): number {
    const id = this.#inner.token_to_id(token);
    if (id === undefined) throw mismatch(this.#folder, `the special token "${token}"`, 'none of that name');
    return id;
  }

  /** True for a token that is left out of decoded text. */
  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  /**
   * Every added token must encode to itself alone, every end id must be in the vocabulary, and no id may exceed the model's
   * embedding rows when their number is given. Throws 'tokenizer_mismatch'.
   */
  selfCheck(modelVocabSize?: number): void {
    for (const [id, token] of this.#inner.get_added_tokens_decoder()) {
      const ids = this.encode(token.content);
      if (ids.length !== 1 || ids[0] !== id) {
        throw mismatch(this.#folder, `"${token.content}" to encode to [${id}]`, `[${ids.join(', ')}]`);
      }
    }
    for (const id of this.eosIds) {
      if (this.#inner.id_to_token(id) === undefined)
        throw mismatch(this.#folder, 'eos ids of the vocabulary', String(id));
    }
    if (modelVocabSize !== undefined && this.vocabSize > modelVocabSize) {
      throw mismatch(this.#folder, `at most ${modelVocabSize} ids, the rows of the embedding`, String(this.vocabSize));
    }
  }
}

/**
 * Segments between added tokens are encoded apart by every tokenizer, except where an added token eats the blanks beside
 * it or the pre-tokenizer marks only the first segment (Metaspace).
 */
function segmentSeparator(inner: HubTokenizer, definition: Record<string, unknown>): RegExp | undefined {
  const added = [...inner.get_added_tokens_decoder().values()];
  const plain = added.every((token) => !token.lstrip && !token.rstrip && !token.single_word && !token.normalized);
  const contextual = JSON.stringify(definition['pre_tokenizer'] ?? null).includes('"Metaspace"');
  if (added.length === 0 || !plain || contextual) return undefined;
  const longestFirst = added.map((token) => token.content).sort((a, b) => b.length - a.length);
  return new RegExp(`(${longestFirst.map((content) => content.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')).join('|')})`);
}

function notATokenizer(folder: string, cause: unknown): GavelError {
  return corruptFile(`${folder}/tokenizer.json`, `not a tokenizer: ${(cause as Error).message}`, cause);
}

function mismatch(folder: string, what: string, received: string): GavelError {
  return new GavelError(
    'tokenizer_mismatch',
    `Expected ${what} in the tokenizer of "${folder}" but received ${received}. Use the tokenizer the model was made with.`,
    { fields: { folder, expected: what, received } },
  );
}

function namedTokens(config: Record<string, unknown>): Record<string, string> {
  const named: Record<string, string> = {};
  for (const [key, value] of Object.entries(config)) {
    if (!key.endsWith('_token')) continue;
    const content = typeof value === 'object' && value !== null ? (value as Record<string, unknown>)['content'] : value;
    if (typeof content === 'string') named[key] = content;
  }
  return named;
}

async function readEosIds(folder: string): Promise<number[]> {
  const config = await readOptionalJson(folder, 'config.json');
  const text = config?.['text_config'] as Record<string, unknown> | undefined;
  const sources = [await readOptionalJson(folder, 'generation_config.json'), config, text];
  for (const source of sources) {
    const value = source?.['eos_token_id'];
    if (value === undefined || value === null) continue;
    const ids: unknown[] = Array.isArray(value) ? value : [value];
    if (ids.length === 0 || !ids.every((id) => Number.isSafeInteger(id))) {
      throw corruptFile(
        `${folder}/generation_config.json`,
        `eos_token_id ${JSON.stringify(value)} is not an id or a list of ids`,
      );
    }
    return ids as number[];
  }
  return [];
}
