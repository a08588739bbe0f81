/**
 * Rows to what the engine takes: chat template, ids with every image placeholder repeated to its number of tokens, pixel
 * values. Nothing is ever truncated. Runs in the data threads; `decodeCompletion` also on the main one.
 */
import { GavelError } from '../errors.js';
import { readOptionalJson } from './checkpoint-files.js';
import { decodeImage, type RgbImage } from './decode-image.js';
import { ImageProcessor, type PixelLimits, type ProcessedImage } from './image-processor.js';
import { checkImageCount, toMessages, type Row } from './rows.js';
import { ChatTemplate } from './template.js';
import { Tokenizer } from './tokenizer.js';

type Grid = ProcessedImage['grid'];

/**
 * One row, ready for a pack. `images` follow the order of their placeholders in `promptTokens`; their pixels are views into
 * one buffer per row.
 */
export interface EncodedRow {
  id: string;
  promptTokens: Int32Array;
  images: ProcessedImage[];
  /** The target and its end-of-turn token, when the row has a completion. */
  completionTokens?: Int32Array;
  meta?: Record<string, unknown>;
}

/** Plain data, so that it travels to a thread. */
export interface ProcessorOptions extends PixelLimits {
  /** The longest prompt, in tokens, images included. Default: the checkpoint's max_position_embeddings. */
  maxPromptTokens?: number;
  /** The largest picture, in pixels, that is decoded. */
  limitPixels?: number;
  /** Further variables of the chat template. */
  templateVariables?: Record<string, unknown>;
}

/** Template, tokenizer and image processor of one checkpoint folder. */
export class Processor {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** Absent for a text model. */
  readonly imageProcessor: ImageProcessor | undefined;
  /** The id an image placeholder has in a prompt; absent for a text model. */
  readonly imageTokenId: number | undefined;
  readonly maxPromptTokens: number;
  readonly #options: ProcessorOptions;
  readonly #variables: Record<string, unknown>;

  private constructor(
    parts: Pick<Processor, 'tokenizer' | 'template' | 'imageProcessor' | 'imageTokenId' | 'maxPromptTokens'>,
    options: ProcessorOptions,
  ) {
    this.tokenizer = parts.tokenizer;
    this.template = parts.template;
    this.imageProcessor = parts.imageProcessor;
    this.imageTokenId = parts.imageTokenId;
    this.maxPromptTokens = parts.maxPromptTokens;
    this.#options = options;
    this.#variables = { ...parts.tokenizer.namedTokens, ...options.templateVariables };
  }

  /** Reads a checkpoint folder; weights are not touched. */
  static async load(folder: string, options: ProcessorOptions = {}): Promise<Processor> {
    const [tokenizer, template, imageProcessor, config] = await Promise.all([
      Tokenizer.load(folder),
      ChatTemplate.load(folder),
      ImageProcessor.load(folder, options),
      readOptionalJson(folder, 'config.json'),
    ]);
    const text = (config?.['text_config'] as Record<string, unknown> | undefined) ?? config;
    const rows = text?.['vocab_size'];
    if (typeof rows === 'number') tokenizer.selfCheck(rows);
    const positions = text?.['max_position_embeddings'];
    const named = config?.['image_token_id'];
    const imageTokenId = typeof named === 'number' ? named : tokenizer.tokenId('<|image_pad|>');
    return new Processor(
      {
        tokenizer,
        template,
        imageProcessor,
        imageTokenId: imageProcessor === undefined ? undefined : imageTokenId,
        maxPromptTokens: options.maxPromptTokens ?? (typeof positions === 'number' ? positions : Infinity),
      },
      options,
    );
  }

  /**
   * Encodes one row. Errors, each naming the row: 'image_count_mismatch', 'image_unreadable', 'prompt_too_long',
   * 'unsupported' (images for a text model), 'bad_data'.
   */
  async encode(row: Row): Promise<EncodedRow> {
    checkImageCount(row);
    const rendered = this.#tokenizePrompt(row);
    const pictures = await Promise.all(row.images.map((source) => decodeImage(source, row.id, this.#options)));
    const grids = pictures.map((picture) => this.#grid(row, picture));
    const tokens = this.#expandImages(rendered, grids);
    if (tokens.length > this.maxPromptTokens) throw this.#tooLong(row, tokens.length);
    const encoded: EncodedRow = {
      id: row.id,
      promptTokens: tokens,
      images: this.#processImages(pictures, grids),
    };
    if (row.completion !== undefined) encoded.completionTokens = this.encodeCompletion(row.completion);
    if (row.meta !== undefined) encoded.meta = row.meta;
    return encoded;
  }

  /** The ids of a training target: the text and the end-of-turn token. */
  encodeCompletion(text: string): Int32Array {
    return Int32Array.from([...this.tokenizer.encode(text), this.tokenizer.eosId]);
  }

  /** The text of sampled tokens, special tokens left out. */
  decodeCompletion(tokens: ArrayLike<number>): string {
    return this.tokenizer.decode(tokens, { skipSpecial: true });
  }

  /** The text the tokenizer sees for a prompt, before image placeholders are repeated. */
  renderPrompt(prompt: Row['prompt']): string {
    return this.template.render(toMessages(prompt), { addGenerationPrompt: true, variables: this.#variables });
  }

  #tokenizePrompt(row: Row): number[] {
    if (row.images.length > 0 && this.imageProcessor === undefined) {
      throw new GavelError(
        'unsupported',
        `Expected no images for a text model but received ${row.images.length} in row "${row.id}". ` +
          'Use a vision-language checkpoint.',
        { fields: { id: row.id, images: row.images.length } },
      );
    }
    const tokens = this.tokenizer.encode(this.renderPrompt(row.prompt));
    if (this.imageTokenId === undefined) return tokens;
    const placeholders = tokens.reduce((count, id) => count + Number(id === this.imageTokenId), 0);
    if (placeholders === row.images.length) return tokens;
    throw new GavelError(
      'image_count_mismatch',
      `Expected ${row.images.length} image placeholders in the rendered prompt of row "${row.id}" but received ` +
        `${placeholders}. Keep placeholder tokens out of the text, and use a chat template that renders images.`,
      { fields: { id: row.id, placeholders, images: row.images.length } },
    );
  }

  #expandImages(tokens: readonly number[], grids: readonly Grid[]): Int32Array {
    if (grids.length === 0) return Int32Array.from(tokens);
    const counts = grids.map((grid) => this.imageProcessor!.numTokens(grid));
    const out = new Int32Array(tokens.length - counts.length + counts.reduce((sum, count) => sum + count, 0));
    let to = 0;
    let image = 0;
    for (const id of tokens) {
      const repeat = id === this.imageTokenId ? counts[image++]! : 1;
      out.fill(id, to, to + repeat);
      to += repeat;
    }
    return out;
  }

  /** All pictures of a row share one buffer, in order: one thing to transfer, and one to free. */
  #processImages(pictures: readonly RgbImage[], grids: readonly Grid[]): ProcessedImage[] {
    if (pictures.length === 0) return [];
    const processor = this.imageProcessor!;
    const sizes = grids.map((grid) => processor.numValues(grid));
    const pixels = new Float32Array(sizes.reduce((sum, size) => sum + size, 0));
    let start = 0;
    return pictures.map((picture, i) => processor.process(picture, pixels.subarray(start, (start += sizes[i]!))));
  }

  #grid(row: Row, { height, width }: RgbImage): Grid {
    try {
      return this.imageProcessor!.gridFor(height, width);
    } catch (cause) {
      if (!GavelError.is(cause)) throw cause;
      throw new GavelError(cause.code, `Row "${row.id}": ${cause.message}`, {
        fields: { ...cause.fields, id: row.id },
        cause,
      });
    }
  }

  #tooLong(row: Row, numTokens: number): GavelError {
    return new GavelError(
      'prompt_too_long',
      `Expected a prompt of at most ${this.maxPromptTokens} tokens but received ${numTokens} in row "${row.id}". ` +
        'Shorten it, lower `maxPixels`, or raise `maxPromptTokens`; prompts are never truncated.',
      { fields: { id: row.id, tokens: numTokens, maxPromptTokens: this.maxPromptTokens } },
    );
  }
}
