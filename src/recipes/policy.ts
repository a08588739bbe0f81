/**
 * What recipes train: a model's verbs and the data threads that turn rows into its input, behind one small face. Everything
 * here is asynchronous and answers the signal.
 */
import type { NativeGroup } from '../binding/contract.js';
import type { EncodedRow } from '../data/processor.js';
import type { Row } from '../data/rows.js';
import { DataThreads, type DataThreadsOptions } from '../data/threads.js';
import { Tokenizer } from '../data/tokenizer.js';
import { Model, type SampleRequest } from '../engine/model.js';
import { expected } from '../errors.js';
import type { SampleStats } from '../engine/sample-run.js';
import { nameKey } from '../seeded.js';
import type { DrawSettings } from './draw-options.js';

export interface DrawOptions extends DrawSettings {
  /** Samples of each row. */
  count: number;
  /** Index of the first one, or of each row's first one. Default: 0. */
  firstSample?: number | readonly number[];
  seed: number;
  maxNewTokens: number;
  signal: AbortSignal;
}

/** One sampled completion of `rows[item]`. */
export interface DrawnCompletion {
  item: number;
  sample: number;
  tokens: Int32Array;
  logprobs: Float32Array;
  text: string;
  finishReason: 'stop' | 'length';
}

export class Policy implements AsyncDisposable {
  readonly model: Model;
  readonly #data: DataThreads;
  readonly #tokenizer: Tokenizer;
  /** The model's own, and ids that the embedding is padded with: they have no text. */
  readonly #bannedTokens: number[];

  private constructor(model: Model, data: DataThreads, tokenizer: Tokenizer) {
    this.model = model;
    this.#data = data;
    this.#tokenizer = tokenizer;
    const rows = vocabularyRows(model.config);
    const padding = Array.from({ length: Math.max(0, rows - tokenizer.vocabSize) }, (_, i) => tokenizer.vocabSize + i);
    this.#bannedTokens = [...model.bannedTokens, ...padding];
  }

  /**
   * A policy of `model` that reads rows with the tokenizer, template and image processor of `folder`, by default the one
   * the model was loaded from. Disposing of it ends the data threads; the model stays its owner's.
   */
  static async open(model: Model, folder?: string, options: DataThreadsOptions = {}): Promise<Policy> {
    const received: unknown = model;
    if (!(received instanceof Model)) throw expected('invalid_argument', 'model', 'a model of an engine', received);
    folder ??= model.folder;
    if (folder === undefined) {
      throw expected(
        'invalid_argument',
        'folder',
        'a folder with tokenizer.json',
        folder,
        'This model has none of its own.',
      );
    }
    const [data, tokenizer] = await Promise.all([DataThreads.start(folder, options), Tokenizer.load(folder)]);
    return new Policy(model, data, tokenizer);
  }

  /** Rows as the model's input, made in the data threads. */
  encode(rows: readonly Row[], signal: AbortSignal): Promise<EncodedRow[]> {
    return this.#data.encode(rows, { signal });
  }

  /** A target as the model's input: its tokens and the end-of-turn token. */
  encodeCompletion(text: string): Int32Array {
    return Int32Array.from([...this.#tokenizer.encode(text), this.#tokenizer.eosId]);
  }

  /** Text of sampled tokens, special tokens left out. */
  decode(tokens: Int32Array): string {
    return this.#tokenizer.decode(tokens, { skipSpecial: true });
  }

  /**
   * Draws `count` completions of each row; `onCompletion` gets each as it finishes. The numbers depend on the row's id, the
   * seed, the sample index and the weights alone.
   */
  async draw(
    rows: readonly EncodedRow[],
    options: DrawOptions,
    onCompletion: (completion: DrawnCompletion) => void,
  ): Promise<SampleStats> {
    const { firstSample = 0, signal, stopStrings = [], ...draw } = options;
    const requests = rows.map((row, i): SampleRequest => ({
      id: nameKey(row.id),
      promptTokens: row.promptTokens,
      images: row.images,
      firstSample: typeof firstSample === 'number' ? firstSample : firstSample[i]!,
    }));
    return this.model.sample(requests, {
      ...draw,
      signal,
      ...(stopStrings.length === 0 ? {} : { stopStrings, tokenBytes: this.#tokenizer.tokenBytes() }),
      bannedTokens: this.#bannedTokens,
      onCompletions: (completions) => {
        for (const { request, sample, tokens, logprobs, finishReason } of completions) {
          onCompletion({ item: request, sample, tokens, logprobs, finishReason, text: this.decode(tokens) });
        }
      },
    });
  }

  /** Weights and optimizer into a folder. */
  save(folder: string): Promise<void> {
    return this.model.save(folder);
  }

  /** What `save` wrote. */
  load(folder: string): Promise<void> {
    return this.model.load(folder);
  }

  /** Ends the data threads. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#data.dispose();
  }
}

/** Rows of the embedding. */
function vocabularyRows(config: Readonly<Record<string, unknown>>): number {
  const text = (config['text_config'] as Record<string, unknown> | undefined) ?? config;
  return Number(text['vocab_size'] ?? config['vocab_size'] ?? 0);
}

/** A supervised row as a group with one completion. */
export function supervisedGroup(row: EncodedRow): NativeGroup {
  return {
    promptTokens: row.promptTokens,
    images: row.images,
    completions: [{ tokens: row.completionTokens ?? new Int32Array(0) }],
  };
}
