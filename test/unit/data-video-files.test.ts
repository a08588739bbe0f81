// Videos of files, folders and lists: which frames come out, in which bytes, and what is refused. Files need ffmpeg.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/decode-image.js';
import { decodeFrames, probeVideo } from '../../src/data/ffmpeg.js';
import { Processor, type EncodedRow } from '../../src/data/processor.js';
import type { ImageSource, VideoSource } from '../../src/data/rows.js';
import { DataThreads } from '../../src/data/threads.js';
import { openVideo, type OpenVideo } from '../../src/data/video-source.js';
import { picture } from '../support/pictures.js';

const checkpoint = new URL('../goldens/micro-qwen3-vl', import.meta.url).pathname;
const installed = spawnSync('ffmpeg', ['-version']).status === 0 && spawnSync('ffprobe', ['-version']).status === 0;
if (!installed) console.warn('tests of video files skipped: no ffmpeg on PATH (apt install ffmpeg)');

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-video-'));
});
afterAll(() => rm(folder, { recursive: true }));

/** The frames in a lossless file, so that the bytes that come out are those that went in. */
async function write(
  name: string,
  frames: readonly RgbImage[],
  rate: string,
  codec: readonly string[],
): Promise<string> {
  const path = join(folder, name);
  const { height, width } = frames[0]!;
  const raw = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', `${width}x${height}`, '-r', rate, '-i', 'pipe:0'];
  const child = spawn('ffmpeg', ['-v', 'error', '-y', ...raw, ...codec, path], {
    stdio: ['pipe', 'ignore', 'inherit'],
  });
  for (const { rgb } of frames) child.stdin.write(rgb);
  child.stdin.end();
  const code = await new Promise((resolve) => child.once('close', resolve));
  expect(code).toBe(0);
  return path;
}

const lossless = ['-c:v', 'ffv1', '-pix_fmt', 'gbrp'];
const film = (count: number, height = 56, width = 84): RgbImage[] =>
  Array.from({ length: count }, (_, seed) => picture(height, width, seed));

const sha256 = (bytes: ArrayBufferView): string =>
  createHash('sha256')
    .update(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    .digest('hex');

/** Digests: comparing the bytes one by one takes seconds. */
async function framesOf(video: OpenVideo, numbers: readonly number[]): Promise<string[]> {
  const out: string[] = [];
  for await (const { rgb } of video.frames(numbers)) out.push(sha256(rgb));
  return out;
}

const digested = ({ images, ...row }: EncodedRow): unknown => ({
  ...row,
  images: images.map(({ pixels, ...image }) => ({ ...image, pixels: sha256(pixels) })),
});

describe.skipIf(!installed)('video files', () => {
  it('give size, rate and number of frames, and the chosen frames in their own bytes', async () => {
    const frames = film(37);
    const path = await write('lossless.mkv', frames, '30000/1001', lossless);
    const video = await openVideo({ path }, 'row');
    expect(video.facts).toMatchObject({ numFrames: 37, height: 56, width: 84, pictures: false });
    expect(video.facts.fps).toBeCloseTo(30000 / 1001, 9);
    for (const numbers of [[0, 1, 2, 36], [5], [0, 7, 7, 9], frames.map((_, index) => index)]) {
      expect(await framesOf(video, numbers)).toEqual(numbers.map((number) => sha256(frames[number]!.rgb)));
    }
  });

  it('count frames of a format with reordered frames, and take hundreds of them', async () => {
    const path = await write('long.mp4', film(600, 32, 32), '50', ['-c:v', 'mpeg4', '-bf', '2']);
    const video = await openVideo({ path }, 'row');
    expect(video.facts).toMatchObject({ numFrames: 600, fps: 50 });
    const numbers = Array.from({ length: 500 }, (_, index) => index + 100);
    expect(await framesOf(video, numbers)).toHaveLength(500);
  });

  it('become the same row as their frames do', async () => {
    const frames = film(24);
    const path = await write('row.mkv', frames, '8', lossless);
    // Qwen3-VL takes two frames a second by itself.
    const processor = await Processor.load(checkpoint);
    const row = (source: VideoSource) => ({ id: 'a', prompt: 'See <video>.', images: [], videos: [source] });
    const file = await processor.encode(row({ path }));
    const asked = await Processor.load(checkpoint, { video: { fps: 2 } });
    expect(digested(await asked.encode(row({ frames, fps: 8 })))).toEqual(digested(file));
    expect(file.images[0]!.grid[0]).toBe(3);
    expect((await processor.encode(row({ frames, fps: 8 }))).images[0]!.grid[0]).toBe(12);
    const threads = await DataThreads.start(checkpoint, { threads: 1 });
    try {
      const [threaded] = await threads.encode([row({ path })]);
      expect(digested(threaded!)).toEqual(digested(file));
      const [cut] = await threads.encode([row({ frames: frames.slice(0, 4) })]);
      expect(cut!.images[0]).toMatchObject({ kind: 'video', size: [56, 84] });
    } finally {
      await threads.dispose();
    }
  }, 60_000);

  it('are refused by their token count before a frame is decoded', async () => {
    const path = await write('many.mkv', film(40), '1', lossless);
    const short = await Processor.load(checkpoint, { maxPromptTokens: 100, video: { fps: 1 } });
    await expect(short.encode({ id: 'long', prompt: '<video>', images: [], videos: [{ path }] })).rejects.toMatchObject(
      { code: 'prompt_too_long', fields: { id: 'long' } },
    );
  });

  it('name the row when they are damaged, empty, missing or not videos', async () => {
    const whole = await readFile(await write('whole.mp4', film(30), '10', ['-c:v', 'mpeg4', '-movflags', 'faststart']));
    const text = join(folder, 'text.mp4');
    await writeFile(text, 'no video');
    const cut = join(folder, 'cut.mp4');
    await writeFile(cut, whole.subarray(0, whole.length >> 1));
    for (const path of [text, cut, join(folder, 'missing.mp4')]) {
      const read = async (): Promise<void> => {
        const video = await openVideo({ path }, 'row-9');
        await framesOf(video, [0, video.facts.numFrames - 1]);
      };
      await expect(read()).rejects.toMatchObject({ code: 'image_unreadable', fields: { id: 'row-9', video: path } });
    }
  });

  it('say so when frames are missing', async () => {
    const path = await write('few.mkv', film(3), '10', lossless);
    const video = await probeVideo(path, 'row-3');
    const read = async (): Promise<void> => {
      for await (const frame of decodeFrames(path, video, [0, 2, 5], 'row-3')) expect(frame.height).toBe(56);
    };
    await expect(read()).rejects.toMatchObject({ code: 'image_unreadable', fields: { id: 'row-3' } });
  });

  it('end ffmpeg when the reader stops early', async () => {
    const path = await write('early.mkv', film(200, 224, 224), '25', lossless);
    const video = await openVideo({ path }, 'row');
    for await (const frame of video.frames(Array.from({ length: 200 }, (_, index) => index))) {
      expect(frame.width).toBe(224);
      break;
    }
    // The generator returns only after the process is gone: nothing is left to keep the loop alive.
    expect(await framesOf(video, [0])).toHaveLength(1);
  });
});

describe('videos without files', () => {
  it('need no ffmpeg, and a file says what to install', async () => {
    const path = join(folder, 'any.mp4');
    await writeFile(path, 'x');
    await expect(openVideo({ path }, 'row-1', { ffmpeg: '/nowhere/ffmpeg' })).rejects.toMatchObject({
      code: 'binary_missing',
      message: expect.stringContaining('apt install ffmpeg') as string,
      fields: { id: 'row-1', program: '/nowhere/ffprobe' },
    });
    const processor = await Processor.load(checkpoint, { ffmpeg: '/nowhere/ffmpeg' });
    const row = { id: 'r', prompt: '<video>', images: [] };
    expect((await processor.encode({ ...row, videos: [{ frames: film(2) }] })).images).toHaveLength(1);
    await expect(processor.encode({ ...row, videos: [{ path }] })).rejects.toMatchObject({ code: 'binary_missing' });
  });

  it('take a folder of pictures by the numbers in their names', async () => {
    const pictures = join(folder, 'pictures');
    await mkdir(pictures);
    const order = [1, 2, 9, 10, 11, 100];
    for (const [index, number] of order.entries()) {
      const { rgb, height, width } = picture(24, 32, index);
      await sharp(rgb, { raw: { height, width, channels: 3 } })
        .png()
        .toFile(join(pictures, `frame${number}.png`));
    }
    await writeFile(join(pictures, 'notes.txt'), 'x');
    const video = await openVideo({ folder: pictures, fps: 4 }, 'row');
    expect(video.facts).toEqual({ numFrames: 6, height: 24, width: 32, fps: 4, pictures: true });
    const all = order.map((_, index) => index);
    expect(await framesOf(video, all)).toEqual(all.map((seed) => sha256(picture(24, 32, seed).rgb)));
    expect((await openVideo({ path: pictures }, 'row')).facts.numFrames).toBe(6);
  });

  it('refuse frames of other sizes, none at all, and a folder that is not there', async () => {
    const read = async (frames: ImageSource[]): Promise<void> => {
      const video = await openVideo({ frames }, 'row-5');
      await framesOf(
        video,
        frames.map((_, index) => index),
      );
    };
    await expect(read([picture(8, 8), picture(8, 9)])).rejects.toMatchObject({
      code: 'bad_data',
      fields: { id: 'row-5', frame: 1 },
    });
    await expect(read([])).rejects.toMatchObject({ code: 'bad_data', fields: { id: 'row-5' } });
    await expect(openVideo({ folder: join(folder, 'nowhere') }, 'row-5')).rejects.toMatchObject({
      code: 'image_unreadable',
      fields: { id: 'row-5' },
    });
  });
});
