/**
 * Which frames of a video a model sees. Three rules, each as its family's video processor in transformers has it; all give
 * ascending frame numbers.
 */
import { GavelError } from '../errors.js';
import { roundHalfEven } from './smart-resize.js';

/** What is known of a video before a frame is decoded. */
export interface VideoFacts {
  numFrames: number;
  /** Pixels of a frame as it is shown. */
  height: number;
  width: number;
  /** Frames a second, where known. */
  fps: number | undefined;
  /** True for single pictures: they were chosen once, and are taken as they are unless options ask otherwise. */
  pictures: boolean;
}

/** How frames are chosen. `uniform` is LLaVA-OneVision's rule. */
export interface FrameSampling {
  rule: 'qwen2_vl' | 'qwen3_vl' | 'uniform';
  /** Whether the checkpoint samples frames of files, and whether options ask for it. Every frame is taken otherwise. */
  enabled: boolean;
  asked: boolean;
  /** Frames to take a second; not with `numFrames`. */
  fps: number | undefined;
  numFrames: number | undefined;
  minFrames: number;
  maxFrames: number;
  /** Frames in one patch. */
  temporalPatchSize: number;
}

/** The rate transformers assumes where none is known. */
export const assumedFps = 24;

/** The frames to take, in order. Throws 'bad_data' where the rule asks for more frames than there are, or for none. */
export function chooseFrames(sampling: FrameSampling, video: VideoFacts): number[] {
  const { numFrames: total, pictures } = video;
  if (!sampling.asked && (pictures || !sampling.enabled)) return Array.from({ length: total }, (_, index) => index);
  const fps = sampling.numFrames === undefined ? knownRate(video) : 1;
  if (sampling.rule === 'qwen3_vl') return linearlySpaced(total, qwen3Count(sampling, total, fps));
  const count = sampling.rule === 'qwen2_vl' ? qwen2Count(sampling, total, fps) : uniformCount(sampling, total, fps);
  if (count < 1 || count > total) {
    throw new GavelError(
      'bad_data',
      `Expected a video of at least ${Math.max(1, count)} frames but received one of ${total}. ` +
        'Lower `video.numFrames` or `video.fps`, or leave the video out.',
      { fields: { frames: total, wanted: count } },
    );
  }
  return evenlySpaced(total, count);
}

function qwen2Count(sampling: FrameSampling, total: number, fps: number): number {
  const { temporalPatchSize: patch } = sampling;
  if (sampling.numFrames !== undefined) return roundHalfEven(sampling.numFrames / patch) * patch;
  if (sampling.fps === undefined) throw noRate();
  const most = Math.floor(Math.min(sampling.maxFrames, total) / patch) * patch;
  const wanted = (total / fps) * sampling.fps;
  return Math.floor(Math.min(Math.max(wanted, sampling.minFrames), most, total) / patch) * patch;
}

function qwen3Count(sampling: FrameSampling, total: number, fps: number): number {
  if (sampling.numFrames !== undefined) return sampling.numFrames;
  const wanted = sampling.fps === undefined ? total : Math.trunc((total / fps) * sampling.fps);
  return Math.min(Math.max(wanted, sampling.minFrames), sampling.maxFrames, total);
}

function uniformCount(sampling: FrameSampling, total: number, fps: number): number {
  if (sampling.numFrames !== undefined) return sampling.numFrames;
  if (sampling.fps === undefined) throw noRate();
  return Math.trunc((total / fps) * sampling.fps);
}

function noRate(): GavelError {
  return new GavelError(
    'invalid_argument',
    'Expected `video.fps` or `video.numFrames` for a checkpoint that samples frames without naming a rate but received ' +
      'neither. Set one of them.',
    { fields: { name: 'video.fps' } },
  );
}

function knownRate({ fps }: VideoFacts): number {
  if (fps !== undefined) return fps;
  throw new GavelError(
    'bad_data',
    'Expected the `fps` of a video given as pictures, to take frames by the second, but received none. Give it, or set ' +
      '`video.numFrames`.',
    { fields: { name: 'fps' } },
  );
}

/** torch.arange(0, total, total / count).int(): the products are rounded to float32 before they are cut off. */
function evenlySpaced(total: number, count: number): number[] {
  const step = total / count;
  return Array.from({ length: Math.ceil(total / step) }, (_, index) => Math.trunc(Math.fround(step * index)));
}

/** numpy.linspace(0, total - 1, count).round(). */
function linearlySpaced(total: number, count: number): number[] {
  const step = count > 1 ? (total - 1) / (count - 1) : 0;
  return Array.from({ length: count }, (_, index) =>
    index === count - 1 && count > 1 ? total - 1 : roundHalfEven(index * step),
  );
}

/**
 * Seconds between the first frames of neighbouring patches, as transformers reckons them: from the mean rate of the frames
 * taken, not from their places.
 */
export function secondsPerPatch(video: VideoFacts, numTaken: number, temporalPatchSize: number): number {
  const fps = video.fps === undefined ? assumedFps : (numTaken / video.numFrames) * video.fps;
  return temporalPatchSize / fps;
}

/** The time of each patch: the mean of its first and last frame's, in seconds. The last frame fills up the last patch. */
export function patchTimes(video: VideoFacts, frames: readonly number[], temporalPatchSize: number): number[] {
  const fps = video.fps ?? assumedFps;
  const times: number[] = [];
  for (let first = 0; first < frames.length; first += temporalPatchSize) {
    const last = Math.min(first + temporalPatchSize, frames.length) - 1;
    times.push((frames[first]! / fps + frames[last]! / fps) / 2);
  }
  return times;
}

/** Python's f'{seconds:.1f}': of two equally near tenths the even one. Only quarters lie exactly between two tenths. */
export function formatSeconds(seconds: number): string {
  return seconds % 1 === 0.25 ? `${Math.floor(seconds)}.2` : seconds.toFixed(1);
}
