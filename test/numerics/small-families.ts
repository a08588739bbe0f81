/** A small model of every family with seeded weights, and prompts with pictures and videos as its processor would lay them out. */
import type { NativeImage, NativeModelSpec } from '../../src/binding/contract.js';

export const imageToken = 60;
export const videoToken = 61;
const visionStart = 62;
const visionEnd = 63;
/** Words begin here. */
export const firstWord = 64;
export const vocabulary = 331;

type Random = () => number;

/** A picture, or a video of so many frames, of rows x cols units. */
export interface Media {
  rows: number;
  cols: number;
  frames: number | null;
}

export interface SmallFamily {
  name: string;
  spec: Omit<NativeModelSpec, 'dtype'>;
  /** Null: a text family. */
  media: ((media: Media, next: Random) => { tokens: number[]; image: NativeImage }) | null;
}

const text = {
  vocab_size: vocabulary,
  hidden_size: 64,
  intermediate_size: 112,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-6,
  tie_word_embeddings: 1,
  'rope_parameters.rope_theta': 10000,
};

const tokens = { image_token_id: imageToken, video_token_id: videoToken };

const filled = (count: number, next: Random): Float32Array =>
  Float32Array.from({ length: count }, () => next() * 2 - 1);

const run = (frames: number | null, count: number): number[] =>
  Array<number>(count).fill(frames === null ? imageToken : videoToken);

const columns = 3 * 2 * 2 * 2;

const qwenImage = ({ rows, cols, frames }: Media, next: Random): NativeImage => ({
  pixels: filled((frames ?? 1) * rows * cols * 4 * columns, next),
  grid: [frames ?? 1, rows * 2, cols * 2],
  kind: frames === null ? 'image' : 'video',
});

const qwenVision = {
  'vision_config.depth': 2,
  'vision_config.intermediate_size': 40,
  'vision_config.num_heads': 2,
  'vision_config.patch_size': 2,
  'vision_config.temporal_patch_size': 2,
  'vision_config.in_channels': 3,
  'vision_config.spatial_merge_size': 2,
  'vision_config.out_hidden_size': 64,
};

/** Features of a picture of rows x cols tiles of 3 x 3 patches, at most those of four tiles. */
function tiledFeatures(rows: number, cols: number): number {
  const ratio = Math.sqrt((rows * cols) / 4);
  const cut = (patches: number): number => (ratio > 1.1 ? Math.floor(patches / ratio) : patches);
  return 9 + cut(3 * rows) * (cut(3 * cols) + 1);
}

export const smallFamilies: readonly SmallFamily[] = [
  {
    name: 'llama',
    spec: {
      family: 'llama',
      numbers: {
        ...text,
        attention_bias: 1,
        mlp_bias: 1,
        tie_word_embeddings: 0,
        'rope_parameters.factor': 4,
        'rope_parameters.original_max_position_embeddings': 64,
        max_position_embeddings: 4096,
      },
      texts: { 'rope_parameters.rope_type': 'yarn' },
    },
    media: null,
  },
  { name: 'qwen2', spec: { family: 'qwen2', numbers: text }, media: null },
  { name: 'qwen3', spec: { family: 'qwen3', numbers: { ...text, head_dim: 32 } }, media: null },
  {
    name: 'qwen2_5_vl',
    spec: {
      family: 'qwen2_5_vl',
      numbers: {
        ...text,
        ...tokens,
        ...qwenVision,
        'rope_parameters.mrope_section': [2, 3, 3],
        'vision_config.hidden_size': 32,
        'vision_config.window_size': 8,
        'vision_config.fullatt_block_indexes': [1],
      },
    },
    media: (media, next) => ({
      tokens: [visionStart, ...run(media.frames, (media.frames ?? 1) * media.rows * media.cols), visionEnd],
      image: { ...qwenImage(media, next), secondsPerGrid: 1 },
    }),
  },
  {
    name: 'qwen3_vl',
    spec: {
      family: 'qwen3_vl',
      numbers: {
        ...text,
        ...tokens,
        ...qwenVision,
        head_dim: 32,
        'rope_parameters.mrope_section': [6, 5, 5],
        // A head size of 24: attention pads it.
        'vision_config.hidden_size': 48,
        'vision_config.num_position_embeddings': 25,
        'vision_config.deepstack_visual_indexes': [0, 1],
      },
    },
    media: (media, next) => ({
      tokens: Array.from({ length: media.frames ?? 1 }, (_, frame) => [
        ...(media.frames === null ? [] : [firstWord + frame]),
        visionStart,
        ...run(media.frames, media.rows * media.cols),
        visionEnd,
      ]).flat(),
      image: qwenImage(media, next),
    }),
  },
  {
    name: 'llava_onevision',
    spec: {
      family: 'llava_onevision',
      numbers: {
        ...text,
        image_token_index: imageToken,
        video_token_index: videoToken,
        image_grid_pinpoints: [1, 2, 3, 4].flatMap((rows) => [1, 2, 3, 4].flatMap((cols) => [6 * rows, 6 * cols])),
        'vision_config.hidden_size': 48,
        'vision_config.num_attention_heads': 2,
        'vision_config.intermediate_size': 40,
        'vision_config.num_hidden_layers': 2,
        'vision_config.image_size': 6,
        'vision_config.patch_size': 2,
        'vision_config.vision_use_head': 0,
      },
      texts: { vision_aspect_ratio: 'anyres_max_4' },
    },
    media: ({ rows, cols, frames }, next) => {
      const tiles = frames ?? 1 + rows * cols;
      return {
        tokens: run(frames, frames === null ? tiledFeatures(rows, cols) : 4 * frames + 1),
        image: {
          pixels: filled(tiles * 9 * 12, next),
          grid: [tiles, 3, 3],
          size: [6 * rows, 6 * cols],
          kind: frames === null ? 'image' : 'video',
        },
      };
    },
  },
];
