/** What every importer gives, whatever the file's form: a row, a preference pair, or the reason why there is neither. */
import { z } from 'zod';
import { readIssue, showValue, valueAt } from '../schema/read-issue.js';
import type { Preference } from './pairs.js';
import { countMarks, imageMark, videoMark, type FileRow, type FileVideo } from './rows.js';

/** A row as a file gives it: images are still strings. */
export type ImportedRow = Omit<FileRow, 'id' | 'images' | 'videos'> & {
  id?: string;
  images: string[];
  videos?: FileVideo[];
};

/** A pair as a file gives it. */
export interface ImportedPair {
  id?: string;
  first: ImportedRow;
  second: ImportedRow;
  preference: Preference;
  dimensions?: Record<string, Preference>;
  scores?: { first: Record<string, number>; second: Record<string, number> };
  meta?: Record<string, unknown>;
}

/** Why a record cannot be used, in plain text. `code` where it is not 'bad_data'. */
export interface Refusal {
  reason: string;
  code?: 'image_count_mismatch';
}

export type ImportResult = { row: ImportedRow } | Refusal;
export type PairImportResult = { pair: ImportedPair } | Refusal;

/** Absent rather than empty: most rows have none. */
export function optionalVideos(videos: FileVideo[]): { videos?: FileVideo[] } {
  return videos.length === 0 ? {} : { videos };
}

export function optionalId(id: string | number | undefined): { id?: string } {
  return id === undefined || id === '' ? {} : { id: String(id) };
}

export function optionalMeta(meta: Record<string, unknown>): { meta?: Record<string, unknown> } {
  return Object.keys(meta).length === 0 ? {} : { meta };
}

/** Lists and single values that stand for one list. */
export function listOf<T>(...lists: (T | T[] | undefined)[]): T[] {
  return lists.flatMap((list) => list ?? []);
}

/** A prompt whose pictures and videos stand before the text, unless it marks their places itself. */
export function mediaFirst(prompt: string, numImages: number, numVideos = 0): string {
  const { images, videos } = countMarks(prompt);
  if (images + videos > 0) return prompt;
  return imageMark.repeat(numImages) + videoMark.repeat(numVideos) + prompt;
}

/** What is wrong with the number of marks of a row, if anything. */
export function marksRefusal({ prompt, images, videos = [] }: ImportedRow): Refusal | undefined {
  const marks = countMarks(prompt);
  const code = 'image_count_mismatch' as const;
  if (marks.images !== images.length) {
    return { code, reason: `${marks.images} "${imageMark}" marks in the prompt but ${images.length} images` };
  }
  if (marks.videos !== videos.length) {
    return { code, reason: `${marks.videos} "${videoMark}" marks in the prompt but ${videos.length} videos` };
  }
  return undefined;
}

/** A zod error on one line. */
export function flatten(error: z.ZodError, value: unknown): string {
  return error.issues
    .map((issue) => {
      const { path, text } = readIssue(issue);
      if (issue.code === 'unrecognized_keys') return path.length > 0 ? `${z.core.toDotPath(path)} ${text}` : text;
      const found = valueAt(value, path);
      return `${path.length > 0 ? `${z.core.toDotPath(path)} ` : ''}${text} but is ${found === undefined ? 'missing' : showValue(found)}`;
    })
    .join('; ');
}
