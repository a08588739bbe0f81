/**
 * The reward token: looked up in tokenizer.json, or added to it, and the vocabulary grown by the rows it needs. Weights that
 * are there stay as they are; a new row is the mean of the others.
 */
import { join } from 'node:path';
import { z } from 'zod';
import { expected } from '../errors.js';
import { corruptFile, readOptionalJson } from './checkpoint-files.js';
import { writeSynced } from './folder.js';
import type { JsonObject } from './model-config.js';

const id = z.number().int().min(0);
const tokenizerSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id, content: z.string() })).nullish(),
  model: z.looseObject({ vocab: z.union([z.record(z.string(), id), z.array(z.unknown())]) }),
});

const file = 'tokenizer.json';

async function readTokenizer(folder: string): Promise<z.output<typeof tokenizerSchema> | undefined> {
  const json = await readOptionalJson(folder, file);
  if (json === undefined) return undefined;
  const parsed = tokenizerSchema.safeParse(json);
  if (!parsed.success) throw corruptFile(join(folder, file), z.prettifyError(parsed.error).replaceAll('\n', '; '));
  return parsed.data;
}

/** The id of a text that is one token, and the first id after all tokens. */
function lookUp(
  { added_tokens: added, model }: z.output<typeof tokenizerSchema>,
  text: string,
): { found: number | undefined; next: number } {
  const { vocab } = model;
  const pieces = Array.isArray(vocab)
    ? vocab.map((piece, i): [unknown, number] => [Array.isArray(piece) ? piece[0] : piece, i])
    : Object.entries(vocab);
  let found = added?.find(({ content }) => content === text)?.id;
  let next = 0;
  for (const [piece, at] of pieces) {
    if (piece === text) found ??= at;
    next = Math.max(next, at + 1);
  }
  for (const one of added ?? []) next = Math.max(next, one.id + 1);
  return { found, next };
}

/**
 * The id of the reward token. `folder` holds the tokenizer.
 * Errors: 'invalid_argument' for a text without a tokenizer.json to look it up in, 'corrupt_checkpoint'.
 */
export async function findRewardToken(token: string | number, folder: string | undefined): Promise<number> {
  if (typeof token === 'number') return token;
  const tokenizer = folder === undefined ? undefined : await readTokenizer(folder);
  if (tokenizer === undefined) {
    throw expected(
      'invalid_argument',
      'rewardHead.token',
      'a token id for a model without tokenizer.json',
      token,
      'Give the id of an unused row of the embedding, or a folder with a tokenizer.',
    );
  }
  const { found, next } = lookUp(tokenizer, token);
  return found ?? next;
}

/** Makes `text` the token `tokenId` of the tokenizer files in `folder`, unless they know it. */
export async function addRewardToken(folder: string, text: string, tokenId: number): Promise<void> {
  const tokenizer = await readTokenizer(folder);
  if (tokenizer === undefined || lookUp(tokenizer, text).found !== undefined) return;
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  const added = [...(tokenizer.added_tokens ?? []), { id: tokenId, content: text, ...flags }];
  await writeJson(folder, file, { ...tokenizer, added_tokens: added });
  // What transformers reads beside it.
  const config = await readOptionalJson(folder, 'tokenizer_config.json');
  const decoder = config?.['added_tokens_decoder'];
  if (config !== undefined && typeof decoder === 'object' && decoder !== null) {
    const more = { ...decoder, [String(tokenId)]: { content: text, ...flags } };
    await writeJson(folder, 'tokenizer_config.json', { ...config, added_tokens_decoder: more });
  }
  const list = await readOptionalJson(folder, 'added_tokens.json');
  if (list !== undefined) await writeJson(folder, 'added_tokens.json', { ...list, [text]: tokenId });
}

const writeJson = (folder: string, name: string, value: unknown): Promise<void> =>
  writeSynced(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);

const isObject = (value: unknown): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `vocab_size` of a config; a vision-language model has it in `text_config`. */
export function vocabularySize(config: JsonObject): number | undefined {
  const inner = config['text_config'];
  const size = (isObject(inner) ? inner['vocab_size'] : undefined) ?? config['vocab_size'];
  return typeof size === 'number' ? size : undefined;
}

/** The config with room for `tokenId`, and the rows that the checkpoint has when they are fewer. */
export function withRoomFor(
  config: JsonObject,
  tokenId: number,
  mayGrow: boolean,
): { config: JsonObject; storedRows?: number } {
  const rows = vocabularySize(config);
  if (rows === undefined || tokenId < rows) return { config };
  if (!mayGrow) {
    throw expected(
      'invalid_argument',
      'rewardHead.token',
      `an id below the vocabulary size ${rows}`,
      tokenId,
      'Give the text of a token instead: the embedding then grows with the tokenizer.',
    );
  }
  const size = tokenId + 1;
  const inner = config['text_config'];
  return {
    config: {
      ...config,
      ...('vocab_size' in config ? { vocab_size: size } : {}),
      ...(isObject(inner) && 'vocab_size' in inner ? { text_config: { ...inner, vocab_size: size } } : {}),
    },
    storedRows: rows,
  };
}
