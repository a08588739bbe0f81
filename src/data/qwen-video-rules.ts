/** The video processors of Qwen2-VL (which Qwen2.5-VL uses as well) and Qwen3-VL: defaults, limits and frame sampling. */
import { z } from 'zod';
import type { FrameSampling } from './frame-sampling.js';
import { pixelTable } from './pixel-values.js';
import { patchRules, qwenImageSchema, type PatchRules } from './qwen-patches.js';
import { parseSampling, samplingKeys } from './video-sampling-config.js';
import { parseVisionPart } from './vision-config.js';
import type { VideoOptions } from './vision-processor.js';

const schema = qwenImageSchema.extend({
  ...samplingKeys,
  video_processor_type: z
    .string()
    .regex(/^Qwen[23]VLVideoProcessor$/)
    .nullish(),
  cap_pixels_per_frame: z.boolean().nullish(),
  max_video_tokens: z.int().min(1).nullish(),
});

/** What a video's configuration says on top of its patches. */
export interface QwenVideoRules extends PatchRules {
  sampling: FrameSampling;
  /** The largest area where the checkpoint bounds it by frame (`cap_pixels_per_frame`); undefined where it does not. */
  framePixels: ((numFrames: number, factor: number) => number) | undefined;
}

/** Qwen3-VL normalises with one half where its configuration names nothing. */
const half: [number, number, number] = [0.5, 0.5, 0.5];
const halves = { mean: half, std: half };

const defaults = {
  qwen2_vl: { patchSize: 14, minPixels: 128 * 28 * 28, maxPixels: 28 * 28 * 768, maxTokens: 128_000, samples: false },
  qwen3_vl: { patchSize: 16, minPixels: 128 * 32 * 32, maxPixels: 32 * 32 * 768, maxTokens: 768, samples: true },
};

/** 'unsupported' or 'invalid_argument' when the configuration or the options ask for something else. */
export function qwenVideoRules(
  family: 'qwen2_vl' | 'qwen3_vl',
  config: unknown,
  options: VideoOptions = {},
): QwenVideoRules {
  const parsed = parseVisionPart(schema, config, "a Qwen-VL video processor's");
  const kind = parsed.video_processor_type;
  const rule = kind === undefined || kind === null ? family : kind.startsWith('Qwen3') ? 'qwen3_vl' : 'qwen2_vl';
  const { samples, maxTokens, ...sizes } = defaults[rule];
  const table = rule === 'qwen3_vl' ? pixelTable(parsed, halves) : pixelTable(parsed);
  const rules = patchRules(parsed, { ...sizes, table }, options);
  const tokens = parsed.max_video_tokens ?? maxTokens;
  return {
    ...rules,
    sampling: parseSampling(parsed, options, {
      rule,
      enabled: samples,
      fps: rule === 'qwen3_vl' ? 2 : undefined,
      temporalPatchSize: rules.temporalPatchSize,
    }),
    framePixels: parsed.cap_pixels_per_frame
      ? (numFrames, factor) =>
          rule === 'qwen3_vl' ? qwen3Cap(rules, tokens, numFrames, factor) : qwen2Cap(rules, tokens, numFrames, factor)
      : undefined,
  };
}

function qwen3Cap({ minPixels, maxPixels }: PatchRules, tokens: number, numFrames: number, factor: number): number {
  const share = Math.min(tokens * factor * factor, Math.floor(maxPixels / numFrames));
  return Math.max(share, Math.trunc(minPixels * 1.05)) * numFrames;
}

function qwen2Cap(rules: PatchRules, tokens: number, numFrames: number, factor: number): number {
  const total = Math.trunc(tokens * factor * factor * 0.9);
  const share = Math.min(rules.maxPixels, Math.floor((total * rules.temporalPatchSize) / numFrames));
  return Math.max(share, Math.trunc(rules.minPixels * 1.05));
}
