/**
 * Rows with `conversations`: LLaVA's files, UnifiedReward's SFT files and ShareGPT (`from` human or gpt), and R3V's files
 * (user or assistant), which mark no picture. The last answer is the completion; earlier answers are context.
 */
import { z } from 'zod';
import { mediaFields } from './import-media.js';
import {
  flatten,
  listOf,
  mediaFirst,
  optionalId,
  optionalMeta,
  optionalVideos,
  type ImportResult,
  type ImportedRow,
} from './imported-row.js';
import { imageMark, videoMark, type ChatMessage } from './rows.js';

const roles = { human: 'user', user: 'user', gpt: 'assistant', assistant: 'assistant', system: 'system' } as const;

/** One turn of a `conversations` list. */
export const turnSchema = z
  .strictObject({
    from: z.enum(['human', 'gpt', 'user', 'assistant', 'system']).describe('Who speaks.'),
    value: z.string().describe('What is said; "<image>" and "<video>" mark the images and videos in order.'),
  })
  .describe('A turn.');

/**
 * `{id?, image(s)?, video(s)?, conversations: [{from, value}]}`: the last gpt turn is the completion; other keys go to meta.
 * Where a row has videos and no images, "<image>" marks stand for the videos, as LLaVA's own files have it.
 */
export const conversationsRowSchema = z
  .looseObject({ ...mediaFields, conversations: z.array(turnSchema).min(1).describe('The turns.') })
  .describe('A row of a conversation file.');

/** LLaVA's form: every picture has its mark. */
export const importLlava = (value: object): ImportResult => importConversations(value, false);

/** R3V's form: where no picture has a mark, all stand before the first question. */
export const importR3v = (value: object): ImportResult => importConversations(value, true);

/** The turns as messages. */
export const messagesOf = (turns: readonly z.infer<typeof turnSchema>[]): ChatMessage[] =>
  turns.map(({ from, value }) => ({ role: roles[from], content: value }));

/** True when a speaker has a name that only R3V's files use. */
export function speaksLikeR3v(value: Record<string, unknown>): boolean {
  const turns = value['conversations'];
  if (!Array.isArray(turns)) return false;
  return turns.some((turn: unknown) => {
    const from = typeof turn === 'object' && turn !== null ? (turn as Record<string, unknown>)['from'] : undefined;
    return from === 'user' || from === 'assistant';
  });
}

function importConversations(value: object, mayLackMarks: boolean): ImportResult {
  const parsed = conversationsRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, conversations, ...meta } = parsed.data;
  const paths = listOf(image, images);
  const films = listOf(video, videos);
  const asVideos =
    films.length > 0 && paths.length === 0 && !conversations.some((turn) => turn.value.includes(videoMark));
  const turns = messagesOf(conversations).map(({ role, content }) => ({
    role,
    content: asVideos ? (content as string).replaceAll(imageMark, videoMark) : (content as string),
  }));
  const last = turns.at(-1)!;
  const completion = last.role === 'assistant' ? turns.pop()!.content : undefined;
  if (turns.length === 0) return { reason: 'conversations: no turn before the answer' };
  if (mayLackMarks && !turns.some(({ content }) => content.includes(imageMark) || content.includes(videoMark))) {
    const question = turns.find(({ role }) => role === 'user');
    if (question !== undefined) question.content = mediaFirst(question.content, paths.length, films.length);
  }
  const only = turns.length === 1 && turns[0]!.role === 'user' ? turns[0]!.content : undefined;
  const row: ImportedRow = {
    prompt: only ?? turns,
    images: paths,
    ...optionalVideos(films),
    ...optionalId(id),
    ...optionalMeta(meta),
  };
  if (completion !== undefined) row.completion = completion;
  return { row };
}
