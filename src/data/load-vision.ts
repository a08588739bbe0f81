/** The image and video processor a checkpoint folder describes; the only place that knows all families. */
import { LlavaOnevisionVision } from './llava-onevision.js';
import { QwenVision } from './qwen-vision.js';
import { readVisionConfig } from './vision-config.js';
import type { VisionOptions, VisionProcessor } from './vision-processor.js';

/** Undefined for a text model. Errors: 'unsupported', 'invalid_argument', 'corrupt_checkpoint'. */
export async function loadVision(folder: string, options: VisionOptions = {}): Promise<VisionProcessor | undefined> {
  const config = await readVisionConfig(folder);
  if (config === undefined) return undefined;
  return config.family === 'llava_onevision'
    ? new LlavaOnevisionVision(config, options)
    : new QwenVision(config, options);
}
