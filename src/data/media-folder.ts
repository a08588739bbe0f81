/**
 * Where the pictures and videos of a data set lie: paths are relative, stay below one folder (links included), and nothing is
 * fetched. `data:` URIs hold a picture themselves; so do files with pictures inside, by tokens (embedded.ts).
 */
import { realpath } from 'node:fs/promises';
import { isAbsolute, relative, resolve, sep } from 'node:path';
import { badRow, type BadRow } from './bad-row.js';
import { embeddedIndex, withBytes } from './embedded.js';
import type { ImportedRow } from './imported-row.js';
import { setOrigin } from './row-origin.js';
import type { FileVideo, ImageSource, Row, VideoSource } from './rows.js';

/** Pictures that a record brings itself, in the order of their tokens. */
export type Embedded = readonly Uint8Array[];

export class MediaFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = resolve(path);
  }

  /** What is wrong with the pictures and videos of a row, by their text alone; no file is touched. */
  check({ images, videos = [] }: ImportedRow, numEmbedded = 0): string | undefined {
    for (const image of images) {
      const reason = this.#checkImage(image, numEmbedded);
      if (reason !== undefined) return reason;
    }
    for (const video of videos) {
      const reason = this.#checkVideo(video, numEmbedded);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  /** A row as recipes take it, which stands at `place`. Throws 'bad_data' for a link that leads out of the folder. */
  async row(
    imported: ImportedRow & { id: string },
    place: Omit<BadRow, 'reason'>,
    embedded: Embedded = [],
  ): Promise<Row> {
    const { id, prompt, completion, solution, meta } = imported;
    const sources = await this.sources(imported, (reason) => badRow({ ...place, reason }, false), embedded);
    setOrigin(sources, place);
    const row: Row = { id, prompt, ...sources };
    if (completion !== undefined) row.completion = completion;
    if (solution !== undefined) row.solution = solution;
    if (meta !== undefined) row.meta = embedded.length > 0 ? withBytes(meta, embedded) : meta;
    return row;
  }

  /** The pictures and videos of a row. `refuse` makes the error for a link that leads out of the folder. */
  async sources(
    { images, videos }: Pick<ImportedRow, 'images' | 'videos'>,
    refuse: (reason: string) => Error,
    embedded: Embedded = [],
  ): Promise<Pick<Row, 'images' | 'videos'>> {
    const media = { refuse, embedded };
    const sources: Pick<Row, 'images' | 'videos'> = {
      images: await Promise.all(images.map((image) => this.#image(image, media))),
    };
    if (videos !== undefined) sources.videos = await Promise.all(videos.map((video) => this.#video(video, media)));
    return sources;
  }

  #checkImage(image: string, numEmbedded: number): string | undefined {
    const index = embeddedIndex(image);
    if (index !== undefined)
      return index < numEmbedded ? undefined : 'image: no path, and no picture inside the record';
    if (!image.startsWith('data:')) return this.#checkPath('image', image);
    return /^data:image\/[a-z+.-]+;base64,[A-Za-z0-9+/]+=*$/i.test(image)
      ? undefined
      : 'image: not a base64 data: URI of an image';
  }

  #checkVideo(video: FileVideo, numEmbedded: number): string | undefined {
    if (typeof video === 'string') return this.#checkPath('video', video);
    if ('path' in video) return this.#checkPath('video', video.path);
    if ('folder' in video) return this.#checkPath('video', video.folder);
    for (const frame of video.frames) {
      const reason = this.#checkImage(frame, numEmbedded);
      if (reason !== undefined) return reason;
    }
    return undefined;
  }

  #checkPath(kind: string, path: string): string | undefined {
    if (/^([a-z][a-z0-9+.-]*:\/\/|data:)/i.test(path))
      return `${kind} "${path.slice(0, 200)}" is not a local file: download it first`;
    if (path.includes('\0')) return `${kind} ${JSON.stringify(path.slice(0, 200))} is no path`;
    if (isAbsolute(path)) return `${kind} "${path}" is absolute: write it relative to ${this.path}`;
    if (leaves(this.path, resolve(this.path, path))) return `${kind} "${path}" is outside of ${this.path}`;
    return undefined;
  }

  async #image(image: string, media: { refuse: (reason: string) => Error; embedded: Embedded }): Promise<ImageSource> {
    const index = embeddedIndex(image);
    if (index !== undefined) return { bytes: media.embedded[index]! };
    if (image.startsWith('data:')) return { bytes: decodeDataUri(image) };
    return { path: await this.#resolve(image, media.refuse) };
  }

  async #video(
    video: FileVideo,
    media: { refuse: (reason: string) => Error; embedded: Embedded },
  ): Promise<VideoSource> {
    if (typeof video === 'string') return { path: await this.#resolve(video, media.refuse) };
    if ('path' in video) return { path: await this.#resolve(video.path, media.refuse) };
    const rate = video.fps === undefined ? {} : { fps: video.fps };
    if ('folder' in video) return { folder: await this.#resolve(video.folder, media.refuse), ...rate };
    return { frames: await Promise.all(video.frames.map((frame) => this.#image(frame, media))), ...rate };
  }

  async #resolve(name: string, refuse: (reason: string) => Error): Promise<string> {
    const path = resolve(this.path, name);
    // A link may lead out of the folder where the text of the path does not. A missing file is the decoder's to report.
    const [real, root] = await Promise.all([
      realpath(path).catch(() => path),
      realpath(this.path).catch(() => this.path),
    ]);
    if (real !== path && leaves(root, real)) throw refuse(`"${name}" is a link out of ${this.path}`);
    return path;
  }
}

function leaves(folder: string, path: string): boolean {
  const way = relative(folder, path);
  return way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way);
}

function decodeDataUri(uri: string): Uint8Array {
  return new Uint8Array(Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64'));
}
