// Image and video processors of every family against transformers: pixel values bit for bit, sizes, counts, frames, prompts.
import { createHash } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { decodeImage, type RgbImage } from '../../src/data/decode-image.js';
import { chooseFrames, formatSeconds, patchTimes, secondsPerPatch } from '../../src/data/frame-sampling.js';
import { LlavaOnevisionVision } from '../../src/data/llava-onevision.js';
import { loadVision } from '../../src/data/load-vision.js';
import { Processor } from '../../src/data/processor.js';
import { QwenVision } from '../../src/data/qwen-vision.js';
import type { ChatMessage, Row } from '../../src/data/rows.js';
import { readSafetensorsHeader, readTensor } from '../../src/data/safetensors.js';
import { parseSampling } from '../../src/data/video-sampling-config.js';
import { familyOf } from '../../src/data/vision-config.js';
import { processImage, type ProcessedImage, type VisionProcessor } from '../../src/data/vision-processor.js';
import { smartResizeVideo } from '../../src/data/smart-resize.js';
import { GavelError } from '../../src/errors.js';
import { picture } from '../support/pictures.js';

type Json = Record<string, unknown>;
type Shape4 = [number, number, number, number];
interface PixelCase {
  processor: string;
  source: { images_json?: string; picture?: Shape4; file?: string; pictures?: Shape4[] };
  refused?: string;
  grid_thw?: number[];
  image_sizes?: number[];
  tokens: number;
  shape: number[];
  sha256: string;
}
interface VideoCase {
  processor: string;
  arguments: Json;
  frames: Shape4[];
  refused?: string;
  grid_thw?: number[];
  tokens: number;
  sha256: string;
}
interface SamplingCase {
  processor: 'qwen2_5_vl' | 'qwen3_vl' | 'llava_onevision';
  total_num_frames: number;
  fps: number;
  ask: { fps?: number; num_frames?: number };
  indices?: number[];
}
interface PixelGolden {
  processors: Record<string, { arguments: Json }>;
  files: Record<string, string>;
  images: PixelCase[];
  videos: VideoCase[];
  frame_sampling: SamplingCase[];
  tables: {
    images: ({ size: [number, number] } & Record<string, { tokens: number } | null>)[];
    videos: ({ size: [number, number, number] } & Record<string, [number, number] | null>)[];
  };
}
interface ChatCase {
  model: string;
  template: string;
  chat: string;
  messages: ChatMessage[];
  variables?: Json;
  text: string;
  pictures?: Shape4[];
  videos?: { size: [number, number]; frames: number; fps: number; of?: number; indices?: number[] }[];
  refused?: string;
  ids: number[];
  image_grid_thw?: number[][];
  video_grid_thw?: number[][];
  second_per_grid_ts?: number[];
}

const goldens = new URL('../goldens/', import.meta.url).pathname;
const readGolden = async <T>(name: string): Promise<T> => JSON.parse(await readFile(join(goldens, name), 'utf8')) as T;
const golden = await readGolden<PixelGolden>('pixels.json');
const chats = await readGolden<{ templates: Record<string, string>; cases: ChatCase[] }>('chats.json');
const { tensors } = await readSafetensorsHeader(join(goldens, 'images.safetensors'));

const sha256 = (values: Float32Array): string =>
  createHash('sha256')
    .update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength))
    .digest('hex');
const unordered = (error: unknown): boolean => GavelError.is(error) && error.code === 'bad_data';

/** `patch` divides the tile, so that patches put together are the whole tile again. */
function onevision(image: Json, video: Json, patch: number): LlavaOnevisionVision {
  const tokens = (image['size'] as { height: number } | undefined)?.height === 28 ? 16 : 729;
  const model = { vision_config: { patch_size: patch } };
  return new LlavaOnevisionVision({ image, video, model, processor: { num_image_tokens: tokens } });
}

function processorOf(name: string): VisionProcessor {
  const image = golden.processors[name]!.arguments;
  if (name.startsWith('llava')) return onevision(image, {}, name.endsWith('small') ? 7 : 16);
  return new QwenVision({ family: name.startsWith('qwen3') ? 'qwen3_vl' : 'qwen2_vl', image, video: {} });
}

async function sourceOf({ source }: PixelCase): Promise<RgbImage> {
  if (source.picture !== undefined) return picture(source.picture[0], source.picture[1], source.picture[3]);
  if (source.file !== undefined)
    return decodeImage({ bytes: Buffer.from(golden.files[source.file]!, 'base64') }, 'row');
  const entry = tensors.get(`${source.images_json}.pixels`)!;
  const data = (await readTensor(entry)) as Uint8Array;
  const [height, width] = entry.shape as [number, number];
  if (entry.shape.length === 3) return { rgb: data, height, width };
  return { rgb: Uint8Array.from({ length: data.length * 3 }, (_, i) => data[Math.floor(i / 3)]!), height, width };
}

/** Patches [tiles * rows * columns, 3 * patch * patch] as tiles [tiles, 3, side, side]. */
function tiles({ pixels, grid: [count, rows, columns] }: Pick<ProcessedImage, 'pixels' | 'grid'>): Float32Array {
  const patch = Math.sqrt(pixels.length / (count * rows * columns * 3));
  const width = columns * patch;
  const out = new Float32Array(pixels.length);
  let at = 0;
  for (let tile = 0; tile < count; tile++)
    for (let row = 0; row < rows; row++)
      for (let column = 0; column < columns; column++)
        for (let channel = 0; channel < 3; channel++)
          for (let y = 0; y < patch; y++)
            for (let x = 0; x < patch; x++)
              out[((tile * 3 + channel) * rows * patch + row * patch + y) * width + column * patch + x] = pixels[at++]!;
  return out;
}

const tokensOf = (prompt: readonly (string | number)[]): number =>
  prompt.reduce((sum: number, part) => sum + (typeof part === 'number' ? part : 0), 0);

describe('pictures', () => {
  const single = golden.images.filter(({ source }) => source.pictures === undefined);

  it.each(single)('of $processor from $source equal the Pillow back end bit for bit', async (wanted) => {
    const processor = processorOf(wanted.processor);
    const image = await sourceOf(wanted);
    if (wanted.refused !== undefined) {
      expect(() => processor.planImage(image.height, image.width, 1)).toThrow(expect.toSatisfy(unordered));
      return;
    }
    const out = processImage(processor, image);
    expect(tokensOf(processor.planImage(image.height, image.width, 1).prompt)).toBe(wanted.tokens);
    expect(out.size).toEqual([image.height, image.width]);
    if (wanted.grid_thw !== undefined) expect(out.grid).toEqual(wanted.grid_thw);
    else expect(out.size).toEqual(wanted.image_sizes);
    expect(sha256(wanted.grid_thw === undefined ? tiles(out) : out.pixels)).toBe(wanted.sha256);
  });

  const several = golden.images.filter(({ source }) => source.pictures !== undefined);

  it.each(several)('of $processor that stand together equal it as well', ({ processor: name, source, ...wanted }) => {
    const processor = processorOf(name);
    const made = source.pictures!.map(([height, width, , seed]) => {
      return processImage(processor, picture(height, width, seed), source.pictures!.length);
    });
    const all = Float32Array.from(made.flatMap((image) => Array.from(tiles(image))));
    expect(made.map(({ grid }) => grid[0])).toEqual([1, 1, 1]);
    expect(sha256(all)).toBe(wanted.sha256);
    const [height, width] = source.pictures![0]!;
    expect(tokensOf(processor.planImage(height, width, 3).prompt)).toBe(
      (wanted.tokens as unknown as number[])[0] ?? wanted.tokens,
    );
  });

  it.each(golden.tables.images)('of $size take as many tokens as theirs, or are refused alike', (row) => {
    const rules: Record<string, VisionProcessor> = {
      qwen2_5_vl: processorOf('qwen2_5_vl'),
      qwen2_5_vl_hub: new QwenVision({
        family: 'qwen2_vl',
        image: { min_pixels: 3136, max_pixels: 12845056 },
        video: {},
      }),
      qwen3_vl: processorOf('qwen3_vl'),
      llava_onevision: processorOf('llava_onevision'),
      llava_onevision_small: processorOf('llava_onevision_small'),
    };
    for (const [name, processor] of Object.entries(rules)) {
      const plan = (): number => tokensOf(processor.planImage(...row.size, 1).prompt);
      if (row[name] === null) expect(plan).toThrow(expect.toSatisfy(unordered));
      else expect([name, plan()]).toEqual([name, row[name]!.tokens]);
    }
  });

  it('keep bytes, or only rescale, when the configuration says so', () => {
    const image = picture(56, 56);
    const first = (config: Json): number => {
      return processImage(new QwenVision({ family: 'qwen2_vl', image: config, video: {} }), image).pixels[0]!;
    };
    const byte = image.rgb[0]!;
    expect(first({ do_rescale: false, do_normalize: false })).toBe(byte);
    expect(first({ do_normalize: false })).toBe(Math.fround(byte * (1 / 255)));
    expect(first({ do_rescale: false, image_mean: 0.5, image_std: 0.5 })).toBe((byte - 0.5) / 0.5);
    const unresized = new QwenVision({ family: 'qwen2_vl', image: { do_resize: false }, video: {} });
    expect(unresized.planImage(28, 56).grid).toEqual([1, 2, 4]);
    expect(() => unresized.planImage(30, 56)).toThrow(expect.toSatisfy(unordered));
  });

  it('of LLaVA-OneVision have no limits to set', () => {
    const config = { image: {}, video: {}, processor: {}, model: {} };
    expect(() => new LlavaOnevisionVision(config, { maxPixels: 10_000 })).toThrow(
      expect.objectContaining({ code: 'invalid_argument' }),
    );
    expect(() => new LlavaOnevisionVision({ ...config, image: { size: { height: 384, width: 336 } } })).toThrow(
      expect.objectContaining({ code: 'unsupported' }),
    );
  });
});

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

describe('prompts', () => {
  const folders: string[] = [];
  afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true }))));
  const loaded = new Map<string, Promise<Processor>>();

  async function load(model: string, template: string, variables: Json): Promise<Processor> {
    const folder = await mkdtemp(join(tmpdir(), 'gavel-vision-'));
    folders.push(folder);
    await cp(join(goldens, model), folder, { recursive: true, filter: (path) => !path.endsWith('.safetensors') });
    await writeFile(join(folder, 'chat_template.jinja'), chats.templates[template]!);
    return Processor.load(folder, { templateVariables: variables });
  }
  const processorFor = ({ model, template, variables = {} }: ChatCase): Promise<Processor> => {
    const key = JSON.stringify([model, template, variables]);
    const processor = loaded.get(key) ?? load(model, template, variables);
    loaded.set(key, processor);
    return processor;
  };
  const cases = chats.cases.filter(({ videos = [] }) => videos.every(({ indices }) => indices === undefined));

  it.each(cases)('of $model ($template): $chat', async (wanted) => {
    const processor = await processorFor(wanted);
    const row: Row = {
      id: wanted.chat,
      prompt: wanted.messages,
      images: (wanted.pictures ?? []).map(([height, width, , seed]) => picture(height, width, seed)),
      videos: (wanted.videos ?? []).map(({ size, frames, fps }) => ({
        frames: Array.from({ length: frames }, (_, seed) => picture(...size, seed)),
        fps,
      })),
    };
    expect(wanted.refused).toBeUndefined();
    expect(processor.renderPrompt(row.prompt)).toBe(wanted.text);
    const encoded = await processor.encode(row);
    expect(Array.from(encoded.promptTokens)).toEqual(wanted.ids);
    const of = (kind: string): ProcessedImage[] => encoded.images.filter((image) => image.kind === kind);
    if (wanted.image_grid_thw) expect(of('image').map(({ grid }) => grid)).toEqual(wanted.image_grid_thw);
    if (wanted.video_grid_thw) expect(of('video').map(({ grid }) => grid)).toEqual(wanted.video_grid_thw);
    if (wanted.second_per_grid_ts) {
      const seconds = of('video').map(({ secondsPerGrid }) => Math.fround(secondsPerGrid!));
      expect(seconds).toEqual(wanted.second_per_grid_ts.map(Math.fround));
    }
    // Every buffer of the row is one, in the order of the placeholders.
    expect(new Set(encoded.images.map(({ pixels }) => pixels.buffer)).size).toBeLessThanOrEqual(1);
  });

  it('time a video whose frames were chosen unevenly as theirs', () => {
    const wanted = chats.cases.find(({ model, chat }) => model === 'micro-qwen3-vl' && chat === 'video-sampled')!;
    const { of, fps, indices, size } = wanted.videos![0]!;
    const facts = { numFrames: of!, height: size[0], width: size[1], fps, pictures: true };
    const stamps = patchTimes(facts, indices!, 2).map((seconds) => `<${formatSeconds(seconds)} seconds>`);
    const { expanded } = wanted as ChatCase & { expanded: string };
    expect(expanded.match(/<[\d.]+ seconds>/g)).toEqual(stamps);
    const other = chats.cases.find(({ model, chat }) => model === 'micro-vl' && chat === 'video-sampled')!;
    expect(Math.fround(secondsPerPatch(facts, indices!.length, 2))).toBe(Math.fround(other.second_per_grid_ts![0]!));
  });

  it('keep the two videos of a pair apart', async () => {
    const processor = await processorFor(
      chats.cases.find(({ model, chat }) => model === 'micro-vl' && chat === 'videos')!,
    );
    const film = { frames: [0, 1, 2, 3].map((seed) => picture(56, 56, seed)) };
    const { promptTokens, images } = await processor.encode({
      id: 'pair',
      prompt: '<video><video>Which?',
      images: [],
      videos: [film, film],
    });
    const ids = Array.from(promptTokens);
    const start = processor.tokenizer.specialId('<|vision_start|>');
    const end = processor.tokenizer.specialId('<|vision_end|>');
    const pad = processor.videoTokenId!;
    const marks = ids.filter((id) => id === start || id === end || id === pad);
    const perVideo = (images[0]!.grid[0] * images[0]!.grid[1] * images[0]!.grid[2]) / 4;
    const one = [start, ...Array.from({ length: perVideo }, () => pad), end];
    expect(marks).toEqual([...one, ...one]);
    expect(images.map(({ kind, secondsPerGrid }) => [kind, secondsPerGrid])).toEqual([
      ['video', 2 / 24],
      ['video', 2 / 24],
    ]);
  });
});
