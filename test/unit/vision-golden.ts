// What transformers makes of pictures, videos and chats: the goldens of the image and video processors, and ours made alike.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decodeImage, type RgbImage } from '../../src/data/decode-image.js';
import { LlavaOnevisionVision } from '../../src/data/llava-onevision.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import type { ChatMessage } from '../../src/data/rows.js';
import { readSafetensorsHeader, readTensor } from '../../src/data/safetensors.js';
import type { ProcessedImage, VisionProcessor } from '../../src/data/vision-processor.js';
import { GavelError } from '../../src/errors.js';
import { picture } from '../support/pictures.js';

export type Json = Record<string, unknown>;
export type Shape4 = [number, number, number, number];
export interface PixelCase {
  processor: string;
  source: { images_json?: string; picture?: Shape4; file?: string; pictures?: Shape4[] };
  refused?: string;
  grid_thw?: number[];
  image_sizes?: number[];
  tokens: number;
  shape: number[];
  sha256: string;
}
export interface VideoCase {
  processor: string;
  arguments: Json;
  frames: Shape4[];
  refused?: string;
  grid_thw?: number[];
  tokens: number;
  sha256: string;
}
export interface SamplingCase {
  processor: 'qwen2_5_vl' | 'qwen3_vl' | 'llava_onevision';
  total_num_frames: number;
  fps: number;
  ask: { fps?: number; num_frames?: number };
  indices?: number[];
}
export interface PixelGolden {
  processors: Record<string, { arguments: Json }>;
  files: Record<string, string>;
  images: PixelCase[];
  videos: VideoCase[];
  frame_sampling: SamplingCase[];
  tables: {
    images: ({ size: [number, number] } & Record<string, { tokens: number } | null>)[];
    videos: ({ size: [number, number, number] } & Record<string, [number, number] | null>)[];
  };
}
export interface ChatCase {
  model: string;
  template: string;
  chat: string;
  messages: ChatMessage[];
  variables?: Json;
  text: string;
  pictures?: Shape4[];
  videos?: { size: [number, number]; frames: number; fps: number; of?: number; indices?: number[] }[];
  refused?: string;
  ids: number[];
  image_grid_thw?: number[][];
  video_grid_thw?: number[][];
  second_per_grid_ts?: number[];
}

export const goldens = new URL('../goldens/', import.meta.url).pathname;
export const readGolden = async <T>(name: string): Promise<T> =>
  JSON.parse(await readFile(join(goldens, name), 'utf8')) as T;
export const golden = await readGolden<PixelGolden>('pixels.json');
export const chats = await readGolden<{ templates: Record<string, string>; cases: ChatCase[] }>('chats.json');
export const { tensors } = await readSafetensorsHeader(join(goldens, 'images.safetensors'));

export const sha256 = (values: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex');
export const unordered = (error: unknown): boolean => GavelError.is(error) && error.code === 'bad_data';

/** `patch` divides the tile, so that patches put together are the whole tile again. */
export function onevision(image: Json, video: Json, patch: number): LlavaOnevisionVision {
  const tokens = (image['size'] as { height: number } | undefined)?.height === 28 ? 16 : 729;
  const model = { vision_config: { patch_size: patch } };
  return new LlavaOnevisionVision({ image, video, model, processor: { num_image_tokens: tokens } });
}

export function processorOf(name: string): VisionProcessor {
  const image = golden.processors[name]!.arguments;
  if (name.startsWith('llava')) return onevision(image, {}, name.endsWith('small') ? 7 : 16);
  return new QwenVision({ family: name.startsWith('qwen3') ? 'qwen3_vl' : 'qwen2_vl', image, video: {} });
}

export async function sourceOf({ source }: PixelCase): Promise<RgbImage> {
  if (source.picture !== undefined) return picture(source.picture[0], source.picture[1], source.picture[3]);
  if (source.file !== undefined)
    return decodeImage({ bytes: Buffer.from(golden.files[source.file]!, 'base64') }, 'row');
  const entry = tensors.get(`${source.images_json}.pixels`)!;
  const data = (await readTensor(entry)) as Uint8Array;
  const [height, width] = entry.shape as [number, number];
  if (entry.shape.length === 3) return { rgb: data, height, width };
  return { rgb: Uint8Array.from({ length: data.length * 3 }, (_, i) => data[Math.floor(i / 3)]!), height, width };
}

/** Patches [tiles * rows * columns, 3 * patch * patch] as tiles [tiles, 3, side, side]. */
export function tiles({ pixels, grid: [count, rows, columns] }: Pick<ProcessedImage, 'pixels' | 'grid'>): Float32Array {
  const patch = Math.sqrt(pixels.length / (count * rows * columns * 3));
  const width = columns * patch;
  const out = new Float32Array(pixels.length);
  let at = 0;
  for (let tile = 0; tile < count; tile++)
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        for (let channel = 0; channel < 3; channel++)
          for (let y = 0; y < patch; y++)
            for (let x = 0; x < patch; x++)
              out[((tile * 3 + channel) * rows * patch + row * patch + y) * width + column * patch + x] = pixels[at++]!;
  return out;
}

export const tokensOf = (prompt: readonly (string | number)[]): number =>
  prompt.reduce((sum: number, part) => sum + (typeof part === 'number' ? part : 0), 0);
