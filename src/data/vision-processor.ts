/**
 * The one interface of the families' image and video processors. Work is split in two: a plan, made from sizes alone, says
 * how many tokens and values there will be; only then are pixels computed, into a buffer of the row.
 */
import type { NativeImage } from '../binding/contract.js';
import type { RgbImage } from './decode-image.js';
import type { VideoFacts } from './frame-sampling.js';

/** A picture or a video as the engine takes it. */
export interface ProcessedImage extends NativeImage {
  grid: readonly [number, number, number];
  kind: 'image' | 'video';
  size: readonly [number, number];
}

/** What a picture becomes, known from its size. */
export interface VisionPlan extends Omit<ProcessedImage, 'pixels'> {
  /** Number of pixel values. */
  numValues: number;
  /** What stands in the prompt for its placeholder: text, and runs of the placeholder token by their length. */
  prompt: readonly (string | number)[];
  /** [height, width] that the whole picture, or each frame, is resized to first. */
  resized: readonly [number, number];
}

/** What a video becomes. */
export interface VideoPlan extends VisionPlan {
  /** The frames it is made of, ascending. */
  frames: readonly number[];
}

/** Image and video processor of one checkpoint. Plans throw 'bad_data' for sizes that cannot be used. */
export interface VisionProcessor {
  /** The token a chat template writes for a picture, and for a video. */
  readonly imageToken: string;
  readonly videoToken: string;
  /** `numImages` is how many pictures the row has: LLaVA-OneVision cuts only a single one into tiles. */
  planImage(height: number, width: number, numImages: number): VisionPlan;
  planVideo(video: VideoFacts): VideoPlan;
  /** Fills `pixels`, of `plan.numValues` values. */
  writeImage(image: RgbImage, plan: VisionPlan, pixels: Float32Array): void;
  /** Fills `pixels` from the frames that `plan.frames` names, in their order. */
  writeVideo(frames: AsyncIterable<RgbImage>, plan: VideoPlan, pixels: Float32Array): Promise<void>;
}

/** How a video's frames are chosen and sized; each overrides the checkpoint's own. */
export interface VideoOptions {
  /** Frames to take a second. */
  fps?: number;
  /** Frames to take in all; not with `fps`. */
  numFrames?: number;
  /** Bounds of what `fps` gives. */
  minFrames?: number;
  maxFrames?: number;
  /** Area in pixels after resizing: of a frame (Qwen2-VL), of all frames together (Qwen3-VL). */
  minPixels?: number;
  maxPixels?: number;
}

/** Area limits in pixels; they override the checkpoint's. */
export interface PixelLimits {
  minPixels?: number;
  maxPixels?: number;
}

export interface VisionOptions extends PixelLimits {
  video?: VideoOptions;
}

/** One picture through plan and pixels; for callers that have no prompt. */
export function processImage(processor: VisionProcessor, image: RgbImage, numImages = 1): ProcessedImage {
  const plan = processor.planImage(image.height, image.width, numImages);
  const pixels = new Float32Array(plan.numValues);
  processor.writeImage(image, plan, pixels);
  return { pixels, ...describe(plan) };
}

/** The part of a plan that the engine reads. */
export function describe({ grid, kind, size, secondsPerGrid }: VisionPlan): Omit<ProcessedImage, 'pixels'> {
  return { grid, kind, size, ...(secondsPerGrid === undefined ? {} : { secondsPerGrid }) };
}
