/**
 * Where a checkpoint says how its pictures and videos are processed, in every spelling transformers has written:
 * processor_config.json with nested parts, preprocessor_config.json, video_preprocessor_config.json.
 */
import { z } from 'zod';
import { GavelError, expected } from '../errors.js';
import { corruptFile, readOptionalJson } from './checkpoint-files.js';

type Json = Record<string, unknown>;

export type VisionFamily = 'qwen2_vl' | 'qwen3_vl' | 'llava_onevision';

/** The parts of one checkpoint's configuration that its processors read. */
export interface VisionConfig {
  family: VisionFamily;
  image: Json;
  video: Json;
  /** processor_config.json, or what older files hold in its place. */
  processor: Json;
  /** config.json. */
  model: Json;
}

const families: readonly { family: VisionFamily; modelTypes: string[]; processor: RegExp; images: RegExp }[] = [
  {
    family: 'qwen3_vl',
    modelTypes: ['qwen3_vl'],
    processor: /^Qwen3VLProcessor$/,
    images: /^Qwen2VLImageProcessor(Fast|Pil)?$/,
  },
  {
    family: 'qwen2_vl',
    modelTypes: ['qwen2_vl', 'qwen2_5_vl'],
    processor: /^Qwen2(_5_)?VLProcessor$/,
    images: /^Qwen2(_5_)?VLImageProcessor(Fast|Pil)?$/,
  },
  {
    family: 'llava_onevision',
    modelTypes: ['llava_onevision'],
    processor: /^LlavaOnevisionProcessor$/,
    images: /^LlavaOnevisionImageProcessor(Fast|Pil)?$/,
  },
];

/**
 * Reads a checkpoint folder; undefined when it describes no image processor (a text model). Errors: 'unsupported' for
 * another family's, 'corrupt_checkpoint'.
 */
export async function readVisionConfig(folder: string): Promise<VisionConfig | undefined> {
  const [processor = {}, image, video, model = {}] = await Promise.all([
    readOptionalJson(folder, 'processor_config.json'),
    readOptionalJson(folder, 'preprocessor_config.json'),
    readOptionalJson(folder, 'video_preprocessor_config.json'),
    readOptionalJson(folder, 'config.json'),
  ]);
  const nested = (key: string): Json | undefined => {
    const value = processor[key];
    if (value === undefined || value === null) return undefined;
    if (typeof value === 'object' && !Array.isArray(value)) return value as Json;
    throw corruptFile(`${folder}/processor_config.json`, `${key} is not an object`);
  };
  const images = nested('image_processor') ?? image;
  if (images === undefined) return undefined;
  return {
    family: familyOf(images, processor, model),
    image: images,
    // Checkpoints older than video processors keep one file for both.
    video: nested('video_processor') ?? video ?? image ?? images,
    processor,
    model,
  };
}

/** The family of a checkpoint: by its model, else its processor, else its image processor. */
export function familyOf(image: Json, processor: Json = {}, model: Json = {}): VisionFamily {
  const kind = image['image_processor_type'] ?? image['feature_extractor_type'];
  const named = processor['processor_class'] ?? image['processor_class'];
  const found =
    families.find(({ modelTypes }) => modelTypes.includes(String(model['model_type']))) ??
    families.find(({ processor: pattern }) => typeof named === 'string' && pattern.test(named)) ??
    families.find(({ family, images }) => family !== 'qwen3_vl' && typeof kind === 'string' && images.test(kind));
  const received = [kind, named, model['model_type']].find((name) => typeof name === 'string') ?? 'none';
  if (found !== undefined && (typeof kind !== 'string' || found.images.test(kind))) return found.family;
  throw expected(
    'unsupported',
    'image_processor_type',
    'the image processor of Qwen2-VL, Qwen2.5-VL, Qwen3-VL or LLaVA-OneVision',
    received,
    'Use a checkpoint of one of these families.',
  );
}

/** Parses one part of the configuration. Throws 'unsupported' that lists what differs. */
export function parseVisionPart<T>(schema: z.ZodType<T>, config: unknown, what: string): T {
  const parsed = schema.safeParse(config);
  if (parsed.success) return parsed.data;
  throw new GavelError(
    'unsupported',
    `Expected ${what} configuration but received one that differs: ${z.prettifyError(parsed.error)}. ` +
      'Use a checkpoint of that family.',
    { fields: { what } },
  );
}
