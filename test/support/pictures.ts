// The picture that the goldens of pixels are made from: integer arithmetic only (scripts/goldens/pixels.py).
import type { RgbImage } from '../../src/data/decode-image.js';

export function picture(height: number, width: number, seed = 0): RgbImage {
  const rgb = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++, at++) {
        const noise = (Math.imul(x, 2654435761) ^ Math.imul(y, 2246822519) ^ Math.imul(c + seed, 3266489917)) >>> 24;
        rgb[at] = x * 5 + y * 3 + c * 41 + (noise >> 2);
      }
  return { rgb, height, width };
}
