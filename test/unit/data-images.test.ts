import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../src/data/decode-image.js';
import { loadVision } from '../../src/data/load-vision.js';
import { pillowResize } from '../../src/data/pillow-resize.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import { readSafetensorsHeader, readTensor } from '../../src/data/safetensors.js';
import { roundHalfEven, smartResize } from '../../src/data/smart-resize.js';
import { familyOf } from '../../src/data/vision-config.js';
import { processImage, type VisionOptions } from '../../src/data/vision-processor.js';

interface PillowGolden {
  picture_sha256: string;
  resize: { from: [number, number]; to: [number, number]; sha256: string }[];
  processor: { size: [number, number]; grid: number[]; shape: number[]; sha256: string }[];
  smart_resize: [number, number, number, number, number, [number, number] | null][];
  encoded: { name: string; base64: string; height: number; width: number; sha256: string }[];
}

const goldens = new URL('../goldens/', import.meta.url).pathname;
const readGolden = async <T>(name: string): Promise<T> => JSON.parse(await readFile(join(goldens, name), 'utf8')) as T;
const pillow = await readGolden<PillowGolden>('pillow.json');
const images = await readGolden<{
  images: Record<string, { grid_thw?: number[] }>;
  smart_resize: { rows: [number, number, number, number][] };
}>('images.json');
const { tensors } = await readSafetensorsHeader(join(goldens, 'images.safetensors'));
const processor = (await loadVision(join(goldens, 'micro-vl')))!;
const qwen = (image: Record<string, unknown>, options: VisionOptions = {}): QwenVision =>
  new QwenVision({ family: 'qwen2_vl', image, video: {} }, options);

const sha256 = (bytes: ArrayBufferView): string =>
  createHash('sha256')
    .update(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    .digest('hex');

/** The picture of make_pillow.py: integer arithmetic only. */
function picture(height: number, width: number): Uint8Array {
  const rgb = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (let c = 0; c < 3; c++, at++) {
        const noise = (Math.imul(x, 2654435761) ^ Math.imul(y, 2246822519) ^ Math.imul(c, 3266489917)) >>> 24;
        rgb[at] = x * 5 + y * 3 + c * 41 + (noise >> 2);
      }
  return rgb;
}

async function goldenPicture(name: string): Promise<{ rgb: Uint8Array; width: number; height: number }> {
  const entry = tensors.get(`${name}.pixels`)!;
  const data = (await readTensor(entry)) as Uint8Array;
  const [height, width] = entry.shape as [number, number];
  const rgb =
    entry.shape.length === 3 ? data : Uint8Array.from({ length: data.length * 3 }, (_, i) => data[Math.floor(i / 3)]!);
  return { rgb, width, height };
}

describe('pillow resize', () => {
  it('rebuilds the picture the goldens were made from', () =>
    expect(sha256(picture(13, 17))).toBe(pillow.picture_sha256));

  it.each(pillow.resize)('equals Pillow from $from to $to', ({ from, to, sha256: wanted }) => {
    expect(sha256(pillowResize(picture(...from), ...from, ...to))).toBe(wanted);
  });

  it('keeps a flat picture flat, at any size', () => {
    const side = fc.integer({ min: 1, max: 40 });
    fc.assert(
      fc.property(side, side, side, side, fc.nat(255), (height, width, outHeight, outWidth, value) => {
        const out = pillowResize(new Uint8Array(height * width * 3).fill(value), height, width, outHeight, outWidth);
        expect(out).toEqual(new Uint8Array(outHeight * outWidth * 3).fill(value));
      }),
    );
  });
});

describe('smart resize', () => {
  it.each(images.smart_resize.rows)('%i x %i gives %i x %i', (height, width, outHeight, outWidth) => {
    expect(smartResize(height, width)).toEqual([outHeight, outWidth]);
  });

  it('equals the reference for other factors and limits, refusals included', () => {
    for (const [height, width, factor, minPixels, maxPixels, wanted] of pillow.smart_resize) {
      const run = (): [number, number] => smartResize(height, width, factor, minPixels, maxPixels);
      if (wanted === null) expect(run).toThrow(expect.objectContaining({ code: 'bad_data' }));
      else expect([height, width, factor, run()]).toEqual([height, width, factor, wanted]);
    }
  });

  it('stays within its bounds', () => {
    const side = fc.integer({ min: 1, max: 4000 });
    fc.assert(
      fc.property(side, side, (height, width) => {
        fc.pre(Math.max(height, width) / Math.min(height, width) <= 200);
        const [outHeight, outWidth] = smartResize(height, width);
        expect(outHeight % 28).toBe(0);
        expect(outWidth % 28).toBe(0);
        expect(outHeight * outWidth).toBeGreaterThanOrEqual(56 * 56);
        expect(outHeight * outWidth).toBeLessThanOrEqual(1_003_520);
      }),
    );
  });

  it('rounds halves to even', () => {
    expect([0.5, 1.5, 2.5, 2.4999, 2.5001, 3.5].map(roundHalfEven)).toEqual([0, 2, 2, 2, 3, 4]);
  });
});

describe('image processor', () => {
  it.each(pillow.processor)(
    'equals the Pillow back end bit for bit at $size',
    ({ size, grid, shape, sha256: wanted }) => {
      const wide = qwen({}, { minPixels: 56 * 56, maxPixels: 28 * 28 * 1280 });
      const out = processImage(wide, { rgb: picture(...size), height: size[0], width: size[1] });
      expect(out.grid).toEqual(grid);
      expect([out.grid[1] * out.grid[2], out.pixels.length / (out.grid[1] * out.grid[2])]).toEqual(shape);
      expect(sha256(out.pixels)).toBe(wanted);
    },
  );

  it('equals the stored values of the Pillow back end', async () => {
    const out = processImage(processor, await goldenPicture('shrink'));
    const wanted = (await readTensor(tensors.get('shrink.pixel_values_pil')!)) as Float32Array;
    expect(sha256(out.pixels)).toBe(sha256(wanted));
  });

  it.each(['exact', 'shrink', 'grow', 'gray'])(
    'lies within a gray level of the torchvision back end (%s)',
    async (name) => {
      const out = processImage(processor, await goldenPicture(name));
      const wanted = (await readTensor(tensors.get(`${name}.pixel_values`)!)) as Float32Array;
      expect(out.grid).toEqual(images.images[name]!.grid_thw);
      expect(out.pixels).toHaveLength(wanted.length);
      const worst = out.pixels.reduce((max, value, i) => Math.max(max, Math.abs(value - wanted[i]!)), 0);
      expect(worst).toBeLessThan(name === 'exact' ? 3e-7 : 0.0151);
    },
  );

  it('reads limits of either generation of configuration, and lets options override them', () => {
    const limits = (image: Record<string, unknown>, options: VisionOptions = {}): number[] => {
      const { minPixels, maxPixels } = qwen(image, options).image;
      return [minPixels, maxPixels];
    };
    expect(limits({ min_pixels: 784, max_pixels: 7840 })).toEqual([784, 7840]);
    expect(limits({ size: { shortest_edge: 784, longest_edge: 7840 } })).toEqual([784, 7840]);
    expect(limits({ max_pixels: 7840 }, { maxPixels: 3920 })).toEqual([3136, 3920]);
    expect(() => qwen({}, { minPixels: 10, maxPixels: 5 })).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
    expect(() => qwen({ resample: 0 })).toThrow(expect.objectContaining({ code: 'unsupported' }));
    expect(() => familyOf({ image_processor_type: 'SiglipImageProcessor' })).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });
});

describe('decoding', () => {
  const refused = new Set(['png-gray16', 'jpeg-cmyk']);
  const unknown = new Set(['bmp']);
  const readable = pillow.encoded.filter(({ name }) => !refused.has(name) && !unknown.has(name));

  it.each(readable)('equals Pillow on $name', async ({ base64, height, width, sha256: wanted }) => {
    const out = await decodeImage({ bytes: Buffer.from(base64, 'base64') }, 'row');
    expect([out.height, out.width]).toEqual([height, width]);
    expect(sha256(out.rgb)).toBe(wanted);
  });

  it.each([...refused])('refuses %s instead of guessing', async (name) => {
    const { base64 } = pillow.encoded.find((image) => image.name === name)!;
    await expect(decodeImage({ bytes: Buffer.from(base64, 'base64') }, 'row-3')).rejects.toMatchObject({
      code: 'unsupported',
      fields: { id: 'row-3' },
    });
  });

  it('names the row of a picture it cannot read', async () => {
    const jpeg = Buffer.from(pillow.encoded.find(({ name }) => name === 'jpeg-rgb')!.base64, 'base64');
    const unreadable = { code: 'image_unreadable', fields: { id: 'row-9' } };
    for (const source of [
      { path: join(goldens, 'missing.png') },
      { bytes: new Uint8Array([1, 2, 3]) },
      { bytes: new Uint8Array(0) },
      { bytes: jpeg.subarray(0, jpeg.length - 40) },
      { rgb: new Uint8Array(11), width: 2, height: 2 },
    ]) {
      await expect(decodeImage(source, 'row-9')).rejects.toMatchObject(unreadable);
    }
    await expect(decodeImage({ bytes: jpeg }, 'row-9', { limitPixels: 100 })).rejects.toMatchObject(unreadable);
  });
});
