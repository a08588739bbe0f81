/**
 * The one internal row every importer produces and every recipe consumes: a prompt, its images, and what is known about
 * the answer. A string prompt is a single user turn with one "<image>" mark per image, in order.
 */
import { z } from 'zod';
import { GavelError } from '../errors.js';

/** The mark that stands for one image inside a string. */
export const imageMark = '<image>';

/** One piece of a message: text, or the place of the next image of the row. */
export const contentPartSchema = z
  .discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('text').describe('A piece of text, taken literally.'),
      text: z.string().describe('The text; "<image>" has no meaning here.'),
    }),
    z.strictObject({ type: z.literal('image').describe('The place of the next image of the row.') }),
  ])
  .describe('A piece of a message.');

/** A turn of a conversation. */
export const chatMessageSchema = z
  .strictObject({
    role: z.string().min(1).describe('Who speaks: system, user, assistant, tool, or what the chat template knows.'),
    content: z
      .union([z.string(), z.array(contentPartSchema)])
      .describe('A string, where each "<image>" marks the next image of the row, or a list of parts.'),
  })
  .describe('A turn of a conversation.');

/** A row as a data set file holds it; images are paths below the data set folder, or data: URIs. */
export const fileRowSchema = z
  .strictObject({
    id: z
      .union([z.string().min(1), z.number().int()])
      .optional()
      .describe('Unique name; "file:line" when left out.'),
    prompt: z
      .union([z.string().min(1), z.array(chatMessageSchema).min(1)])
      .describe('One user turn with an "<image>" mark per image, or a list of messages.'),
    images: z.array(z.string().min(1)).optional().describe('Paths relative to the data set folder, or data: URIs.'),
    completion: z.string().optional().describe('The target text, without an end-of-turn token.'),
    solution: z.string().optional().describe('The gold answer a verifier compares with.'),
    meta: z
      .record(z.string(), z.unknown())
      .optional()
      .describe('Anything else; carried along, never read by the engine.'),
  })
  .describe('One row of a data set.');

export type ContentPart = z.infer<typeof contentPartSchema>;
export type ChatMessage = z.infer<typeof chatMessageSchema>;
export type FileRow = z.infer<typeof fileRowSchema>;

/** A picture: a file, an encoded file in memory (PNG, JPEG, WebP, ...), or raw 8-bit RGB of size height * width * 3. */
export type ImageSource = { path: string } | { bytes: Uint8Array } | { rgb: Uint8Array; width: number; height: number };

/** One item of work. `completion` is a training target, `solution` the gold answer of a verifier. */
export interface Row {
  id: string;
  prompt: string | ChatMessage[];
  images: ImageSource[];
  completion?: string;
  solution?: string;
  meta?: Record<string, unknown>;
}

/** How many images the marks and parts of a prompt ask for. */
export function countImageMarks(prompt: string | readonly ChatMessage[]): number {
  if (typeof prompt === 'string') return countMarks(prompt);
  let count = 0;
  for (const { content } of prompt) {
    if (typeof content === 'string') count += countMarks(content);
    else for (const part of content) if (part.type === 'image') count++;
  }
  return count;
}

function countMarks(text: string): number {
  let count = 0;
  for (let at = text.indexOf(imageMark); at >= 0; at = text.indexOf(imageMark, at + imageMark.length)) count++;
  return count;
}

/** Throws 'image_count_mismatch', naming the row, unless the prompt has exactly one mark per image. */
export function checkImageCount(row: Pick<Row, 'id' | 'prompt' | 'images'>): void {
  const marks = countImageMarks(row.prompt);
  if (marks === row.images.length) return;
  throw new GavelError(
    'image_count_mismatch',
    `Expected one "${imageMark}" mark per image in the prompt of row "${row.id}" but received ${marks} marks and ` +
      `${row.images.length} images. Give the prompt one mark for each image, in order.`,
    { fields: { id: row.id, marks, images: row.images.length } },
  );
}

/**
 * The messages a chat template sees: a string prompt becomes one user turn, strings with marks become lists of parts,
 * strings without marks stay strings (text-only templates demand that).
 */
export function toMessages(prompt: string | readonly ChatMessage[]): ChatMessage[] {
  if (typeof prompt === 'string') return [{ role: 'user', content: splitMarks(prompt) }];
  return prompt.map(({ role, content }) => ({
    role,
    content: typeof content === 'string' ? splitMarks(content) : content,
  }));
}

function splitMarks(text: string): string | ContentPart[] {
  if (!text.includes(imageMark)) return text;
  const parts: ContentPart[] = [];
  for (const [index, piece] of text.split(imageMark).entries()) {
    if (index > 0) parts.push({ type: 'image' });
    if (piece !== '') parts.push({ type: 'text', text: piece });
  }
  return parts;
}
