/**
 * One video of a row, opened: what is known before decoding, then the frames a plan asks for, one after the other. Files
 * go through ffmpeg; folders and lists of pictures need no program.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { decodeImage, type DecodeOptions, type RgbImage } from './decode-image.js';
import { decodeFrames, probeVideo } from './ffmpeg.js';
import type { VideoFacts } from './frame-sampling.js';
import type { ImageSource, VideoSource } from './rows.js';

export interface VideoReadOptions extends DecodeOptions {
  /** The program; found by PATH unless it is a path. ffprobe is looked for beside it. Default: "ffmpeg". */
  ffmpeg?: string;
}

export interface OpenVideo {
  facts: VideoFacts;
  /** Frames by their numbers, ascending. A frame is valid until the next one is asked for. */
  frames(numbers: readonly number[]): AsyncIterable<RgbImage>;
}

const pictureName = /\.(png|jpe?g|webp|bmp|gif|tiff?|avif)$/i;

/** Opens a video of row `id`. Errors: 'image_unreadable', 'binary_missing', 'bad_data' (no frames), 'unsupported'. */
export async function openVideo(source: VideoSource, id: string, options: VideoReadOptions = {}): Promise<OpenVideo> {
  if ('frames' in source) return openFrames(source.frames, source.fps, id, options);
  const path = 'folder' in source ? source.folder : source.path;
  const isFolder = 'folder' in source || (await stat(path).catch(() => undefined))?.isDirectory() === true;
  if (isFolder) {
    return openFrames(await listPictures(path, id), 'folder' in source ? source.fps : undefined, id, options);
  }
  const video = await probeVideo(path, id, options.ffmpeg);
  checkSize(video, id, path, options.limitPixels);
  return {
    facts: { ...video, pictures: false },
    frames: (numbers) => decodeFrames(path, video, numbers, id, options.ffmpeg),
  };
}

/** Pictures of a folder in the order of the numbers in their names. */
async function listPictures(folder: string, id: string): Promise<ImageSource[]> {
  let names: string[];
  try {
    names = await readdir(folder);
  } catch (cause) {
    const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message;
    throw new GavelError(
      'image_unreadable',
      `Expected a folder of pictures in row "${id}" but received ${folder}: ${reason}. Check its path.`,
      { fields: { id, video: folder, reason }, cause },
    );
  }
  const pictures = names.filter((name) => pictureName.test(name) && !name.startsWith('.'));
  const byNumber = new Intl.Collator('en', { numeric: true });
  return pictures.sort(byNumber.compare).map((name) => ({ path: join(folder, name) }));
}

async function openFrames(
  sources: readonly ImageSource[],
  fps: number | undefined,
  id: string,
  options: VideoReadOptions,
): Promise<OpenVideo> {
  if (sources.length === 0) {
    throw new GavelError(
      'bad_data',
      `Expected at least one frame in a video of row "${id}" but received none. Add some.`,
      {
        fields: { id, frames: 0 },
      },
    );
  }
  const { height, width } = await decodeImage(sources[0]!, id, options);
  return {
    facts: { numFrames: sources.length, height, width, fps, pictures: true },
    async *frames(numbers) {
      for (const number of numbers) {
        const frame = await decodeImage(sources[number]!, id, options);
        if (frame.height !== height || frame.width !== width) throw uneven(id, number, frame, height, width);
        yield frame;
      }
    },
  };
}

function uneven(id: string, number: number, frame: RgbImage, height: number, width: number): GavelError {
  return new GavelError(
    'bad_data',
    `Expected frames of one size (${height} x ${width}) in a video of row "${id}" but received ${frame.height} x ` +
      `${frame.width} for frame ${number}. Resize them alike.`,
    { fields: { id, frame: number, height: frame.height, width: frame.width } },
  );
}

function checkSize(
  { height, width }: { height: number; width: number },
  id: string,
  path: string,
  limit = 178_956_970,
): void {
  if (height * width <= limit) return;
  throw new GavelError(
    'image_unreadable',
    `Expected a video of at most ${limit} pixels a frame in row "${id}" but received ${height} x ${width} (${path}). ` +
      'Raise `limitPixels` if this is intended.',
    { fields: { id, video: path, height, width } },
  );
}
