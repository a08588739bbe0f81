/**
 * Rows to what the engine takes: chat template, ids with every placeholder repeated to its number of tokens, pixel values.
 * Nothing is ever truncated. Runs in the data threads; `decodeCompletion` also on the main one.
 */
import { parseOptions } from '../engine/parse-options.js';
import { GavelError, expected } from '../errors.js';
import { readOptionalJson } from './checkpoint-files.js';
import { decodeImage, type RgbImage } from './decode-image.js';
import { loadVision } from './load-vision.js';
import { expandPlaceholders, findPlaceholders, type Placeholders } from './placeholders.js';
import { checkImageCount, rowSchema, toMessages, type ChatMessage, type Row } from './rows.js';
import { ChatTemplate } from './template.js';
import { checkTemplateTokens } from './template-tokens.js';
import { Tokenizer } from './tokenizer.js';
import { openVideo, type OpenVideo } from './video-source.js';
import {
  describe,
  type ProcessedImage,
  type VideoPlan,
  type VisionOptions,
  type VisionPlan,
  type VisionProcessor,
} from './vision-processor.js';

/**
 * One row, ready for a pack. `images` holds pictures and videos in the order of their placeholders in `promptTokens`; their
 * pixels are views into one buffer per row.
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
export interface ProcessorOptions extends VisionOptions {
  /** The longest prompt, in tokens, images included. Default: the checkpoint's max_position_embeddings. */
  maxPromptTokens?: number;
  /** The largest picture or frame, in pixels, that is decoded. */
  limitPixels?: number;
  /** The ffmpeg that reads video files, by name or path. Default: "ffmpeg". */
  ffmpeg?: string;
  /** Further variables of the chat template. */
  templateVariables?: Record<string, unknown>;
}

/** A picture or video of a row: its plan, and what its pixels will be made from. */
type Visual = { plan: VisionPlan; picture: RgbImage } | { plan: VideoPlan; film: OpenVideo };

/** Template, tokenizer and image processor of one checkpoint folder. */
export class Processor {
  readonly tokenizer: Tokenizer;
  readonly template: ChatTemplate;
  /** Absent for a text model, and where the folder has no processor files. */
  readonly vision: VisionProcessor | undefined;
  /** The ids that placeholders have in a prompt; absent for a text model. */
  readonly imageTokenId: number | undefined;
  readonly videoTokenId: number | undefined;
  readonly maxPromptTokens: number;
  /** The longest prompt with its completion, in tokens: the model's positions, or `maxPromptTokens` where that is more. */
  readonly maxTokens: number;
  /** The folder of a vision-language model without processor files: good for text alone. */
  readonly #unprocessed: string | undefined;
  readonly #options: ProcessorOptions;
  readonly #variables: Record<string, unknown>;

  private constructor(
    parts: Pick<
      Processor,
      'tokenizer' | 'template' | 'vision' | 'imageTokenId' | 'videoTokenId' | 'maxPromptTokens' | 'maxTokens'
    > & { unprocessed: string | undefined },
    options: ProcessorOptions,
  ) {
    this.tokenizer = parts.tokenizer;
    this.template = parts.template;
    this.vision = parts.vision;
    this.imageTokenId = parts.imageTokenId;
    this.videoTokenId = parts.videoTokenId;
    this.maxPromptTokens = parts.maxPromptTokens;
    this.maxTokens = parts.maxTokens;
    this.#unprocessed = parts.unprocessed;
    this.#options = options;
    this.#variables = { ...parts.tokenizer.namedTokens, ...options.templateVariables };
  }

  /** Reads a checkpoint folder; weights are not touched. */
  static async load(folder: string, options: ProcessorOptions = {}): Promise<Processor> {
    const [tokenizer, template, vision, config = {}] = await Promise.all([
      Tokenizer.load(folder),
      ChatTemplate.load(folder),
      loadVision(folder, options),
      readOptionalJson(folder, 'config.json'),
    ]);
    const text = (config['text_config'] as Record<string, unknown> | undefined) ?? config;
    const rows = text['vocab_size'];
    if (typeof rows === 'number') tokenizer.selfCheck(rows);
    const named = text['max_position_embeddings'];
    const positions = typeof named === 'number' ? named : Infinity;
    const maxPromptTokens = options.maxPromptTokens ?? positions;
    return new Processor(
      {
        tokenizer,
        template,
        vision,
        imageTokenId: vision && placeholderId(tokenizer, vision.imageToken, config, 'image'),
        videoTokenId: vision && placeholderId(tokenizer, vision.videoToken, config, 'video'),
        maxPromptTokens,
        maxTokens: Math.max(positions, maxPromptTokens),
        unprocessed: vision === undefined && config['vision_config'] !== undefined ? folder : undefined,
      },
      options,
    );
  }

  /**
   * Encodes one row. Errors, each naming the row: 'image_count_mismatch', 'image_unreadable', 'prompt_too_long',
   * 'unsupported' (images for a text model), 'tokenizer_mismatch' (text or a template's token that the vocabulary lacks),
   * 'binary_missing' (a video file without ffmpeg), 'bad_data', 'invalid_argument'.
   */
  async encode(row: Row): Promise<EncodedRow> {
    parseOptions(rowSchema, row, 'row');
    try {
      return await this.#encode(row);
    } catch (cause) {
      if (!GavelError.is(cause) || cause.fields['id'] !== undefined) throw cause;
      throw new GavelError(cause.code, `Row "${row.id}": ${cause.message}`, {
        fields: { ...cause.fields, id: row.id },
        cause,
      });
    }
  }

  async #encode(row: Row): Promise<EncodedRow> {
    checkImageCount(row);
    const placeholders = this.#findPlaceholders(row);
    const visuals = await this.#plan(row, placeholders);
    const plans = visuals.map(({ plan }) => plan);
    const ids = [this.imageTokenId, this.videoTokenId];
    const tokens = expandPlaceholders(this.tokenizer, placeholders, plans, ids, row.id);
    if (tokens.length > this.maxPromptTokens) throw this.#tooLong(row, tokens.length);
    const completion = row.completion === undefined ? undefined : this.encodeCompletion(row.completion);
    const numTokens = tokens.length + (completion?.length ?? 0);
    if (numTokens > this.maxTokens) throw this.#completionTooLong(row, tokens.length, numTokens);
    const encoded: EncodedRow = { id: row.id, promptTokens: tokens, images: await this.#pixels(visuals) };
    if (completion !== undefined) encoded.completionTokens = completion;
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

  /** The text the tokenizer sees for a prompt, before placeholders are repeated. */
  renderPrompt(prompt: Row['prompt']): string {
    return this.#render(toMessages(prompt));
  }

  #render(messages: ChatMessage[]): string {
    const text = this.template.render(messages, { addGenerationPrompt: true, variables: this.#variables });
    checkTemplateTokens(text, messages, this.tokenizer);
    return text;
  }

  #findPlaceholders(row: Row): Placeholders {
    const videos = row.videos?.length ?? 0;
    const { vision } = this;
    const text = this.renderPrompt(row.prompt);
    if (vision !== undefined) return findPlaceholders(text, vision, { id: row.id, images: row.images.length, videos });
    if (row.images.length + videos === 0) return { pieces: [text], kinds: [] };
    if (this.#unprocessed !== undefined) {
      throw new GavelError(
        'io',
        `Expected preprocessor_config.json in "${this.#unprocessed}" for the images or videos of row "${row.id}" but found ` +
          'none. Add the processor files that the checkpoint was published with.',
        { fields: { id: row.id, path: this.#unprocessed } },
      );
    }
    throw new GavelError(
      'unsupported',
      `Expected no images or videos for a text model but received ${row.images.length} and ${videos} in row "${row.id}". ` +
        'Use a vision-language checkpoint.',
      { fields: { id: row.id, images: row.images.length, videos } },
    );
  }

  /** Sizes only: pictures are decoded, of videos no more than a frame. */
  async #plan(row: Row, { kinds }: Placeholders): Promise<Visual[]> {
    const { vision } = this;
    if (vision === undefined) return [];
    const pictures = row.images.map(async (source): Promise<Visual> => {
      const picture = await decodeImage(source, row.id, this.#options);
      return { plan: vision.planImage(picture.height, picture.width, row.images.length), picture };
    });
    const films = (row.videos ?? []).map(async (source): Promise<Visual> => {
      const film = await openVideo(source, row.id, this.#options);
      return { plan: vision.planVideo(film.facts), film };
    });
    const planned = { image: (await Promise.all(pictures)).values(), video: (await Promise.all(films)).values() };
    return kinds.map((kind) => planned[kind].next().value!);
  }

  /** All pictures of a row share one buffer, in order: one thing to transfer, and one to free. */
  async #pixels(visuals: readonly Visual[]): Promise<ProcessedImage[]> {
    const { vision } = this;
    if (vision === undefined || visuals.length === 0) return [];
    const all = new Float32Array(visuals.reduce((sum, { plan }) => sum + plan.numValues, 0));
    const images: ProcessedImage[] = [];
    let start = 0;
    for (const visual of visuals) {
      const pixels = all.subarray(start, (start += visual.plan.numValues));
      if ('picture' in visual) vision.writeImage(visual.picture, visual.plan, pixels);
      else await vision.writeVideo(visual.film.frames(visual.plan.frames), visual.plan, pixels);
      images.push({ pixels, ...describe(visual.plan) });
    }
    return images;
  }

  #tooLong(row: Row, numTokens: number): GavelError {
    const advice = (row.videos?.length ?? 0) > 0 ? 'lower `video.fps` or `video.maxPixels`' : 'lower `maxPixels`';
    return new GavelError(
      'prompt_too_long',
      `Expected a prompt of at most ${this.maxPromptTokens} tokens but received ${numTokens} in row "${row.id}". ` +
        `Shorten it, ${advice}, or raise \`maxPromptTokens\`; prompts are never truncated.`,
      { fields: { id: row.id, tokens: numTokens, maxPromptTokens: this.maxPromptTokens } },
    );
  }

  #completionTooLong(row: Row, promptTokens: number, numTokens: number): GavelError {
    return new GavelError(
      'prompt_too_long',
      `Expected at most ${this.maxTokens} tokens in a prompt and its completion, the model's positions, but received ` +
        `${promptTokens} and ${numTokens - promptTokens} in row "${row.id}". Shorten one of them; nothing is ever truncated.`,
      { fields: { id: row.id, tokens: numTokens, promptTokens, maxTokens: this.maxTokens } },
    );
  }
}

/** The id of a placeholder. Model and tokenizer must agree on it. */
function placeholderId(
  tokenizer: Tokenizer,
  token: string,
  config: Record<string, unknown>,
  kind: 'image' | 'video',
): number | undefined {
  const id = tokenizer.tokenId(token);
  const named = config[`${kind}_token_id`] ?? config[`${kind}_token_index`];
  if (id === undefined || named === undefined || named === null || named === id) return id;
  throw expected(
    'tokenizer_mismatch',
    `${kind}_token_id`,
    `${id}, the id of "${token}" in the tokenizer,`,
    named,
    'Use the tokenizer the model was made with.',
  );
}
