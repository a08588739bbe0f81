/**
 * The one internal row every importer produces and every recipe consumes: a prompt, its images and videos, and what is known
 * about the answer. A string prompt is a single user turn with one "<image>" or "<video>" mark for each, in order.
 */
import { z } from 'zod';
import { GavelError } from '../errors.js';

/** The marks that stand for one image, or one video, inside a string. */
export const imageMark = '<image>';
export const videoMark = '<video>';

/** One piece of a message: text, or the place of the next image or video of the row. */
export const contentPartSchema = z
  .discriminatedUnion('type', [
    z.strictObject({
      type: z.literal('text').describe('A piece of text, taken literally.'),
      text: z.string().describe('The text; "<image>" and "<video>" have no meaning here.'),
    }),
    z.strictObject({ type: z.literal('image').describe('The place of the next image of the row.') }),
    z.strictObject({ type: z.literal('video').describe('The place of the next video of the row.') }),
  ])
  .describe('A piece of a message.');

/** A turn of a conversation. */
export const chatMessageSchema = z
  .strictObject({
    role: z.string().min(1).describe('Who speaks: system, user, assistant, tool, or what the chat template knows.'),
    content: z
      .union([z.string(), z.array(contentPartSchema)])
      .describe('A string, where each "<image>" or "<video>" marks the next one of the row, or a list of parts.'),
  })
  .describe('A turn of a conversation.');

const framesPerSecond = z.number().positive().optional().describe('Their rate in frames a second. Default: 24.');
const imagePaths = z.array(z.string().min(1));

/** A video in a file: a path of a video file or of a folder of pictures, or the pictures themselves. */
export const fileVideoSchema = z
  .union([
    z.string().min(1).describe('A video file, or a folder of pictures named by number.'),
    z.strictObject({ path: z.string().min(1).describe('A video file.') }),
    z.strictObject({
      folder: z.string().min(1).describe('A folder of pictures named by number.'),
      fps: framesPerSecond,
    }),
    z.strictObject({ frames: imagePaths.min(1).describe('Pictures, in order.'), fps: framesPerSecond }),
  ])
  .describe('A video.');

/** A row as a data set file holds it; images and videos are paths below the data set folder, or data: URIs of images. */
export const fileRowSchema = z
  .strictObject({
    id: z
      .union([z.string().min(1), z.number().int()])
      .optional()
      .describe('Unique name; "file:line" when left out.'),
    prompt: z
      .union([z.string().min(1), z.array(chatMessageSchema).min(1)])
      .describe('One user turn with an "<image>" or "<video>" mark for each, or a list of messages.'),
    images: imagePaths.optional().describe('Paths relative to the data set folder, or data: URIs.'),
    videos: z.array(fileVideoSchema).optional().describe('Paths relative to the data set folder, or lists of frames.'),
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
export type FileVideo = z.infer<typeof fileVideoSchema>;
export type FileRow = z.infer<typeof fileRowSchema>;

const bytes = z.custom<Uint8Array>((value) => value instanceof Uint8Array, { error: 'must be a Uint8Array' });
const side = z.number().int().positive();
const imageSourceSchema = z
  .union(
    [
      z.strictObject({ path: z.string() }),
      z.strictObject({ bytes }),
      z.strictObject({ rgb: bytes, width: side, height: side }),
    ],
    { error: 'must be { path }, { bytes } or { rgb, width, height }' },
  )
  .describe(
    'A picture: a file, an encoded file in memory (PNG, JPEG, WebP, ...), or raw 8-bit RGB of height * width * 3.',
  );
const videoSourceSchema = z
  .union(
    [
      z.strictObject({ path: z.string() }),
      z.strictObject({ folder: z.string(), fps: z.number().positive().exactOptional() }),
      z.strictObject({ frames: z.array(imageSourceSchema), fps: z.number().positive().exactOptional() }),
    ],
    { error: 'must be { path }, { folder, fps? } or { frames, fps? }' },
  )
  .describe(
    'A video: a file that ffmpeg reads (or a folder), a folder of pictures named by number, or its frames. `fps` is the rate of ' +
      'pictures; a file knows its own.',
  );
export const rowSchema = z
  .strictObject({
    id: z.string(),
    prompt: z.union([z.string(), z.array(chatMessageSchema)], { error: 'must be a string or an array of messages' }),
    images: z.array(imageSourceSchema, { error: 'must be an array; [] for a row of text' }),
    videos: z.array(videoSourceSchema).exactOptional(),
    completion: z.string().exactOptional(),
    solution: z.string().exactOptional(),
    meta: z.record(z.string(), z.unknown()).exactOptional(),
  })
  .describe('One item of work. `completion` is a training target, `solution` the gold answer of a verifier.');
export const rowsSchema = z.array(rowSchema);

export type ImageSource = z.infer<typeof imageSourceSchema>;
export type VideoSource = z.infer<typeof videoSourceSchema>;
export type Row = z.infer<typeof rowSchema>;

/** How many images and videos the marks and parts of a prompt ask for. */
export function countMarks(prompt: string | readonly ChatMessage[]): { images: number; videos: number } {
  const counts = { images: 0, videos: 0 };
  const count = (parts: string | readonly ContentPart[]): void => {
    const pieces = typeof parts === 'string' ? splitMarks(parts) : parts;
    if (typeof pieces === 'string') return;
    for (const { type } of pieces) {
      if (type === 'image') counts.images++;
      if (type === 'video') counts.videos++;
    }
  };
  if (typeof prompt === 'string') count(prompt);
  else for (const { content } of prompt) count(content);
  return counts;
}

/** Throws 'image_count_mismatch', naming the row, unless the prompt has exactly one mark per image and per video. */
export function checkImageCount(row: Pick<Row, 'id' | 'prompt' | 'images' | 'videos'>): void {
  const marks = countMarks(row.prompt);
  const videos = row.videos?.length ?? 0;
  if (marks.images === row.images.length && marks.videos === videos) return;
  const kind = marks.images === row.images.length ? 'video' : 'image';
  const [counted, given] = kind === 'image' ? [marks.images, row.images.length] : [marks.videos, videos];
  throw new GavelError(
    'image_count_mismatch',
    `Expected one "<${kind}>" mark per ${kind} in the prompt of row "${row.id}" but received ${counted} marks and ` +
      `${given} ${kind}s. Give the prompt one mark for each ${kind}, in order.`,
    { fields: { id: row.id, marks: counted, [`${kind}s`]: given } },
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
  if (!text.includes(imageMark) && !text.includes(videoMark)) return text;
  const parts: ContentPart[] = [];
  for (const piece of text.split(/(<image>|<video>)/)) {
    if (piece === imageMark) parts.push({ type: 'image' });
    else if (piece === videoMark) parts.push({ type: 'video' });
    else if (piece !== '') parts.push({ type: 'text', text: piece });
  }
  return parts;
}
