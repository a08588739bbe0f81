/**
 * Rows of other projects' files, told apart by their keys: `conversations` is LLaVA (and UnifiedReward's SFT files),
 * `problem` is UnifiedReward's GRPO files, anything else is this project's own form. Reasons for refusal are plain text.
 */
import { z } from 'zod';
import { countImageMarks, fileRowSchema, imageMark, type ChatMessage, type FileRow } from './rows.js';

/** A row as a file gives it: images are still strings. */
export type ImportedRow = Omit<FileRow, 'id' | 'images'> & { id?: string; images: string[] };

const imageList = z.union([z.string().min(1), z.array(z.string().min(1))]);

/** `{id?, image? | images?, conversations: [{from, value}]}`: the last gpt turn is the completion; other keys go to meta. */
export const llavaRowSchema = z
  .looseObject({
    id: z.union([z.string(), z.number()]).optional().describe('Unique name; "file:line" when left out.'),
    image: imageList.optional().describe('One path, or several.'),
    images: imageList.optional().describe('Several paths, or one.'),
    conversations: z
      .array(z.strictObject({ from: z.enum(['human', 'gpt', 'system']), value: z.string() }))
      .min(1)
      .describe('Turns; "<image>" marks the images in order.'),
  })
  .describe('A row of a LLaVA-style conversation file.');

/** `{id?, problem, solution, image? | images?}`: without any mark the images come before the text. Other keys go to meta. */
export const problemRowSchema = z
  .looseObject({
    id: z.union([z.string(), z.number()]).optional().describe('Unique name; "file:line" when left out.'),
    problem: z.string().min(1).describe('The prompt.'),
    solution: z.string().min(1).describe('The gold answer, bare or inside <answer> tags.'),
    image: imageList.optional().describe('One path, or several.'),
    images: imageList.optional().describe('Several paths, or one.'),
  })
  .describe('A row of a UnifiedReward GRPO file.');

/** The row, or the reason why there is none. */
export type ImportResult = { row: ImportedRow } | { reason: string };

/** Reads one parsed JSON value. */
export function importRow(value: unknown): ImportResult {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { reason: 'not a JSON object' };
  if ('video' in value || 'videos' in value) return { reason: 'videos are not supported: give their frames as images' };
  const result =
    'conversations' in value ? importLlava(value) : 'problem' in value ? importProblem(value) : importOwn(value);
  if ('reason' in result) return result;
  const { prompt, images } = result.row;
  const marks = countImageMarks(prompt);
  if (marks === images.length) return result;
  return { reason: `${marks} "${imageMark}" marks in the prompt but ${images.length} images` };
}

function importOwn(value: object): ImportResult {
  const parsed = fileRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error) };
  const { id, images = [], ...rest } = parsed.data;
  return { row: { ...rest, images, ...optionalId(id) } };
}

function importLlava(value: object): ImportResult {
  const parsed = llavaRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error) };
  const { id, image, images, conversations, ...meta } = parsed.data;
  const roles = { human: 'user', gpt: 'assistant', system: 'system' } as const;
  const turns: ChatMessage[] = conversations.map(({ from, value: content }) => ({ role: roles[from], content }));
  const last = turns.at(-1)!;
  const completion = last.role === 'assistant' ? (turns.pop()!.content as string) : undefined;
  if (turns.length === 0) return { reason: 'conversations: no turn before the answer' };
  const only = turns.length === 1 && turns[0]!.role === 'user' ? (turns[0]!.content as string) : undefined;
  const row: ImportedRow = {
    prompt: only ?? turns,
    images: imagesOf(image, images),
    ...optionalId(id),
    ...optionalMeta(meta),
  };
  if (completion !== undefined) row.completion = completion;
  return { row };
}

function importProblem(value: object): ImportResult {
  const parsed = problemRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error) };
  const { id, image, images, problem, solution, ...meta } = parsed.data;
  const paths = imagesOf(image, images);
  const prompt = problem.includes(imageMark) ? problem : imageMark.repeat(paths.length) + problem;
  const tagged = /^\s*<answer>([\s\S]*)<\/answer>\s*$/.exec(solution);
  const row: ImportedRow = { prompt, images: paths, solution: (tagged?.[1] ?? solution).trim() };
  return { row: { ...row, ...optionalId(id), ...optionalMeta(meta) } };
}

function imagesOf(...lists: (string | string[] | undefined)[]): string[] {
  return lists.flatMap((list) => list ?? []);
}

function optionalId(id: string | number | undefined): { id?: string } {
  return id === undefined || id === '' ? {} : { id: String(id) };
}

function optionalMeta(meta: Record<string, unknown>): { meta?: Record<string, unknown> } {
  return Object.keys(meta).length === 0 ? {} : { meta };
}

function flatten(error: z.ZodError): string {
  return error.issues
    .map(({ path, message }) => (path.length > 0 ? `${z.core.toDotPath(path)}: ${message}` : message))
    .join('; ');
}
