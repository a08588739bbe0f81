/**
 * The size a Qwen2-VL picture is resized to: both sides multiples of `factor`, the area within limits, the aspect kept as
 * closely as that allows. Source: smart_resize of transformers' Qwen2-VL image processor.
 */
import { GavelError } from '../errors.js';

/** Python's round(): halves go to the even neighbour. */
export function roundHalfEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * [height, width] in pixels after resizing. Throws 'bad_data' for an aspect ratio over 200 or an empty picture.
 * Defaults: factor 28 (patch 14 x merge 2), area 56 * 56 to 14 * 14 * 4 * 1280 pixels.
 */
export function smartResize(
  height: number,
  width: number,
  factor = 28,
  minPixels = 56 * 56,
  maxPixels = 14 * 14 * 4 * 1280,
): [number, number] {
  checkAspect(height, width);
  let outHeight = roundHalfEven(height / factor) * factor;
  let outWidth = roundHalfEven(width / factor) * factor;
  if (outHeight * outWidth > maxPixels) {
    const beta = Math.sqrt((height * width) / maxPixels);
    outHeight = Math.max(factor, Math.floor(height / beta / factor) * factor);
    outWidth = Math.max(factor, Math.floor(width / beta / factor) * factor);
  } else if (outHeight * outWidth < minPixels) {
    const beta = Math.sqrt(minPixels / (height * width));
    outHeight = Math.ceil((height * beta) / factor) * factor;
    outWidth = Math.ceil((width * beta) / factor) * factor;
  }
  return [outHeight, outWidth];
}

/**
 * [height, width] of a video's frames by Qwen3-VL's rule, whose limits count the pixels of all frames together. Throws
 * 'bad_data' for fewer frames than a patch has and for an aspect ratio over 200.
 */
export function smartResizeVideo(
  numFrames: number,
  height: number,
  width: number,
  temporalFactor: number,
  factor: number,
  minPixels: number,
  maxPixels: number,
): [number, number] {
  if (numFrames < temporalFactor) {
    throw new GavelError(
      'bad_data',
      `Expected a video of at least ${temporalFactor} frames but received ${numFrames}. Add frames, or give it as an image.`,
      { fields: { frames: numFrames } },
    );
  }
  if (height < factor || width < factor) {
    const scale = Math.max(factor / height, factor / width);
    height = Math.trunc(height * scale);
    width = Math.trunc(width * scale);
  }
  checkAspect(height, width);
  let outHeight = roundHalfEven(height / factor) * factor;
  let outWidth = roundHalfEven(width / factor) * factor;
  const outFrames = roundHalfEven(numFrames / temporalFactor) * temporalFactor;
  if (outFrames * outHeight * outWidth > maxPixels) {
    const beta = Math.sqrt((numFrames * height * width) / maxPixels);
    outHeight = Math.max(factor, Math.floor(height / beta / factor) * factor);
    outWidth = Math.max(factor, Math.floor(width / beta / factor) * factor);
  } else if (outFrames * outHeight * outWidth < minPixels) {
    const beta = Math.sqrt(minPixels / (numFrames * height * width));
    outHeight = Math.ceil((height * beta) / factor) * factor;
    outWidth = Math.ceil((width * beta) / factor) * factor;
  }
  return [outHeight, outWidth];
}

function checkAspect(height: number, width: number): void {
  if (height >= 1 && width >= 1 && Math.max(height, width) / Math.min(height, width) <= 200) return;
  throw new GavelError(
    'bad_data',
    `Expected a picture with sides >= 1 and an aspect ratio of at most 200 but received ${height} x ${width}. ` +
      'Crop the picture or leave it out.',
    { fields: { height, width } },
  );
}
