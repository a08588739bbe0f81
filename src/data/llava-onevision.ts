/**
 * Pictures and videos of LLaVA-OneVision: a single picture as a small whole and tiles of the best fitting resolution
 * (anyres), one of several pictures as a padded square, a video as frames. pixels [tiles * rows * columns, 3 * patch * patch]
 * with columns (channel, y, x); values equal transformers' Pillow back end bit for bit. Source: Li et al. 2024.
 */
import { z } from 'zod';
import { expected } from '../errors.js';
import type { RgbImage } from './decode-image.js';
import { chooseFrames, type FrameSampling, type VideoFacts } from './frame-sampling.js';
import { anyresTokens, bestResolution, fitInside, type AnyresRules } from './anyres.js';
import { pillowResize, type ResizeFilter } from './pillow-resize.js';
import { clipMean, pixelKeys, pixelTable } from './pixel-values.js';
import { writePatch } from './qwen-patches.js';
import { parseSampling, samplingKeys } from './video-sampling-config.js';
import { parseVisionPart, type VisionConfig } from './vision-config.js';
import type { VideoPlan, VisionOptions, VisionPlan, VisionProcessor } from './vision-processor.js';

const side = z.int().min(1);

const imageSchema = z.looseObject({
  ...pixelKeys,
  size: z.union([z.looseObject({ height: side, width: side }), z.looseObject({ shortest_edge: side }), side]).nullish(),
  image_grid_pinpoints: z
    .array(z.tuple([side, side]))
    .min(1)
    .nullish(),
  do_resize: z.literal(true).nullish(),
  do_center_crop: z.literal(false).nullish(),
});

const videoSchema = imageSchema.extend(samplingKeys);

const processorSchema = z.looseObject({
  num_image_tokens: z.int().min(1).nullish(),
  vision_feature_select_strategy: z.enum(['full', 'default']).nullish(),
  vision_aspect_ratio: z
    .string()
    .regex(/^anyres_max_\d+$/)
    .nullish(),
  image_token: z.string().nullish(),
  video_token: z.string().nullish(),
});

const modelSchema = z.looseObject({
  vision_config: z.looseObject({ patch_size: side.nullish() }).nullish(),
  vision_aspect_ratio: z.string().nullish(),
  vision_feature_select_strategy: z.string().nullish(),
});

/** How one kind of input becomes tiles. */
interface TileRules {
  side: number;
  filter: ResizeFilter;
  table: Float32Array;
}

/** The processors of one LLaVA-OneVision checkpoint. Holds no state but its tables. */
export class LlavaOnevisionVision implements VisionProcessor {
  readonly imageToken: string;
  readonly videoToken: string;
  readonly #image: TileRules;
  readonly #video: TileRules & { sampling: FrameSampling };
  readonly #patchSize: number;
  readonly #background: readonly [number, number, number];
  readonly #anyres: AnyresRules;
  /** 1 where the vision tower's first feature is left out. */
  readonly #dropped: number;

  /** 'unsupported' or 'invalid_argument' when the configuration asks for something else. */
  constructor(config: Omit<VisionConfig, 'family'>, options: VisionOptions = {}) {
    refuseLimits(options);
    const image = parseVisionPart(imageSchema, config.image, "a LLaVA-OneVision image processor's");
    const video = parseVisionPart(videoSchema, config.video, "a LLaVA-OneVision video processor's");
    const processor = parseVisionPart(processorSchema, config.processor, "a LLaVA-OneVision processor's");
    const model = parseVisionPart(modelSchema, config.model, "a LLaVA-OneVision model's");
    this.imageToken = processor.image_token ?? '<image>';
    this.videoToken = processor.video_token ?? '<video>';
    this.#patchSize = model.vision_config?.patch_size ?? 14;
    this.#image = tileRules(image);
    this.#video = {
      ...tileRules(video),
      sampling: parseSampling(video, options.video ?? {}, {
        rule: 'uniform',
        enabled: false,
        fps: undefined,
        temporalPatchSize: 1,
      }),
    };
    const [red, green, blue] = (image.image_mean ?? clipMean).map((mean) => Math.trunc(mean * 255));
    this.#background = [red!, green!, blue!];
    const perTile = Math.floor(this.#image.side / this.#patchSize) ** 2;
    const strategy = processor.vision_feature_select_strategy ?? model.vision_feature_select_strategy;
    this.#dropped = strategy === 'default' ? 1 : 0;
    this.#anyres = {
      tileSide: this.#image.side,
      tokensPerTile: processor.num_image_tokens ?? perTile,
      pinpoints: image.image_grid_pinpoints ?? defaultPinpoints(),
      maxTiles: Number((processor.vision_aspect_ratio ?? 'anyres_max_9').replace('anyres_max_', '')),
    };
  }

  planImage(height: number, width: number, numImages: number): VisionPlan {
    const { tileSide, tokensPerTile } = this.#anyres;
    const several = numImages > 1;
    const [fullHeight, fullWidth] = several ? [0, 0] : bestResolution(this.#anyres.pinpoints, height, width);
    const tiles = 1 + Math.ceil(fullHeight / tileSide) * Math.ceil(fullWidth / tileSide);
    const tokens = several ? tokensPerTile + 1 : anyresTokens(this.#anyres, height, width);
    return this.#plan('image', this.#image, [height, width], tiles, tokens - this.#dropped);
  }

  planVideo(video: VideoFacts): VideoPlan {
    const frames = chooseFrames(this.#video.sampling, video);
    const pooled = Math.ceil(Math.trunc(Math.sqrt(this.#anyres.tokensPerTile)) / 2);
    const size: [number, number] = [video.height, video.width];
    return { ...this.#plan('video', this.#video, size, frames.length, frames.length * pooled ** 2 + 1), frames };
  }

  writeImage(image: RgbImage, plan: VisionPlan, pixels: Float32Array): void {
    const { side: tileSide } = this.#image;
    if (plan.grid[0] === 1) {
      this.#writeTile(pixels, 0, this.#resize(padToSquare(image, this.#background), tileSide, tileSide), this.#image);
      return;
    }
    this.#writeTile(pixels, 0, this.#resize(image, tileSide, tileSide), this.#image);
    const [fullHeight, fullWidth] = bestResolution(this.#anyres.pinpoints, image.height, image.width);
    const [height, width] = fitInside(image.height, image.width, fullHeight, fullWidth);
    const fitted = this.#resize(image, height, width);
    const top = Math.floor((fullHeight - height) / 2);
    const left = Math.floor((fullWidth - width) / 2);
    let tile = 1;
    for (let y = 0; y < fullHeight; y += tileSide)
      for (let x = 0; x < fullWidth; x += tileSide)
        this.#writeTile(pixels, tile++, cut(fitted, y - top, x - left, tileSide), this.#image);
  }

  async writeVideo(frames: AsyncIterable<RgbImage>, _plan: VideoPlan, pixels: Float32Array): Promise<void> {
    const { side: tileSide, filter } = this.#video;
    let tile = 0;
    for await (const { rgb, height, width } of frames) {
      const square = pillowResize(rgb, height, width, tileSide, tileSide, filter);
      this.#writeTile(pixels, tile++, { rgb: square, height: tileSide, width: tileSide }, this.#video);
    }
  }

  #resize({ rgb, height, width }: RgbImage, outHeight: number, outWidth: number): RgbImage {
    const resized = pillowResize(rgb, height, width, outHeight, outWidth, this.#image.filter);
    return { rgb: resized, height: outHeight, width: outWidth };
  }

  /** Rows and columns past the last whole patch are left out, as the tower's convolution leaves them out. */
  #writeTile(pixels: Float32Array, tile: number, { rgb }: RgbImage, { side: tileSide, table }: TileRules): void {
    const patch = this.#patchSize;
    const perSide = Math.floor(tileSide / patch);
    const rowBytes = tileSide * 3;
    let to = tile * perSide * perSide * 3 * patch * patch;
    for (let y = 0; y < perSide; y++)
      for (let x = 0; x < perSide; x++, to += 3 * patch * patch)
        writePatch(pixels, to, patch * patch, rgb, (y * rowBytes + x * 3) * patch, rowBytes, patch, table);
  }

  #plan(
    kind: 'image' | 'video',
    { side: tileSide }: TileRules,
    size: [number, number],
    tiles: number,
    tokens: number,
  ): VisionPlan {
    const perSide = Math.floor(tileSide / this.#patchSize);
    const numValues = tiles * perSide * perSide * 3 * this.#patchSize ** 2;
    return { kind, grid: [tiles, perSide, perSide], size, resized: [tileSide, tileSide], numValues, prompt: [tokens] };
  }
}

function tileRules(config: z.output<typeof imageSchema>): TileRules {
  const size = config.size ?? 384;
  const [height, width] =
    typeof size === 'number'
      ? [size, size]
      : 'height' in size
        ? [Number(size.height), Number(size.width)]
        : [Number(size.shortest_edge), Number(size.shortest_edge)];
  if (height !== width) {
    throw expected(
      'unsupported',
      'size',
      'square tiles',
      `${height} x ${width}`,
      'Use a checkpoint with square tiles.',
    );
  }
  return { side: height, filter: config.resample ?? 'bicubic', table: pixelTable(config) };
}

/** Its sizes are fixed by the tower: limits would be ignored, and nothing is ignored silently. */
function refuseLimits({ minPixels, maxPixels, video = {} }: VisionOptions): void {
  const given = Object.entries({
    minPixels,
    maxPixels,
    'video.minPixels': video.minPixels,
    'video.maxPixels': video.maxPixels,
  });
  const [name, value] = given.find(([, limit]) => limit !== undefined) ?? [];
  if (name === undefined) return;
  throw expected(
    'invalid_argument',
    name,
    'no limit for LLaVA-OneVision, whose tiles have one size',
    value,
    'Leave it out; give smaller pictures instead.',
  );
}

/** Every resolution of 1 to 6 tiles of 384 pixels a side, the family's own list. */
function defaultPinpoints(): [number, number][] {
  const sides = [384, 768, 1152, 1536, 1920, 2304];
  return sides.flatMap((height) => sides.map((width): [number, number] => [height, width]));
}

/** The picture in the middle of a square of the mean colour. */
function padToSquare(image: RgbImage, background: readonly [number, number, number]): RgbImage {
  const { rgb, height, width } = image;
  if (height === width) return image;
  const length = Math.max(height, width);
  const square = new Uint8Array(length * length * 3);
  for (let at = 0; at < square.length; at += 3) square.set(background, at);
  const top = Math.floor((length - height) / 2);
  const left = Math.floor((length - width) / 2);
  for (let y = 0; y < height; y++) {
    square.set(rgb.subarray(y * width * 3, (y + 1) * width * 3), ((top + y) * length + left) * 3);
  }
  return { rgb: square, height: length, width: length };
}

/** A square of a picture, black where it reaches beyond. */
function cut({ rgb, height, width }: RgbImage, top: number, left: number, length: number): RgbImage {
  const tile = new Uint8Array(length * length * 3);
  const from = Math.max(left, 0);
  const to = Math.min(left + length, width);
  for (let y = Math.max(top, 0); y < Math.min(top + length, height) && from < to; y++) {
    tile.set(rgb.subarray((y * width + from) * 3, (y * width + to) * 3), ((y - top) * length + from - left) * 3);
  }
  return { rgb: tile, height: length, width: length };
}
