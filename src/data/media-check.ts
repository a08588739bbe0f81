/**
 * Looks at the pictures and videos of records when a file is opened: they must be there, below their folder, and a picture's
 * header must decode. Pixels and videos are decoded at use only, and bytes inside Parquet files are not read before.
 */
import { stat } from 'node:fs/promises';
import { GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';
import { isRaw, pictureProblem } from './decode-image.js';
import { embeddedIndex } from './embedded.js';
import type { ImportedRow } from './imported-row.js';
import type { MediaFolder } from './media-folder.js';
import type { CheckedRecord } from './read-record.js';
import type { FileVideo, ImageSource, Row, VideoSource } from './rows.js';

// Rows near each other share pictures; a set of millions must not be kept.
const maxKnown = 8192;
// What the pool of file reads works on at once is far less; more would only hold memory.
const checkedAtOnce = 32;

export class MediaCheck {
  readonly #media: MediaFolder;
  readonly #known = new Map<string, Promise<string | undefined>>();

  constructor(media: MediaFolder) {
    this.#media = media;
  }

  /** What is wrong with each record's pictures and videos; undefined where nothing is, or where there is no record. */
  async problemsOf(records: readonly (CheckedRecord | undefined)[]): Promise<(string | undefined)[]> {
    const problems = new Array<string | undefined>(records.length).fill(undefined);
    let next = 0;
    const work = async (): Promise<void> => {
      for (let at = next++; at < records.length; at = next++) problems[at] = await this.#problemOf(records[at]);
    };
    await Promise.all(Array.from({ length: Math.min(checkedAtOnce, records.length) }, work));
    return problems;
  }

  async #problemOf(record: CheckedRecord | undefined): Promise<string | undefined> {
    if (record === undefined) return undefined;
    if ('row' in record) return this.#rowProblem(record.row);
    for (const side of ['first', 'second'] as const) {
      const reason = await this.#rowProblem(record.pair[side]);
      if (reason !== undefined) return `${side}: ${reason}`;
    }
    return undefined;
  }

  async #rowProblem(row: ImportedRow): Promise<string | undefined> {
    const sources = await this.#sources(row);
    if (typeof sources === 'string') return sources;
    for (const image of sources.images) {
      const reason = await this.#imageProblem(image);
      if (reason !== undefined) return reason;
    }
    for (const video of sources.videos ?? []) {
      const reason = await this.#videoProblem(video);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  /** Those outside of the record, or what is wrong with a link. */
  async #sources({ images, videos }: ImportedRow): Promise<Pick<Row, 'images' | 'videos'> | string> {
    const outside = { images: images.filter(isOutside), ...(videos && { videos: videos.map(outsideFrames) }) };
    try {
      return await this.#media.sources(outside, (reason) => new GavelError('bad_data', reason));
    } catch (cause) {
      if (GavelError.is(cause)) return cause.message;
      throw cause;
    }
  }

  async #imageProblem(image: ImageSource): Promise<string | undefined> {
    if (isRaw(image)) return undefined;
    if (!('path' in image)) return pictureProblem(image);
    return this.#once(image.path, async () => {
      const found = await entryOf(image.path);
      if (typeof found === 'string') return `picture ${found}`;
      if (!found.isFile()) return `picture "${image.path}" is no file`;
      return pictureProblem(image);
    });
  }

  async #videoProblem(video: VideoSource): Promise<string | undefined> {
    if ('frames' in video) {
      for (const frame of video.frames) {
        const reason = await this.#imageProblem(frame);
        if (reason !== undefined) return reason;
      }
      return undefined;
    }
    const path = 'folder' in video ? video.folder : video.path;
    return this.#once(path, async () => {
      const found = await entryOf(path);
      if (typeof found === 'string') return `video ${found}`;
      return 'folder' in video && !found.isDirectory() ? `video "${path}" is no folder` : undefined;
    });
  }

  #once(path: string, look: () => Promise<string | undefined>): Promise<string | undefined> {
    const known = this.#known.get(path);
    if (known !== undefined) return known;
    const looking = look();
    this.#known.set(path, looking);
    const [oldest] = this.#known.keys();
    if (this.#known.size > maxKnown) this.#known.delete(oldest!);
    return looking;
  }
}

const isOutside = (image: string): boolean => embeddedIndex(image) === undefined;

const outsideFrames = (video: FileVideo): FileVideo =>
  typeof video === 'object' && 'frames' in video ? { ...video, frames: video.frames.filter(isOutside) } : video;

/** What a path names, or what is wrong with it. Errors: 'io' where that is not the path's fault. */
async function entryOf(path: string): Promise<Awaited<ReturnType<typeof stat>> | string> {
  try {
    return await stat(path);
  } catch (cause) {
    const { code = '' } = cause as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return `"${path}" does not exist`;
    if (['EACCES', 'ENAMETOOLONG', 'ELOOP'].includes(code)) return `"${path}" cannot be read: ${code}`;
    // A disk or a system at its limits says nothing against the row, which would be skipped.
    throw fileError(cause, path, 'a file or a folder');
  }
}
