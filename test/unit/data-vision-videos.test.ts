// Videos of every family against transformers: frames, sizes, pixel values, time stamps.
import { describe, expect, it } from 'vitest';
import type { RgbImage } from '../../src/data/decode-image.js';
import { chooseFrames, formatSeconds } from '../../src/data/frame-sampling.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import { parseSampling } from '../../src/data/video-sampling-config.js';
import { smartResizeVideo } from '../../src/data/smart-resize.js';
import { picture } from '../support/pictures.js';
import { golden, sha256, unordered, onevision, tiles, tokensOf } from './vision-golden.js';

describe('videos', () => {
  it.each(golden.videos)(
    'of $processor, $frames: every frame equals the Pillow back end bit for bit',
    async (wanted) => {
      const { processor: name, frames } = wanted;
      const processor = name.startsWith('llava')
        ? onevision({ size: { height: 28, width: 28 } }, wanted.arguments, 7)
        : new QwenVision({ family: name === 'qwen3_vl' ? 'qwen3_vl' : 'qwen2_vl', image: {}, video: wanted.arguments });
      const [height, width] = frames[0]!;
      const facts = { numFrames: frames.length, height, width, fps: undefined, pictures: true };
      if (wanted.refused !== undefined) {
        expect(() => processor.planVideo(facts)).toThrow(expect.toSatisfy(unordered));
        return;
      }
      const plan = processor.planVideo(facts);
      const pixels = new Float32Array(plan.numValues);
      async function* each(): AsyncGenerator<RgbImage> {
        for (const [frameHeight, frameWidth, , seed] of frames)
          yield await Promise.resolve(picture(frameHeight, frameWidth, seed));
      }
      await processor.writeVideo(each(), plan, pixels);
      expect(tokensOf(plan.prompt)).toBe(wanted.tokens);
      if (wanted.grid_thw !== undefined) expect(plan.grid).toEqual(wanted.grid_thw);
      expect(sha256(wanted.grid_thw === undefined ? tiles({ pixels, grid: plan.grid }) : pixels)).toBe(wanted.sha256);
    },
  );

  it.each(golden.tables.videos)('of $size are sized as theirs, or refused alike', ({ size, ...rules }) => {
    const [frames, height, width] = size;
    const limits: Record<string, [number, number]> = { qwen3_vl: [131072, 786432], qwen3_vl_hub: [4096, 25165824] };
    for (const [name, [low, high]] of Object.entries(limits)) {
      const run = (): [number, number] => smartResizeVideo(frames, height, width, 2, 32, low, high);
      if (rules[name] === null) expect(run).toThrow(expect.toSatisfy(unordered));
      else expect([name, run()]).toEqual([name, rules[name]]);
    }
    const plan = (): readonly number[] =>
      new QwenVision({ family: 'qwen2_vl', image: {}, video: {} }).planVideo({
        ...{ numFrames: frames, height, width, fps: undefined, pictures: true },
      }).resized;
    if (rules['qwen2_5_vl'] === null) expect(plan).toThrow(expect.toSatisfy(unordered));
    else expect(plan()).toEqual(rules['qwen2_5_vl']);
  });

  it.each(golden.frame_sampling)('of $processor: $total_num_frames frames at $fps, asked for $ask', (wanted) => {
    const { fps, num_frames: numFrames } = wanted.ask;
    const rule = ({ qwen2_5_vl: 'qwen2_vl', qwen3_vl: 'qwen3_vl', llava_onevision: 'uniform' } as const)[
      wanted.processor
    ];
    const options = { ...(fps === undefined ? {} : { fps }), ...(numFrames === undefined ? {} : { numFrames }) };
    const defaults = { rule, enabled: false, fps: undefined, temporalPatchSize: 2 };
    const facts = { numFrames: wanted.total_num_frames, height: 56, width: 56, fps: wanted.fps, pictures: false };
    const run = (): number[] => chooseFrames(parseSampling({}, options, defaults), facts);
    if (wanted.indices === undefined) expect(run).toThrow(expect.toSatisfy(unordered));
    else expect(run()).toEqual(wanted.indices);
  });

  it('are sampled as the checkpoint says, but pictures only when asked', () => {
    const sampling = parseSampling({ do_sample_frames: true, fps: 2 }, {}, {
      ...{ rule: 'qwen2_vl', enabled: false, fps: undefined, temporalPatchSize: 2 },
    } as const);
    const file = { numFrames: 40, height: 56, width: 56, fps: 10, pictures: false };
    expect(chooseFrames(sampling, file)).toEqual([0, 5, 10, 15, 20, 25, 30, 35]);
    expect(chooseFrames(sampling, { ...file, pictures: true })).toHaveLength(40);
    expect(chooseFrames({ ...sampling, asked: true }, { ...file, pictures: true })).toHaveLength(8);
    const unknown = { ...file, pictures: true, fps: undefined };
    expect(() => chooseFrames({ ...sampling, asked: true }, unknown)).toThrow(expect.toSatisfy(unordered));
    expect(chooseFrames({ ...sampling, asked: true, numFrames: 4 }, unknown)).toEqual([0, 10, 20, 30]);
    expect(() => parseSampling({}, { fps: 1, numFrames: 2 }, sampling)).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
  });

  it('write times as Python does', () => {
    expect([0, 0.25, 0.75, 1.25, 0.05, 0.15, 2.35, 10.25, 0.5].map(formatSeconds)).toEqual([
      '0.0',
      '0.2',
      '0.8',
      '1.2',
      '0.1',
      '0.1',
      '2.4',
      '10.2',
      '0.5',
    ]);
  });
});
