/**
 * Rows of other projects' files, told apart by their keys: `conversations` is LLaVA (and UnifiedReward's SFT files),
 * `problem` is UnifiedReward's GRPO files, `messages` is a chat as transformers and TRL write it, anything else is this
 * project's own form. Reasons for refusal are plain text.
 */
import { z } from 'zod';
import { importMessages } from './import-messages.js';
import { flatten, optionalId, optionalVideos, type ImportResult, type ImportedRow } from './imported-row.js';
import { countMarks, fileRowSchema, fileVideoSchema, imageMark, videoMark, type ChatMessage } from './rows.js';

export type { ImportResult, ImportedRow, RowRefusal } from './imported-row.js';

const imageList = z.union([z.string().min(1), z.array(z.string().min(1))]);
const videoList = z.union([fileVideoSchema, z.array(fileVideoSchema)]);

const media = {
  id: z.union([z.string(), z.number()]).optional().describe('Unique name; "file:line" when left out.'),
  image: imageList.optional().describe('One path, or several.'),
  images: imageList.optional().describe('Several paths, or one.'),
  video: videoList.optional().describe('One video, or several.'),
  videos: videoList.optional().describe('Several videos, or one.'),
};

/**
 * `{id?, image(s)?, video(s)?, conversations: [{from, value}]}`: the last gpt turn is the completion; other keys go to meta.
 * Where a row has videos and no images, "<image>" marks stand for the videos, as LLaVA's own files have it.
 */
export const llavaRowSchema = z
  .looseObject({
    ...media,
    conversations: z
      .array(z.strictObject({ from: z.enum(['human', 'gpt', 'system']), value: z.string() }))
      .min(1)
      .describe('Turns; "<image>" and "<video>" mark the images and videos in order.'),
  })
  .describe('A row of a LLaVA-style conversation file.');

/** `{id?, problem, solution, image(s)?, video(s)?}`: without any mark they come before the text. Other keys go to meta. */
export const problemRowSchema = z
  .looseObject({
    ...media,
    problem: z.string().min(1).describe('The prompt.'),
    solution: z.string().min(1).describe('The gold answer, bare or inside <answer> tags.'),
  })
  .describe('A row of a UnifiedReward GRPO file.');

/** Reads one parsed JSON value. */
export function importRow(value: unknown): ImportResult {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { reason: 'not a JSON object' };
  const result =
    'conversations' in value
      ? importLlava(value)
      : 'problem' in value
        ? importProblem(value)
        : 'messages' in value
          ? importMessages(value)
          : importOwn(value);
  if ('reason' in result) return result;
  const { prompt, images, videos = [] } = result.row;
  const marks = countMarks(prompt);
  const code = 'image_count_mismatch' as const;
  if (marks.images !== images.length) {
    return { code, reason: `${marks.images} "${imageMark}" marks in the prompt but ${images.length} images` };
  }
  if (marks.videos !== videos.length) {
    return { code, reason: `${marks.videos} "${videoMark}" marks in the prompt but ${videos.length} videos` };
  }
  return result;
}

function importOwn(value: object): ImportResult {
  const parsed = fileRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, images = [], videos, ...rest } = parsed.data;
  return { row: { ...rest, images, ...optionalVideos(videos ?? []), ...optionalId(id) } };
}

function importLlava(value: object): ImportResult {
  const parsed = llavaRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, conversations, ...meta } = parsed.data;
  const paths = listOf(image, images);
  const films = listOf(video, videos);
  const roles = { human: 'user', gpt: 'assistant', system: 'system' } as const;
  const asVideos =
    films.length > 0 && paths.length === 0 && !conversations.some((turn) => turn.value.includes(videoMark));
  const turns: ChatMessage[] = conversations.map(({ from, value: content }) => ({
    role: roles[from],
    content: asVideos ? content.replaceAll(imageMark, videoMark) : content,
  }));
  const last = turns.at(-1)!;
  const completion = last.role === 'assistant' ? (turns.pop()!.content as string) : undefined;
  if (turns.length === 0) return { reason: 'conversations: no turn before the answer' };
  const only = turns.length === 1 && turns[0]!.role === 'user' ? (turns[0]!.content as string) : undefined;
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

function importProblem(value: object): ImportResult {
  const parsed = problemRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, problem, solution, ...meta } = parsed.data;
  const paths = listOf(image, images);
  const films = listOf(video, videos);
  const marked = problem.includes(imageMark) || problem.includes(videoMark);
  const prompt = marked ? problem : imageMark.repeat(paths.length) + videoMark.repeat(films.length) + problem;
  const tagged = /^\s*<answer>([\s\S]*)<\/answer>\s*$/.exec(solution);
  const row: ImportedRow = { prompt, images: paths, solution: (tagged?.[1] ?? solution).trim() };
  return { row: { ...row, ...optionalVideos(films), ...optionalId(id), ...optionalMeta(meta) } };
}

function listOf<T>(...lists: (T | T[] | undefined)[]): T[] {
  return lists.flatMap((list) => list ?? []);
}

function optionalMeta(meta: Record<string, unknown>): { meta?: Record<string, unknown> } {
  return Object.keys(meta).length === 0 ? {} : { meta };
}
