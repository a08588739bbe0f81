// Pictures of every family against transformers: pixel values bit for bit, sizes, counts.
import { describe, expect, it } from 'vitest';
import { LlavaOnevisionVision } from '../../src/data/llava-onevision.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import { processImage, type VisionProcessor } from '../../src/data/vision-processor.js';
import { picture } from '../support/pictures.js';
import { type Json, golden, sha256, unordered, processorOf, sourceOf, tiles, tokensOf } from './vision-golden.js';

describe('pictures', () => {
  const single = golden.images.filter(({ source }) => source.pictures === undefined);

  it.each(single)('of $processor from $source equal the Pillow back end bit for bit', async (wanted) => {
    const processor = processorOf(wanted.processor);
    const image = await sourceOf(wanted);
    if (wanted.refused !== undefined) {
      expect(() => processor.planImage(image.height, image.width, 1)).toThrow(expect.toSatisfy(unordered));
      return;
    }
    const out = processImage(processor, image);
    expect(tokensOf(processor.planImage(image.height, image.width, 1).prompt)).toBe(wanted.tokens);
    expect(out.size).toEqual([image.height, image.width]);
    if (wanted.grid_thw !== undefined) expect(out.grid).toEqual(wanted.grid_thw);
    else expect(out.size).toEqual(wanted.image_sizes);
    expect(sha256(wanted.grid_thw === undefined ? tiles(out) : out.pixels)).toBe(wanted.sha256);
  });

  const several = golden.images.filter(({ source }) => source.pictures !== undefined);

  it.each(several)('of $processor that stand together equal it as well', ({ processor: name, source, ...wanted }) => {
    const processor = processorOf(name);
    const made = source.pictures!.map(([height, width, , seed]) => {
      return processImage(processor, picture(height, width, seed), source.pictures!.length);
    });
    const all = Float32Array.from(made.flatMap((image) => Array.from(tiles(image))));
    expect(made.map(({ grid }) => grid[0])).toEqual([1, 1, 1]);
    expect(sha256(all)).toBe(wanted.sha256);
    const [height, width] = source.pictures![0]!;
    expect(tokensOf(processor.planImage(height, width, 3).prompt)).toBe(
      (wanted.tokens as unknown as number[])[0] ?? wanted.tokens,
    );
  });

  it.each(golden.tables.images)('of $size take as many tokens as theirs, or are refused alike', (row) => {
    const rules: Record<string, VisionProcessor> = {
      qwen2_5_vl: processorOf('qwen2_5_vl'),
      qwen2_5_vl_hub: new QwenVision({
        family: 'qwen2_vl',
        image: { min_pixels: 3136, max_pixels: 12845056 },
        video: {},
      }),
      qwen3_vl: processorOf('qwen3_vl'),
      llava_onevision: processorOf('llava_onevision'),
      llava_onevision_small: processorOf('llava_onevision_small'),
    };
    for (const [name, processor] of Object.entries(rules)) {
      const plan = (): number => tokensOf(processor.planImage(...row.size, 1).prompt);
      if (row[name] === null) expect(plan).toThrow(expect.toSatisfy(unordered));
      else expect([name, plan()]).toEqual([name, row[name]!.tokens]);
    }
  });

  it('keep bytes, or only rescale, when the configuration says so', () => {
    const image = picture(56, 56);
    const first = (config: Json): number => {
      return processImage(new QwenVision({ family: 'qwen2_vl', image: config, video: {} }), image).pixels[0]!;
    };
    const byte = image.rgb[0]!;
    expect(first({ do_rescale: false, do_normalize: false })).toBe(byte);
    expect(first({ do_normalize: false })).toBe(Math.fround(byte * (1 / 255)));
    expect(first({ do_rescale: false, image_mean: 0.5, image_std: 0.5 })).toBe((byte - 0.5) / 0.5);
    const unresized = new QwenVision({ family: 'qwen2_vl', image: { do_resize: false }, video: {} });
    expect(unresized.planImage(28, 56).grid).toEqual([1, 2, 4]);
    expect(() => unresized.planImage(30, 56)).toThrow(expect.toSatisfy(unordered));
  });

  it('of LLaVA-OneVision have no limits to set', () => {
    const config = { image: {}, video: {}, processor: {}, model: {} };
    expect(() => new LlavaOnevisionVision(config, { maxPixels: 10_000 })).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
    expect(() => new LlavaOnevisionVision({ ...config, image: { size: { height: 384, width: 336 } } })).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });
});
