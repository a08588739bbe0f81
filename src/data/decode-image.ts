/**
 * Encoded pictures to 8-bit RGB, as PIL.Image.open(...).convert('RGB') gives it: no orientation by EXIF, no colour
 * profile applied, gray repeated, alpha dropped. What cannot be decoded alike is refused, never approximated.
 */
import { GavelError, expected } from '../errors.js';
import type { ImageSource } from './rows.js';

/** 8-bit RGB, row-major [height, width, 3]. */
export interface RgbImage {
  rgb: Uint8Array;
  width: number;
  height: number;
}

export interface DecodeOptions {
  /** The largest picture, in pixels, that is decoded at all; 179 million by default, Pillow's own bound. */
  limitPixels?: number;
}

let loadedSharp: Promise<typeof import('sharp').default> | undefined;

// Raw pictures never need the decoder, so its binary is loaded with the first encoded one.
function loadSharp(): Promise<typeof import('sharp').default> {
  loadedSharp ??= import('sharp').then(({ default: sharp }) => {
    sharp.concurrency(1);
    sharp.cache(false);
    return sharp;
  });
  return loadedSharp;
}

/** True for a source that needs no decoder. */
export function isRaw(source: ImageSource): source is RgbImage {
  return 'rgb' in source;
}

/** Checks a raw picture's size against its bytes. Throws 'image_unreadable', naming the row. */
export function checkRawImage(image: RgbImage, id: string): RgbImage {
  const { rgb, width, height } = image;
  const whole = Number.isInteger(width) && Number.isInteger(height) && width >= 1 && height >= 1;
  if (whole && rgb instanceof Uint8Array && rgb.length === width * height * 3) return image;
  throw expected(
    'image_unreadable',
    'images',
    `${String(width)} x ${String(height)} x 3 bytes of RGB in row "${id}"`,
    `${rgb instanceof Uint8Array ? rgb.length : typeof rgb} bytes`,
    'Give width and height in pixels and one byte per channel.',
    { id },
  );
}

const strict = { failOn: 'error', ignoreIcc: true, sequentialRead: true } as const;

const isEightBit = (space: string | undefined, depth: string | undefined): boolean =>
  depth === 'uchar' && (space === 'srgb' || space === 'rgb' || space === 'b-w');

// The decoder repeats itself, a line a time.
const decoderReason = (cause: unknown): string =>
  cause instanceof Error ? [...new Set(cause.message.trim().split(/\s*\n\s*/))].join(' ') : String(cause);

/** What the header of an encoded picture says against decoding it; its size and pixels are not judged. */
export async function pictureProblem(source: Exclude<ImageSource, RgbImage>): Promise<string | undefined> {
  const sharp = await loadSharp();
  const shown = 'path' in source ? `"${source.path}"` : `of ${source.bytes.length} bytes`;
  try {
    const { space, depth } = await sharp('path' in source ? source.path : source.bytes, {
      ...strict,
      limitInputPixels: false,
    }).metadata();
    return isEightBit(space, depth)
      ? undefined
      : `picture ${shown} is ${space} of ${depth} samples, not 8-bit gray or RGB: convert it first`;
  } catch (cause) {
    return `picture ${shown} does not decode: ${decoderReason(cause)}`;
  }
}

/**
 * Decodes one picture of row `id`. Errors: 'image_unreadable' (missing, damaged, too large), 'unsupported' (CMYK or more
 * than 8 bits a channel, where Pillow's own result is lossy).
 */
export async function decodeImage(source: ImageSource, id: string, options: DecodeOptions = {}): Promise<RgbImage> {
  if (isRaw(source)) return checkRawImage(source, id);
  const sharp = await loadSharp();
  const shown = 'path' in source ? source.path : `${source.bytes.length} bytes in memory`;
  try {
    const decoder = sharp('path' in source ? source.path : source.bytes, {
      ...strict,
      limitInputPixels: options.limitPixels ?? 178_956_970,
    });
    const { space, depth } = await decoder.metadata();
    if (!isEightBit(space, depth)) {
      throw new GavelError(
        'unsupported',
        `Expected an 8-bit gray or RGB picture in row "${id}" but received ${space} of ${depth} samples (${shown}). ` +
          'Convert it to 8-bit RGB first.',
        { fields: { id, image: shown, space, depth } },
      );
    }
    const { data, info } = await decoder
      .removeAlpha()
      .toColourspace('srgb')
      .raw()
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3) throw new Error(`decoded to ${info.channels} channels`);
    return { rgb: data, width: info.width, height: info.height };
  } catch (cause) {
    if (GavelError.is(cause)) throw cause;
    const reason = decoderReason(cause);
    throw new GavelError(
      'image_unreadable',
      `Expected a readable picture in row "${id}" but received ${shown}: ${reason}. Replace the file or leave the row out.`,
      { fields: { id, image: shown, reason }, cause },
    );
  }
}
