/**
 * Preference pairs of files: this project's own form, TRL's and LLaMA-Factory's chosen and rejected answers, and EditReward's
 * two edits of one picture. Chosen and preferred candidates come first; `preference` says which is better, or that none is.
 */
import { z } from 'zod';
import { messagesOf, turnSchema } from './import-conversations.js';
import { mediaFields } from './import-media.js';
import { importMessages } from './import-messages.js';
import {
  flatten,
  listOf,
  mediaFirst,
  optionalId,
  optionalMeta,
  optionalVideos,
  type ImportedPair,
  type ImportedRow,
  type PairImportResult,
} from './imported-row.js';
import { preferences, type Preference } from './pairs.js';
import { chatMessageSchema, countMarks, fileRowSchema, imageMark, type ChatMessage } from './rows.js';

const preference = z.enum(preferences);
const scoreMap = z.record(z.string(), z.number());

/** `{id?, first, second, preference, dimensions?, scores?, meta?}` with two rows of the project's own form. */
export const filePairSchema = z
  .strictObject({
    id: z
      .union([z.string().min(1), z.number().int()])
      .optional()
      .describe('Unique name; "file:line" when left out.'),
    first: fileRowSchema.describe('One candidate: prompt, images, completion. Its id defaults to "<pair>/1".'),
    second: fileRowSchema.describe('The other candidate. Its id defaults to "<pair>/2".'),
    preference: preference.describe('Which is better.'),
    dimensions: z.record(z.string(), preference).optional().describe('The preference in single dimensions.'),
    scores: z
      .strictObject({ first: scoreMap.describe('Of the first.'), second: scoreMap.describe('Of the second.') })
      .optional()
      .describe('Scores by dimension.'),
    meta: z.record(z.string(), z.unknown()).optional().describe('Anything else.'),
  })
  .describe('A preference pair.');

export function importOwnPair(value: object): PairImportResult {
  const parsed = filePairSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, first, second, preference, dimensions, scores, meta } = parsed.data;
  const pair: ImportedPair = { first: ownRow(first), second: ownRow(second), preference, ...optionalId(id) };
  if (dimensions !== undefined) pair.dimensions = dimensions;
  if (scores !== undefined) pair.scores = scores;
  if (meta !== undefined) pair.meta = meta;
  return { pair };
}

function ownRow({ id, images = [], videos = [], ...rest }: z.infer<typeof fileRowSchema>): ImportedRow {
  return { ...rest, images, ...optionalVideos(videos), ...optionalId(id) };
}

const answerSchema = z.union([z.string(), z.array(chatMessageSchema).min(1)]);
// Messages are read by their own importer: parts may carry their picture themselves.
const anyMessages = z.array(z.looseObject({ role: z.string(), content: z.unknown() })).min(1);

/**
 * TRL: `{prompt, chosen, rejected, image(s)?}`, each a string or messages. Without a prompt, the messages that chosen and
 * rejected begin with in common are it.
 */
export const trlPreferenceSchema = z
  .looseObject({
    ...mediaFields,
    prompt: z
      .union([z.string().min(1), anyMessages])
      .optional()
      .describe('The prompt.'),
    chosen: z.union([z.string(), anyMessages]).describe('The better answer.'),
    rejected: z.union([z.string(), anyMessages]).describe('The worse answer.'),
  })
  .describe("A row of TRL's preference form.");

export function importTrlPreference(value: object): PairImportResult {
  const parsed = trlPreferenceSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, prompt, chosen, rejected, ...meta } = parsed.data;
  const split = splitPrompt(prompt, chosen, rejected);
  if ('reason' in split) return split;
  const good = answerText(split.chosen);
  const bad = answerText(split.rejected);
  if (good === undefined) return { reason: 'chosen: expected text, or one assistant message of text' };
  if (bad === undefined) return { reason: 'rejected: expected text, or one assistant message of text' };
  const base = promptRow(split.prompt, listOf(image, images));
  if ('reason' in base) return base;
  const row: ImportedRow = { ...base.row, ...optionalVideos(listOf(video, videos)) };
  return { pair: answers(row, good, bad, id, meta) };
}

type Messages = z.infer<typeof anyMessages>;
type Answers = { prompt: string | Messages; chosen: string | Messages; rejected: string | Messages };

function splitPrompt(
  prompt: string | Messages | undefined,
  chosen: string | Messages,
  rejected: string | Messages,
): Answers | { reason: string } {
  if (prompt !== undefined)
    return { prompt, chosen: afterPrompt(chosen, prompt), rejected: afterPrompt(rejected, prompt) };
  if (typeof chosen === 'string' || typeof rejected === 'string') return { reason: 'prompt: missing' };
  let shared = 0;
  const longest = Math.min(chosen.length, rejected.length) - 1;
  while (shared < longest && same(chosen[shared], rejected[shared])) shared++;
  if (shared === 0) return { reason: 'prompt: missing, and chosen and rejected begin with different messages' };
  return { prompt: chosen.slice(0, shared), chosen: chosen.slice(shared), rejected: rejected.slice(shared) };
}

/** Some files repeat the prompt at the head of chosen and rejected. */
function afterPrompt(answer: string | Messages, prompt: string | Messages): string | Messages {
  if (typeof answer === 'string' || typeof prompt === 'string' || answer.length <= prompt.length) return answer;
  return prompt.every((message, index) => same(message, answer[index])) ? answer.slice(prompt.length) : answer;
}

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** The text of an answer; undefined when it is more than that. */
function answerText(answer: string | Messages): string | undefined {
  if (typeof answer === 'string') return answer;
  const parsed = answerSchema.safeParse(answer);
  if (!parsed.success || typeof parsed.data === 'string' || parsed.data.length !== 1) return undefined;
  const [{ role, content }] = parsed.data as [ChatMessage];
  if (role !== 'assistant') return undefined;
  if (typeof content === 'string') return content;
  return content.every(({ type }) => type === 'text')
    ? content.map((part) => (part.type === 'text' ? part.text : '')).join('')
    : undefined;
}

/** TRL puts unmarked pictures before a prompt that is text; messages carry their own places. */
function promptRow(prompt: string | Messages, images: string[]): { row: ImportedRow } | { reason: string } {
  if (typeof prompt === 'string') return { row: { prompt: mediaFirst(prompt, images.length), images } };
  const result = importMessages({ messages: prompt, ...(images.length === 0 ? {} : { images }) });
  if ('reason' in result) return result;
  if (result.row.completion !== undefined) return { reason: 'prompt: ends with an answer' };
  const { row } = result;
  const first = row.prompt;
  // As TRL does: messages of text alone get their pictures at the head of the first question.
  if (typeof first !== 'string' && images.length > 0 && countMarks(first).images === 0) {
    const question = first.find(({ role }) => role === 'user');
    if (question !== undefined && typeof question.content === 'string')
      question.content = imageMark.repeat(images.length) + question.content;
  }
  return { row };
}

/** LLaMA-Factory: `{conversations, chosen: {from, value}, rejected: {from, value}, image(s)?}`. */
export const sharegptPreferenceSchema = z
  .looseObject({
    ...mediaFields,
    conversations: z.array(turnSchema).min(1).describe('The turns before the answer.'),
    chosen: turnSchema.describe('The better answer.'),
    rejected: turnSchema.describe('The worse answer.'),
  })
  .describe("A row of LLaMA-Factory's preference form.");

export function importSharegptPreference(value: object): PairImportResult {
  const parsed = sharegptPreferenceSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, conversations, chosen, rejected, ...meta } = parsed.data;
  const turns = messagesOf(conversations);
  if (turns.at(-1)!.role !== 'user') return { reason: 'conversations: the last turn is no question' };
  const only = turns.length === 1 ? (turns[0]!.content as string) : turns;
  const row: ImportedRow = {
    prompt: only,
    images: listOf(image, images),
    ...optionalVideos(listOf(video, videos)),
  };
  return { pair: answers(row, chosen.value, rejected.value, id, meta) };
}

function answers(
  row: ImportedRow,
  chosen: string,
  rejected: string,
  id: string | number | undefined,
  meta: Record<string, unknown>,
): ImportedPair {
  return {
    first: { ...row, completion: chosen },
    second: { ...row, completion: rejected },
    preference: 'first',
    ...optionalId(id),
    ...optionalMeta(meta),
  };
}

/**
 * EditReward: `{prompt, path_src, path1, path2, model{1,2}_<name>_score..., tie_case?}`. The first edit is the preferred one,
 * as its authors define, unless `tie_case` is true. Scores keep their names (dim1, dim2, overall); a dimension that both
 * candidates have gives a preference of its own.
 */
export const editRewardSchema = z
  .looseObject({
    id: mediaFields.id,
    prompt: z.string().min(1).describe('The instruction of the edit.'),
    path_src: z.string().min(1).describe('The picture before the edit.'),
    path1: z.string().min(1).describe('The preferred edit.'),
    path2: z.string().min(1).describe('The other edit.'),
    tie_case: z.boolean().nullish().describe('True when none is preferred.'),
  })
  .describe('A pair of EditReward.');

const scoreKey = /^model([12])_(.+)_score$/;

export function importEditReward(value: object): PairImportResult {
  const parsed = editRewardSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, prompt, path_src, path1, path2, tie_case, ...rest } = parsed.data;
  const scores = { first: {} as Record<string, number>, second: {} as Record<string, number> };
  const meta: Record<string, unknown> = {};
  for (const [key, score] of Object.entries(rest)) {
    const found = scoreKey.exec(key);
    if (found === null) meta[key] = score;
    else if (typeof score === 'number') scores[found[1] === '1' ? 'first' : 'second'][found[2]!] = score;
    else if (score !== null) return { reason: `${key}: expected a number or null` };
  }
  const dimensions: Record<string, Preference> = {};
  for (const [name, score] of Object.entries(scores.first)) {
    const other = scores.second[name];
    if (name === 'overall' || other === undefined) continue;
    dimensions[name] = score > other ? 'first' : score < other ? 'second' : 'tie';
  }
  const candidate = (path: string): ImportedRow => ({ prompt: mediaFirst(prompt, 2), images: [path_src, path] });
  const pair: ImportedPair = {
    first: candidate(path1),
    second: candidate(path2),
    preference: tie_case === true ? 'tie' : 'first',
    ...optionalId(id),
    ...optionalMeta(meta),
  };
  if (Object.keys(dimensions).length > 0) pair.dimensions = dimensions;
  if (Object.keys(scores.first).length + Object.keys(scores.second).length > 0) pair.scores = scores;
  return { pair };
}
