/**
 * Qwen2-VL's image processor: smart resize, Pillow bicubic, rescale, normalise, patches in merge order. Pixel values equal
 * transformers' Pillow back end bit for bit. pixels [P, 3 * temporal * patch * patch] with columns (channel, t, y, x).
 */
import { z } from 'zod';
import { GavelError, expected } from '../errors.js';
import { corruptFile, readOptionalJson } from './checkpoint-files.js';
import type { RgbImage } from './decode-image.js';
import { pillowResizeBicubic } from './pillow-resize.js';
import { smartResize } from './smart-resize.js';

const triple = z.tuple([z.number(), z.number(), z.number()]);

const configSchema = z.looseObject({
  image_processor_type: z.string().optional(),
  patch_size: z.int().min(1).default(14),
  temporal_patch_size: z.int().min(1).default(2),
  merge_size: z.int().min(1).default(2),
  image_mean: triple.default([0.48145466, 0.4578275, 0.40821073]),
  image_std: triple.default([0.26862954, 0.26130258, 0.27577711]),
  rescale_factor: z.number().default(1 / 255),
  resample: z.literal(3).default(3),
  do_resize: z.literal(true).default(true),
  do_rescale: z.literal(true).default(true),
  do_normalize: z.literal(true).default(true),
  do_convert_rgb: z.literal(true).default(true),
  min_pixels: z.int().min(1).nullish(),
  max_pixels: z.int().min(1).nullish(),
  size: z.looseObject({ shortest_edge: z.int().min(1).nullish(), longest_edge: z.int().min(1).nullish() }).nullish(),
});

/** A picture as the vision tower takes it. `grid` counts patches as [t, h, w]; pixels has t * h * w rows. */
export interface ProcessedImage {
  pixels: Float32Array;
  grid: [number, number, number];
}

/** Area limits in pixels; they override the checkpoint's. */
export interface PixelLimits {
  minPixels?: number;
  maxPixels?: number;
}

/** One checkpoint's image processor. Holds no state but its tables; `process` is synchronous. */
export class ImageProcessor {
  readonly patchSize: number;
  readonly temporalPatchSize: number;
  readonly mergeSize: number;
  readonly minPixels: number;
  readonly maxPixels: number;
  /** Normalised value of each byte, per channel: [3, 256]. */
  readonly #table: Float32Array;

  /** `config` is the object of preprocessor_config.json; 'unsupported' or 'invalid_argument' when it asks for something else. */
  constructor(config: unknown, limits: PixelLimits = {}) {
    const parsed = configSchema.safeParse(config);
    if (!parsed.success) {
      throw new GavelError(
        'unsupported',
        `Expected a Qwen2-VL image processor configuration but received one that differs: ${z.prettifyError(parsed.error)}. ` +
          'Use a checkpoint of that family.',
      );
    }
    const values = parsed.data;
    const kind = values.image_processor_type;
    if (kind !== undefined && !/^Qwen2(_5_)?VLImageProcessor(Fast|Pil)?$/.test(kind)) {
      throw expected(
        'unsupported',
        'image_processor_type',
        'Qwen2VLImageProcessor',
        kind,
        'Use a Qwen2-VL checkpoint.',
      );
    }
    this.patchSize = values.patch_size;
    this.temporalPatchSize = values.temporal_patch_size;
    this.mergeSize = values.merge_size;
    this.minPixels = limits.minPixels ?? values.min_pixels ?? values.size?.shortest_edge ?? 56 * 56;
    this.maxPixels = limits.maxPixels ?? values.max_pixels ?? values.size?.longest_edge ?? 28 * 28 * 1280;
    if (!(this.minPixels >= 1 && this.minPixels <= this.maxPixels)) {
      throw expected(
        'invalid_argument',
        'minPixels',
        `1 to maxPixels (${this.maxPixels})`,
        this.minPixels,
        'Order the limits.',
      );
    }
    this.#table = normalisationTable(values.rescale_factor, values.image_mean, values.image_std);
  }

  /** The processor a checkpoint folder describes, or undefined when it describes none (a text model). */
  static async load(folder: string, limits: PixelLimits = {}): Promise<ImageProcessor | undefined> {
    const nested = (await readOptionalJson(folder, 'processor_config.json'))?.['image_processor'];
    const config = nested ?? (await readOptionalJson(folder, 'preprocessor_config.json'));
    if (config === undefined) return undefined;
    if (typeof config !== 'object')
      throw corruptFile(`${folder}/processor_config.json`, 'image_processor is not an object');
    return new ImageProcessor(config, limits);
  }

  /** The grid [t, h, w] in patches that a picture of this size gets. */
  gridFor(height: number, width: number): [number, number, number] {
    const [outHeight, outWidth] = this.#sizeFor(height, width);
    return [1, outHeight / this.patchSize, outWidth / this.patchSize];
  }

  /** How many tokens a grid takes in the prompt, after the merger. */
  numTokens(grid: readonly [number, number, number]): number {
    return (grid[0] * grid[1] * grid[2]) / this.mergeSize ** 2;
  }

  /** How many pixel values a grid takes. */
  numValues(grid: readonly [number, number, number]): number {
    return grid[0] * grid[1] * grid[2] * 3 * this.temporalPatchSize * this.patchSize ** 2;
  }

  /** Resizes, normalises and cuts one picture into patches, written to `pixels` if it is given (of `numValues` values). */
  process(image: RgbImage, pixels?: Float32Array): ProcessedImage {
    const [height, width] = this.#sizeFor(image.height, image.width);
    const rgb = pillowResizeBicubic(image.rgb, image.height, image.width, height, width);
    const grid: [number, number, number] = [1, height / this.patchSize, width / this.patchSize];
    const into = pixels ?? new Float32Array(this.numValues(grid));
    this.#patchify(into, rgb, grid[1], grid[2]);
    return { pixels: into, grid };
  }

  #sizeFor(height: number, width: number): [number, number] {
    return smartResize(height, width, this.patchSize * this.mergeSize, this.minPixels, this.maxPixels);
  }

  #patchify(pixels: Float32Array, rgb: Uint8Array, gridHeight: number, gridWidth: number): void {
    const { patchSize, mergeSize, temporalPatchSize } = this;
    const patchLength = 3 * temporalPatchSize * patchSize * patchSize;
    const rowBytes = gridWidth * patchSize * 3;
    let to = 0;
    for (let blockY = 0; blockY < gridHeight; blockY += mergeSize)
      for (let blockX = 0; blockX < gridWidth; blockX += mergeSize)
        for (let y = blockY; y < blockY + mergeSize; y++)
          for (let x = blockX; x < blockX + mergeSize; x++) {
            const from = (y * rowBytes + x * 3) * patchSize;
            writePatch(pixels, to, rgb, from, rowBytes, patchSize, temporalPatchSize, this.#table);
            to += patchLength;
          }
  }
}

/** One patch: per channel a plane, repeated for every frame of the temporal patch (a still picture is its own film). */
function writePatch(
  pixels: Float32Array,
  start: number,
  rgb: Uint8Array,
  from: number,
  rowBytes: number,
  patchSize: number,
  frames: number,
  table: Float32Array,
): void {
  const plane = patchSize * patchSize;
  const green = frames * plane;
  const blue = 2 * green;
  for (let y = 0, to = start; y < patchSize; y++) {
    let at = from + y * rowBytes;
    for (let x = 0; x < patchSize; x++, at += 3, to++) {
      pixels[to] = table[rgb[at]!]!;
      pixels[to + green] = table[256 + rgb[at + 1]!]!;
      pixels[to + blue] = table[512 + rgb[at + 2]!]!;
    }
  }
  for (let first = start; first <= start + blue; first += green) {
    for (let frame = 1; frame < frames; frame++) pixels.copyWithin(first + frame * plane, first, first + plane);
  }
}

// numpy: the product in float64, rounded to float32; then subtraction and division in float32. A byte has 256 values, so
// a table is exact; fround of a double quotient of floats equals the float quotient.
function normalisationTable(scale: number, mean: readonly number[], std: readonly number[]): Float32Array {
  const table = new Float32Array(3 * 256);
  for (let channel = 0; channel < 3; channel++) {
    const center = Math.fround(mean[channel]!);
    const spread = Math.fround(std[channel]!);
    for (let byte = 0; byte < 256; byte++) {
      table[channel * 256 + byte] = Math.fround(Math.fround(byte * scale) - center) / spread;
    }
  }
  return table;
}
