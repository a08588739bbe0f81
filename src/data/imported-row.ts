/** What every importer gives, whatever the file's form. */
import { z } from 'zod';
import { readIssue, showValue, valueAt } from '../schema/read-issue.js';
import type { FileRow, FileVideo } from './rows.js';

/** A row as a file gives it: images are still strings. */
export type ImportedRow = Omit<FileRow, 'id' | 'images' | 'videos'> & {
  id?: string;
  images: string[];
  videos?: FileVideo[];
};

/** Why a row cannot be used. `code` where it is not 'bad_data'. */
export interface RowRefusal {
  reason: string;
  code?: 'image_count_mismatch';
}

/** The row, or the reason why there is none. */
export type ImportResult = { row: ImportedRow } | RowRefusal;

/** Absent rather than empty: most rows have none. */
export function optionalVideos(videos: FileVideo[]): { videos?: FileVideo[] } {
  return videos.length === 0 ? {} : { videos };
}

export function optionalId(id: string | number | undefined): { id?: string } {
  return id === undefined || id === '' ? {} : { id: String(id) };
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
