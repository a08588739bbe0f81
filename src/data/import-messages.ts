/**
 * Rows with `messages`, as chats are written for transformers, TRL and OpenAI's service: parts may carry their picture or
 * video themselves, and a last assistant turn is the completion unless the row names one.
 */
import { z } from 'zod';
import { flatten, optionalId, optionalVideos, type ImportResult, type ImportedRow } from './imported-row.js';
import {
  countMarks,
  fileRowSchema,
  fileVideoSchema,
  type ChatMessage,
  type ContentPart,
  type FileVideo,
} from './rows.js';

const path = z.string().min(1);

const partSchema = z
  .union([
    z.strictObject({ type: z.literal('text'), text: z.string() }),
    z.strictObject({ type: z.literal('image'), image: path.optional(), path: path.optional(), url: path.optional() }),
    z.strictObject({ type: z.literal('image_url'), image_url: z.union([path, z.looseObject({ url: path })]) }),
    z.strictObject({ type: z.literal('video'), video: fileVideoSchema.optional(), path: path.optional() }),
  ])
  .describe('Text, or the place of an image or a video, with or without its path.');

/** `{id?, messages, images?, videos?, completion?, solution?, meta?}`. */
export const messagesRowSchema = fileRowSchema
  .omit({ prompt: true })
  .extend({
    messages: z
      .array(z.strictObject({ role: z.string().min(1), content: z.union([z.string(), z.array(partSchema)]) }))
      .min(1)
      .describe('The turns; a last assistant turn is the completion where the row names none.'),
  })
  .describe('A row of a chat file.');

type Part = z.infer<typeof partSchema>;

/** Paths inside parts and lists beside them would leave the order open: a row has one or the other. */
export function importMessages(value: object): ImportResult {
  const parsed = messagesRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, messages, images, videos, ...rest } = parsed.data;
  const inline = { images: [] as string[], videos: [] as FileVideo[] };
  const turns = messages.map(({ role, content }): ChatMessage => {
    return { role, content: typeof content === 'string' ? content : content.map((part) => plainPart(part, inline)) };
  });
  if (inline.images.length > 0 && images !== undefined) return { reason: 'images: both in messages and beside them' };
  if (inline.videos.length > 0 && videos !== undefined) return { reason: 'videos: both in messages and beside them' };
  const row: ImportedRow = {
    ...rest,
    prompt: turns,
    images: images ?? inline.images,
    ...optionalVideos(videos ?? inline.videos),
    ...optionalId(id),
  };
  const last = turns.at(-1)!;
  if (row.completion !== undefined || last.role !== 'assistant') return { row };
  const text = plainText(last.content);
  if (text === undefined) return { reason: 'messages: the answer may hold text only' };
  turns.pop();
  return turns.length === 0 ? { reason: 'messages: no turn before the answer' } : { row: { ...row, completion: text } };
}

function plainPart(part: Part, found: { images: string[]; videos: FileVideo[] }): ContentPart {
  if (part.type === 'text') return part;
  if (part.type === 'video') {
    const source = part.video ?? part.path;
    if (source !== undefined) found.videos.push(source);
    return { type: 'video' };
  }
  const source =
    part.type === 'image'
      ? (part.image ?? part.path ?? part.url)
      : typeof part.image_url === 'string'
        ? part.image_url
        : part.image_url.url;
  if (source !== undefined) found.images.push(source);
  return { type: 'image' };
}

function plainText(content: ChatMessage['content']): string | undefined {
  const { images, videos } = countMarks([{ role: 'assistant', content }]);
  if (images > 0 || videos > 0) return undefined;
  if (typeof content === 'string') return content;
  return content.map((part) => (part.type === 'text' ? part.text : '')).join('');
}
