/** Rows that a command was given: those of a file, some at a time, or one prompt with its pictures and videos. */
import { JsonlDataset } from '../data/jsonl.js';
import { countMarks, imageMark, videoMark, type Row } from '../data/rows.js';

export interface RowChunk {
  rows: Row[];
  /** Rows before this chunk, and in the whole file. */
  done: number;
  total: number;
}

/** The rows of a file in order, `chunkRows` at a time, so that pictures of few rows exist at once. */
export async function* fileChunks(path: string, chunkRows: number): AsyncGenerator<RowChunk, void, undefined> {
  await using data = await JsonlDataset.open(path, { canSkip: false });
  for (let done = 0; done < data.size; done += chunkRows) {
    const rows: Row[] = [];
    for (let i = done; i < Math.min(data.size, done + chunkRows); i++) rows.push(await data.row(i));
    yield { rows, done, total: data.size };
  }
}

/** One prompt with its pictures and videos; they stand before it, in this order, unless it marks their places. */
export function promptRow(prompt: string, images: readonly string[], videos: readonly string[] = []): Row {
  const counted = countMarks(prompt);
  const marks =
    (counted.images === 0 ? imageMark.repeat(images.length) : '') +
    (counted.videos === 0 ? videoMark.repeat(videos.length) : '');
  return {
    id: 'prompt',
    prompt: `${marks}${marks === '' ? '' : ' '}${prompt}`,
    images: images.map((path) => ({ path })),
    videos: videos.map((path) => ({ path })),
  };
}
