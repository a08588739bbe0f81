/**
 * How Qwen-VL's processors turn bytes into patches: the rules a configuration states, and the writing of patches in merge
 * order, shared by pictures and frames.
 */
import { z } from 'zod';
import { expected } from '../errors.js';
import type { ResizeFilter } from './pillow-resize.js';
import { pixelKeys } from './pixel-values.js';
import type { PixelLimits } from './vision-processor.js';

export const qwenImageSchema = z.looseObject({
  ...pixelKeys,
  patch_size: z.int().min(1).nullish(),
  temporal_patch_size: z.int().min(1).nullish(),
  merge_size: z.int().min(1).nullish(),
  do_resize: z.boolean().nullish(),
  min_pixels: z.int().min(1).nullish(),
  max_pixels: z.int().min(1).nullish(),
  size: z.looseObject({ shortest_edge: z.int().min(1).nullish(), longest_edge: z.int().min(1).nullish() }).nullish(),
});

/** How bytes become patches; the same for pictures and frames. */
export interface PatchRules {
  patchSize: number;
  temporalPatchSize: number;
  mergeSize: number;
  minPixels: number;
  maxPixels: number;
  resize: boolean;
  filter: ResizeFilter;
  /** Normalised value of each byte, per channel: [3, 256]. */
  table: Float32Array;
}

/** The rules of a configuration, with limits of either generation; `limits` override them. */
export function patchRules(
  config: z.output<typeof qwenImageSchema>,
  defaults: Pick<PatchRules, 'patchSize' | 'minPixels' | 'maxPixels' | 'table'>,
  limits: PixelLimits = {},
): PatchRules {
  const minPixels = limits.minPixels ?? config.min_pixels ?? config.size?.shortest_edge ?? defaults.minPixels;
  const maxPixels = limits.maxPixels ?? config.max_pixels ?? config.size?.longest_edge ?? defaults.maxPixels;
  if (!(minPixels >= 1 && minPixels <= maxPixels)) {
    throw expected('invalid_argument', 'minPixels', `1 to maxPixels (${maxPixels})`, minPixels, 'Order the limits.');
  }
  return {
    patchSize: config.patch_size ?? defaults.patchSize,
    temporalPatchSize: config.temporal_patch_size ?? 2,
    mergeSize: config.merge_size ?? 2,
    minPixels,
    maxPixels,
    resize: config.do_resize ?? true,
    filter: config.resample ?? 'bicubic',
    table: defaults.table,
  };
}

/**
 * Patches of one frame into slots `slot` to `slot + repeats - 1` of one temporal step (a still picture is its own film).
 * `grid` is [any, rows, columns].
 */
export function writePatches(
  pixels: Float32Array,
  rgb: Uint8Array,
  grid: readonly [number, number, number],
  { patchSize, mergeSize, temporalPatchSize, table }: PatchRules,
  slot: number,
  repeats: number,
): void {
  const [, gridHeight, gridWidth] = grid;
  const plane = patchSize * patchSize;
  const channel = temporalPatchSize * plane;
  const rowBytes = gridWidth * patchSize * 3;
  let to = slot * plane;
  for (let blockY = 0; blockY < gridHeight; blockY += mergeSize)
    for (let blockX = 0; blockX < gridWidth; blockX += mergeSize)
      for (let y = blockY; y < blockY + mergeSize; y++)
        for (let x = blockX; x < blockX + mergeSize; x++) {
          writePatch(pixels, to, channel, rgb, (y * rowBytes + x * 3) * patchSize, rowBytes, patchSize, table);
          for (let repeat = 1; repeat < repeats; repeat++)
            for (let first = to; first < to + 3 * channel; first += channel)
              pixels.copyWithin(first + repeat * plane, first, first + plane);
          to += 3 * channel;
        }
}

/** One patch: a plane per channel, `channel` values apart. */
export function writePatch(
  pixels: Float32Array,
  start: number,
  channel: number,
  rgb: Uint8Array,
  from: number,
  rowBytes: number,
  patchSize: number,
  table: Float32Array,
): void {
  const blue = 2 * channel;
  for (let y = 0, to = start; y < patchSize; y++) {
    let at = from + y * rowBytes;
    for (let x = 0; x < patchSize; x++, at += 3, to++) {
      pixels[to] = table[rgb[at]!]!;
      pixels[to + channel] = table[256 + rgb[at + 1]!]!;
      pixels[to + blue] = table[512 + rgb[at + 2]!]!;
    }
  }
}
