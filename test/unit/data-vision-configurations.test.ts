// Where checkpoints say how pictures and videos are processed, in every spelling.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LlavaOnevisionVision } from '../../src/data/llava-onevision.js';
import { loadVision } from '../../src/data/load-vision.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import { familyOf } from '../../src/data/vision-config.js';
import { GavelError } from '../../src/errors.js';
import { type Json } from './vision-golden.js';

describe('configurations', () => {
  it('are read in every spelling', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gavel-vision-config-'));
    const put = (name: string, value: Json): Promise<void> => writeFile(join(folder, name), JSON.stringify(value));
    const load = async (): Promise<QwenVision> => (await loadVision(folder)) as QwenVision;
    try {
      expect(await loadVision(folder)).toBeUndefined();
      // Before video processors: one file for both.
      await put('preprocessor_config.json', {
        ...{ image_processor_type: 'Qwen2VLImageProcessor', processor_class: 'Qwen2_5_VLProcessor' },
        ...{ min_pixels: 3136, max_pixels: 12845056, patch_size: 14 },
      });
      expect((await load()).image).toMatchObject({ minPixels: 3136, maxPixels: 12845056, patchSize: 14 });
      expect((await load()).video).toMatchObject({ minPixels: 3136, maxPixels: 12845056, patchSize: 14 });
      expect((await load()).video.sampling).toMatchObject({ rule: 'qwen2_vl', enabled: false });
      // A file for each; the model's type tells Qwen3-VL from Qwen2-VL, whose image processor it shares.
      await put('config.json', { model_type: 'qwen3_vl' });
      const size = { shortest_edge: 65536, longest_edge: 16777216 };
      const video = { shortest_edge: 4096, longest_edge: 25165824 };
      await put('preprocessor_config.json', {
        image_processor_type: 'Qwen2VLImageProcessorFast',
        patch_size: 16,
        size,
      });
      await put('video_preprocessor_config.json', { video_processor_type: 'Qwen3VLVideoProcessor', size: video });
      expect((await load()).image).toMatchObject({ minPixels: 65536, maxPixels: 16777216, patchSize: 16 });
      expect((await load()).video).toMatchObject({ minPixels: 4096, maxPixels: 25165824, patchSize: 16 });
      expect((await load()).video.sampling).toMatchObject({ rule: 'qwen3_vl', enabled: true, fps: 2 });
      // One file for all, which comes first.
      await put('processor_config.json', {
        image_processor: { image_processor_type: 'Qwen2VLImageProcessor', patch_size: 16, size: video },
        video_processor: { video_processor_type: 'Qwen3VLVideoProcessor', size, fps: 4, max_frames: 32 },
      });
      expect((await load()).image).toMatchObject({ minPixels: 4096 });
      expect((await load()).video).toMatchObject({ minPixels: 65536, sampling: { fps: 4, maxFrames: 32 } });
      await put('config.json', { model_type: 'mllama' });
      await put('processor_config.json', { image_processor: { image_processor_type: 'MllamaImageProcessor' } });
      await expect(load()).rejects.toMatchObject({ code: 'unsupported' });
      await put('processor_config.json', { image_processor: 7 });
      await expect(load()).rejects.toMatchObject({ code: 'corrupt_checkpoint' });
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('throw nothing but GavelError, whatever stands in them', () => {
    const keys = [
      ...[
        'patch_size',
        'size',
        'min_pixels',
        'max_pixels',
        'image_mean',
        'image_std',
        'resample',
        'rescale_factor',
        'merge_size',
      ],
      ...[
        'image_grid_pinpoints',
        'num_image_tokens',
        'fps',
        'num_frames',
        'do_resize',
        'vision_config',
        'image_processor_type',
      ],
      ...['video_processor_type', 'vision_aspect_ratio', 'max_video_tokens', 'cap_pixels_per_frame', 'processor_class'],
    ];
    const config = fc.dictionary(fc.constantFrom(...keys), fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.nat(500)));
    fc.assert(
      fc.property(
        config,
        config,
        fc.constantFrom('qwen2_vl', 'qwen3_vl', 'llava_onevision'),
        (first, second, family) => {
          const parts = { image: first, video: second, processor: second, model: first } as Record<string, Json>;
          const { image, video, processor, model } = parts as Record<'image' | 'video' | 'processor' | 'model', Json>;
          try {
            familyOf(image, processor, model);
            if (family === 'llava_onevision') new LlavaOnevisionVision({ image, video, processor, model });
            else new QwenVision({ family: family, image, video });
          } catch (error) {
            expect(error).toBeInstanceOf(GavelError);
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});
