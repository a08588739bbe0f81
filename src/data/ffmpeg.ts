/**
 * Video files through the system's ffmpeg: its size, rate and number of frames by ffprobe, chosen frames as 8-bit RGB through
 * a pipe. Only local files are opened. Nothing is guessed: a file that ffmpeg complains about is refused.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { GavelError } from '../errors.js';
import type { RgbImage } from './decode-image.js';

/** What ffprobe says of a file's first video stream. */
export interface VideoFile {
  numFrames: number;
  /** Pixels of a frame as it is shown, after rotation. */
  height: number;
  width: number;
  /** Mean frames a second. */
  fps: number;
  /** The version of ffprobe, and so of ffmpeg, as it names itself. */
  version: string;
}

interface Probe {
  program_version?: { version?: string };
  packets?: { flags?: string }[];
  streams?: {
    width?: number;
    height?: number;
    avg_frame_rate?: string;
    r_frame_rate?: string;
    tags?: { rotate?: string };
    side_data_list?: { rotation?: number }[];
  }[];
}

/** Local files alone: a playlist inside a video must not make ffmpeg open addresses. */
const input = (path: string): string[] => ['-protocol_whitelist', 'file', '-i', `file:${path}`];

/**
 * Reads what a plan needs. Frames are counted, not taken from the header. Errors name the row: 'binary_missing' without
 * ffprobe, 'image_unreadable' for what it cannot read.
 */
export async function probeVideo(path: string, id: string, ffmpeg = 'ffmpeg'): Promise<VideoFile> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() !== true) throw unreadable(path, id, 'no such file');
  const ffprobe = ffmpeg === basename(ffmpeg) ? 'ffprobe' : join(dirname(ffmpeg), 'ffprobe');
  const shown =
    'stream=width,height,avg_frame_rate,r_frame_rate:stream_tags=rotate:stream_side_data=rotation:packet=flags';
  const options = [
    '-v',
    'error',
    '-select_streams',
    'v:0',
    '-show_entries',
    shown,
    '-show_program_version',
    '-of',
    'json',
  ];
  const child = start(ffprobe, [...options, ...input(path)]);
  const parts: Buffer[] = [];
  const ended = endOf(child, ffprobe, id);
  child.stdout!.on('data', (part: Buffer) => parts.push(part));
  const { code, errors } = await ended;
  if (code !== 0 || errors !== '') throw unreadable(path, id, errors || `ffprobe ended with status ${code}`);
  const probe = JSON.parse(Buffer.concat(parts).toString('utf8')) as Probe;
  const stream = probe.streams?.[0];
  if (stream?.width === undefined || stream.height === undefined) throw unreadable(path, id, 'no video stream in it');
  const numFrames = (probe.packets ?? []).filter(({ flags }) => !flags?.includes('D')).length;
  const fps = rate(stream.avg_frame_rate) ?? rate(stream.r_frame_rate);
  if (numFrames === 0 || fps === undefined) throw unreadable(path, id, 'no frames, or no frame rate');
  const rotation = stream.side_data_list?.find((data) => data.rotation !== undefined)?.rotation;
  const turned = Math.abs(rotation ?? Number(stream.tags?.rotate ?? 0)) % 180 === 90;
  const [height, width] = turned ? [stream.width, stream.height] : [stream.height, stream.width];
  return { numFrames, height, width, fps, version: probe.program_version?.version ?? '' };
}

/**
 * The frames of the given numbers (ascending), one after the other; a number that stands twice is given twice. A frame is
 * valid until the next one is asked for. Ending the iteration early ends ffmpeg.
 */
export async function* decodeFrames(
  path: string,
  video: VideoFile,
  frames: readonly number[],
  id: string,
  ffmpeg = 'ffmpeg',
): AsyncGenerator<RgbImage> {
  const wanted = [...new Set(frames)];
  const child = start(ffmpeg, ['-nostdin', '-v', 'error', '-xerror', ...input(path), ...outputOptions(video, wanted)]);
  const ended = endOf(child, ffmpeg, id);
  const { height, width } = video;
  const frame = new Uint8Array(height * width * 3);
  let filled = 0;
  let given = 0;
  let received = 0;
  try {
    for await (const part of child.stdout! as AsyncIterable<Buffer>) {
      for (let from = 0; from < part.length;) {
        const taken = Math.min(part.length - from, frame.length - filled);
        frame.set(part.subarray(from, from + taken), filled);
        from += taken;
        filled += taken;
        if (filled < frame.length) continue;
        const number = wanted[received++];
        while (given < frames.length && frames[given] === number) {
          given++;
          yield { rgb: frame, height, width };
        }
        filled = 0;
      }
    }
    const { code, errors } = await ended;
    if (code !== 0) throw unreadable(path, id, errors || `ffmpeg ended with status ${code}`);
    if (received !== wanted.length || filled !== 0) {
      const reason = `${received} of ${wanted.length} frames could be decoded${errors === '' ? '' : ` (${errors})`}`;
      throw unreadable(path, id, reason);
    }
  } finally {
    child.kill('SIGKILL');
    await ended.catch(() => undefined);
  }
}

function outputOptions(video: VideoFile, wanted: readonly number[]): string[] {
  const fromTheStart = wanted.at(-1) === wanted.length - 1;
  const choice = fromTheStart ? [] : ['-vf', `select='${selection(wanted)}'`];
  // Every chosen frame once, none repeated or dropped for a constant rate. The option got its name with version 5.1.
  const [, major, minor] = /^n?(\d+)\.(\d+)/.exec(video.version) ?? [];
  const old = major !== undefined && Number(major) * 100 + Number(minor) < 501;
  return [
    ...['-map', '0:v:0', ...choice, old ? '-vsync' : '-fps_mode', 'passthrough', '-frames:v', String(wanted.length)],
    // Exact rounding, so that machines of every kind get the same bytes.
    ...['-sws_flags', 'bicubic+accurate_rnd+full_chroma_int+bitexact', '-pix_fmt', 'rgb24', '-f', 'rawvideo', 'pipe:1'],
  ];
}

/** An expression that is 1 for the wanted frames, as a search tree: ffmpeg refuses sums of hundreds of terms. */
function selection(wanted: readonly number[]): string {
  if (wanted.length === 1) return `eq(n,${wanted[0]})`;
  const middle = wanted.length >> 1;
  return `if(lt(n,${wanted[middle]}),${selection(wanted.slice(0, middle))},${selection(wanted.slice(middle))})`;
}

function start(program: string, args: readonly string[]): ChildProcess {
  return spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], windowsHide: true });
}

/** Resolves when the program has ended and its pipes are closed; rejects when it cannot be started. */
function endOf(child: ChildProcess, program: string, id: string): Promise<{ code: number | null; errors: string }> {
  let errors = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    if (errors.length < 2000) errors += part;
  });
  const ended = new Promise<{ code: number | null; errors: string }>((resolve, reject) => {
    child.once('error', (cause) => reject(missing(program, id, cause)));
    child.once('close', (code) => resolve({ code, errors: errors.trim().replace(/\s+/g, ' ').slice(0, 300) }));
  });
  // Looked at only when the output has been read: until then a failure to start must not count as unhandled.
  ended.catch(() => undefined);
  return ended;
}

function rate(fraction = '0/0'): number | undefined {
  const [above, below = 1] = fraction.split('/').map(Number);
  const value = above! / below;
  return Number.isFinite(value) && value > 0 ? value : undefined;
}

function unreadable(path: string, id: string, reason: string): GavelError {
  return new GavelError(
    'image_unreadable',
    `Expected a readable video in row "${id}" but received ${path}: ${reason}. Replace the file or leave the row out.`,
    { fields: { id, video: path, reason } },
  );
}

function missing(program: string, id: string, cause: NodeJS.ErrnoException): GavelError {
  return new GavelError(
    'binary_missing',
    `Expected the program "${program}" for the video file of row "${id}" but received ${cause.code ?? cause.message}. ` +
      'Install ffmpeg (Debian: apt install ffmpeg; macOS: brew install ffmpeg), set `ffmpeg` to its path, or give the ' +
      'frames as a folder of images.',
    { fields: { id, program }, cause },
  );
}
