/** What every importer gives, whatever the file's form. */
import { z } from 'zod';
import type { FileRow, FileVideo } from './rows.js';

/** A row as a file gives it: images are still strings. */
export type ImportedRow = Omit<FileRow, 'id' | 'images' | 'videos'> & {
  id?: string;
  images: string[];
  videos?: FileVideo[];
};

/** The row, or the reason why there is none. */
export type ImportResult = { row: ImportedRow } | { reason: string };

/** Absent rather than empty: most rows have none. */
export function optionalVideos(videos: FileVideo[]): { videos?: FileVideo[] } {
  return videos.length === 0 ? {} : { videos };
}

export function optionalId(id: string | number | undefined): { id?: string } {
  return id === undefined || id === '' ? {} : { id: String(id) };
}

/** A zod error on one line. */
export function flatten(error: z.ZodError): string {
  return error.issues
    .map(({ path, message }) => (path.length > 0 ? `${z.core.toDotPath(path)}: ${message}` : message))
    .join('; ');
}
