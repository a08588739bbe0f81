/** How a checkpoint's video processor chooses frames, and what the options of a call change of it. */
import { z } from 'zod';
import { expected } from '../errors.js';
import type { FrameSampling } from './frame-sampling.js';
import type { VideoOptions } from './vision-processor.js';

/** The keys of a video processor's configuration. */
export const samplingKeys = {
  do_sample_frames: z.boolean().nullish(),
  fps: z.number().positive().nullish(),
  num_frames: z.int().min(1).nullish(),
  min_frames: z.int().min(1).nullish(),
  max_frames: z.int().min(1).nullish(),
};

type SamplingConfig = { [K in keyof typeof samplingKeys]?: z.output<(typeof samplingKeys)[K]> };

/** `fps` or `numFrames` of the options turn sampling on, as they do in transformers. */
export function parseSampling(
  config: SamplingConfig,
  options: VideoOptions,
  defaults: Pick<FrameSampling, 'rule' | 'enabled' | 'fps' | 'temporalPatchSize'>,
): FrameSampling {
  if (options.fps !== undefined && options.numFrames !== undefined) {
    throw expected('invalid_argument', 'video.numFrames', 'either it or `video.fps`', 'both', 'Leave one out.');
  }
  const asked = options.fps !== undefined || options.numFrames !== undefined;
  const numFrames = asked ? options.numFrames : (config.num_frames ?? undefined);
  const fps = options.fps ?? (numFrames === undefined ? (config.fps ?? defaults.fps) : undefined);
  const minFrames = options.minFrames ?? config.min_frames ?? 4;
  const maxFrames = options.maxFrames ?? config.max_frames ?? 768;
  if (minFrames > maxFrames) {
    throw expected('invalid_argument', 'video.minFrames', `at most maxFrames (${maxFrames})`, minFrames, 'Order them.');
  }
  return {
    ...defaults,
    enabled: config.do_sample_frames ?? defaults.enabled,
    asked,
    fps,
    numFrames,
    minFrames,
    maxFrames,
  };
}
