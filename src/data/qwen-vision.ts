/**
 * Pictures and videos of Qwen2-VL, Qwen2.5-VL and Qwen3-VL: smart resize, Pillow's filter, rescale, normalise, patches in
 * merge order. pixels [t*h*w, 3 * temporal * patch * patch] with columns (channel, t, y, x); pixel values equal transformers'
 * Pillow back end bit for bit.
 */
import { GavelError } from '../errors.js';
import type { RgbImage } from './decode-image.js';
import { chooseFrames, formatSeconds, patchTimes, secondsPerPatch, type VideoFacts } from './frame-sampling.js';
import { pillowResize } from './pillow-resize.js';
import { pixelTable } from './pixel-values.js';
import { patchRules, qwenImageSchema, writePatches, type PatchRules } from './qwen-patches.js';
import { qwenVideoRules, type QwenVideoRules } from './qwen-video-rules.js';
import { smartResize, smartResizeVideo } from './smart-resize.js';
import { parseVisionPart, type VisionConfig } from './vision-config.js';
import type { VideoPlan, VisionOptions, VisionPlan, VisionProcessor } from './vision-processor.js';

/** The processors of one Qwen checkpoint. Holds no state but its tables. */
export class QwenVision implements VisionProcessor {
  readonly imageToken = '<|image_pad|>';
  readonly videoToken = '<|video_pad|>';
  readonly image: Readonly<PatchRules>;
  readonly video: Readonly<QwenVideoRules>;
  readonly #timestamps: boolean;

  /** 'unsupported' or 'invalid_argument' when the configuration asks for something else. */
  constructor(config: Pick<VisionConfig, 'family' | 'image' | 'video'>, options: VisionOptions = {}) {
    const image = parseVisionPart(qwenImageSchema, config.image, "a Qwen-VL image processor's");
    this.image = patchRules(
      image,
      { patchSize: 14, minPixels: 56 * 56, maxPixels: 28 * 28 * 1280, table: pixelTable(image) },
      options,
    );
    this.video = qwenVideoRules(config.family === 'qwen3_vl' ? 'qwen3_vl' : 'qwen2_vl', config.video, options.video);
    this.#timestamps = config.family === 'qwen3_vl';
  }

  planImage(height: number, width: number): VisionPlan {
    const { image: rules } = this;
    const factor = rules.patchSize * rules.mergeSize;
    const resized = rules.resize
      ? smartResize(height, width, factor, rules.minPixels, rules.maxPixels)
      : unresized(height, width, factor);
    return this.#plan('image', rules, [height, width], resized, 1);
  }

  planVideo(video: VideoFacts): VideoPlan {
    const { video: rules } = this;
    const frames = chooseFrames(rules.sampling, video);
    const { height, width } = video;
    const steps = Math.ceil(frames.length / rules.temporalPatchSize);
    const resized = rules.resize
      ? this.#frameSize(frames.length, height, width)
      : unresized(height, width, rules.patchSize * rules.mergeSize);
    const plan = this.#plan('video', rules, [height, width], resized, steps);
    if (!this.#timestamps) {
      return { ...plan, frames, secondsPerGrid: secondsPerPatch(video, frames.length, rules.temporalPatchSize) };
    }
    const perStep = (plan.prompt[0] as number) / steps;
    const prompt = patchTimes(video, frames, rules.temporalPatchSize).flatMap((seconds) => [
      `<${formatSeconds(seconds)} seconds><|vision_start|>`,
      perStep,
      '<|vision_end|>',
    ]);
    return { ...plan, frames, prompt };
  }

  writeImage(image: RgbImage, plan: VisionPlan, pixels: Float32Array): void {
    const rules = this.image;
    const [height, width] = plan.resized;
    const rgb = pillowResize(image.rgb, image.height, image.width, height, width, rules.filter);
    writePatches(pixels, rgb, plan.grid, rules, 0, rules.temporalPatchSize);
  }

  async writeVideo(frames: AsyncIterable<RgbImage>, plan: VideoPlan, pixels: Float32Array): Promise<void> {
    const rules = this.video;
    const [height, width] = plan.resized;
    const { temporalPatchSize } = rules;
    const stepSize = plan.numValues / plan.grid[0];
    let index = 0;
    for await (const frame of frames) {
      const rgb = pillowResize(frame.rgb, frame.height, frame.width, height, width, rules.filter);
      const step = Math.floor(index / temporalPatchSize) * stepSize;
      const slot = index % temporalPatchSize;
      index++;
      // The last frame fills up its patch.
      const repeats = index === plan.frames.length ? temporalPatchSize - slot : 1;
      writePatches(pixels.subarray(step, step + stepSize), rgb, plan.grid, rules, slot, repeats);
    }
  }

  #frameSize(numFrames: number, height: number, width: number): [number, number] {
    const { patchSize, mergeSize, temporalPatchSize, minPixels, maxPixels, sampling, framePixels } = this.video;
    const factor = patchSize * mergeSize;
    const most = framePixels === undefined ? maxPixels : framePixels(numFrames, factor);
    return sampling.rule === 'qwen3_vl'
      ? smartResizeVideo(numFrames, height, width, temporalPatchSize, factor, minPixels, most)
      : smartResize(height, width, factor, minPixels, most);
  }

  #plan(
    kind: 'image' | 'video',
    rules: PatchRules,
    size: [number, number],
    resized: [number, number],
    steps: number,
  ): VisionPlan {
    const grid = [steps, resized[0] / rules.patchSize, resized[1] / rules.patchSize] as const;
    const numPatches = grid[0] * grid[1] * grid[2];
    const numValues = numPatches * 3 * rules.temporalPatchSize * rules.patchSize ** 2;
    return { kind, grid, size, resized, numValues, prompt: [numPatches / rules.mergeSize ** 2] };
  }
}

function unresized(height: number, width: number, factor: number): [number, number] {
  if (height % factor === 0 && width % factor === 0) return [height, width];
  throw new GavelError(
    'bad_data',
    `Expected sides that are multiples of ${factor} (the checkpoint resizes nothing) but received ${height} x ${width}. ` +
      'Resize the picture first.',
    { fields: { height, width, factor } },
  );
}
