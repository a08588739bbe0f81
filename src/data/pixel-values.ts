/**
 * Bytes to the values a vision tower sees: rescale and normalise as numpy does it in transformers' Pillow back end. A byte
 * has 256 values, so one table a channel is exact.
 */
import { z } from 'zod';
import { filtersByNumber, type ResizeFilter } from './pillow-resize.js';

const perChannel = z
  .union([z.number(), z.tuple([z.number(), z.number(), z.number()])])
  .transform((value): [number, number, number] => (typeof value === 'number' ? [value, value, value] : value));

/** OpenAI CLIP's mean and standard deviation, the defaults of most processors. */
export const clipMean: [number, number, number] = [0.48145466, 0.4578275, 0.40821073];
export const clipStd: [number, number, number] = [0.26862954, 0.26130258, 0.27577711];

/** PIL.Image.Resampling by number. */
export const resampleSchema = z
  .int()
  .refine((number) => filtersByNumber[number] !== undefined, 'Pillow filters 1 (lanczos) to 5 (hamming) are supported')
  .transform((number): ResizeFilter => filtersByNumber[number]!)
  .nullish();

/** The keys of a processor's configuration that say how bytes become values. */
export const pixelKeys = {
  image_mean: perChannel.nullish(),
  image_std: perChannel.nullish(),
  rescale_factor: z.number().nullish(),
  do_rescale: z.boolean().nullish(),
  do_normalize: z.boolean().nullish(),
  resample: resampleSchema,
};

type PixelConfig = { [K in Exclude<keyof typeof pixelKeys, 'resample'>]?: z.output<(typeof pixelKeys)[K]> };

/**
 * The value of each byte, per channel: [3, 256]. The product is taken in float64 and rounded to float32; subtraction and
 * division are float32 (fround of a double quotient of floats equals the float quotient). `defaults` stand in for a mean or
 * deviation the configuration does not name.
 */
export function pixelTable(config: PixelConfig, defaults = { mean: clipMean, std: clipStd }): Float32Array {
  const table = new Float32Array(3 * 256);
  const scale = (config.do_rescale ?? true) ? (config.rescale_factor ?? 1 / 255) : 1;
  const normalise = config.do_normalize ?? true;
  for (let channel = 0; channel < 3; channel++) {
    const center = Math.fround((config.image_mean ?? defaults.mean)[channel]!);
    const spread = Math.fround((config.image_std ?? defaults.std)[channel]!);
    for (let byte = 0; byte < 256; byte++) {
      const value = Math.fround(byte * scale);
      table[channel * 256 + byte] = normalise ? Math.fround(value - center) / spread : value;
    }
  }
  return table;
}
