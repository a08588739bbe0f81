/** Bounds of prompts and their pictures, as users write them: in run.yaml and as options of a policy. */
import { z } from 'zod';

const pixels = z.number().int().min(1).optional();

const count = z.number().int().min(1).optional();

/** How a video's frames are chosen and sized. */
export const videoOptionsSchema = z
  .strictObject({
    fps: z.number().positive().optional().describe("Frames to take a second. Default: the video processor's."),
    numFrames: count.describe('Frames to take in all; not with `fps`.'),
    minFrames: count.describe("Fewest frames that `fps` gives. Default: the video processor's."),
    maxFrames: count.describe("Most frames that `fps` gives. Default: the video processor's."),
    minPixels: pixels.describe('Smallest area after resizing: of a frame (Qwen2-VL), of all frames (Qwen3-VL).'),
    maxPixels: pixels.describe('Largest area after resizing: of a frame (Qwen2-VL), of all frames (Qwen3-VL).'),
  })
  .refine(({ fps, numFrames }) => fps === undefined || numFrames === undefined, 'give `fps` or `numFrames`, not both')
  .describe("How a video's frames are chosen and sized.");

export const promptLimitsSchema = z
  .strictObject({
    maxPromptTokens: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe("Longest prompt in tokens, images included; a longer one is refused. Default: the model's positions."),
    minPixels: pixels.describe("Smallest picture, in pixels, after resizing. Default: the image processor's."),
    maxPixels: pixels.describe("Largest picture, in pixels, after resizing. Default: the image processor's."),
    video: videoOptionsSchema.optional(),
    ffmpeg: z
      .string()
      .min(1)
      .optional()
      .describe('The ffmpeg that reads video files; ffprobe lies beside it. Default: on PATH.'),
  })
  .describe('Bounds of prompts and pictures.');

export const dataThreadsOptionsSchema = promptLimitsSchema
  .extend({
    limitPixels: pixels.describe('The largest picture, in pixels, that is decoded at all. Default: 178,956,970.'),
    templateVariables: z.record(z.string(), z.unknown()).optional().describe('Further variables of the chat template.'),
    threads: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('Worker threads. Default: one less than the cores, at most 4.'),
  })
  .describe('How rows are encoded.');
