/**
 * The model folder of the emoji judge without weights: word-level tokenizer, chat template, processor and the
 * config of a small Qwen2.5-VL, all as Hugging Face files. Words carry the Metaspace mark, so that text round-trips
 * exactly; a verdict is one token, which keeps a rationale near 22 tokens.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { separators, taskWords } from './prompts.js';
import { emptyWord, numCells, sceneSize } from './scene.js';

const specialTokens = [
  '<|endoftext|>',
  '<|im_start|>',
  '<|im_end|>',
  '<|vision_start|>',
  '<|vision_end|>',
  '<|image_pad|>',
  '<|video_pad|>',
  '<|unk|>',
] as const;

const wholeTokens = ['<think>', '</think>', '<answer>', '</answer>', 'Image 1 is better', 'Image 2 is better'] as const;

const wordMark = '\u2581';

/** Shape of the small model; every other number of config.json follows from these. */
export interface JudgeModelShape {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly ropeTheta: number;
  readonly mropeSection: readonly [number, number, number];
  readonly visionHiddenSize: number;
  readonly visionIntermediateSize: number;
  readonly visionDepth: number;
  readonly visionNumHeads: number;
  readonly initializerRange: number;
}

/** Ids by token text, special tokens first; `further` words of another task come behind all others. */
export function judgeVocabulary(
  words: readonly string[],
  further: readonly string[] = [],
): ReadonlyMap<string, number> {
  const numbers = Array.from({ length: numCells + 1 }, (_, i) => String(i));
  const plain = [...words, emptyWord, 'ok', 'no', ...numbers, ...separators, ...Object.values(taskWords), ...further];
  const tokens = [...specialTokens, ...wholeTokens, ...plain.map((word) => wordMark + word)];
  return new Map(tokens.map((token, id) => [token, id]));
}

/** The content of tokenizer.json. */
export function judgeTokenizer(words: readonly string[], further: readonly string[] = []): Record<string, unknown> {
  const vocabulary = judgeVocabulary(words, further);
  const added = (content: string, special: boolean) => ({
    id: vocabulary.get(content) as number,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special,
  });
  const metaspace = { type: 'Metaspace', replacement: wordMark, prepend_scheme: 'always', split: true };
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [
      ...specialTokens.map((token) => added(token, true)),
      ...wholeTokens.map((token) => added(token, false)),
    ],
    normalizer: null,
    pre_tokenizer: { type: 'Sequence', pretokenizers: [{ type: 'WhitespaceSplit' }, metaspace] },
    post_processor: null,
    decoder: metaspace,
    model: { type: 'WordLevel', vocab: Object.fromEntries(vocabulary), unk_token: '<|unk|>' },
  };
}

/** One opening and one closing token a turn and no role names: the turns alternate, and tokens cost time. */
export const judgeChatTemplate =
  "{% for message in messages %}<|im_start|>{% if message['content'] is string %}{{ message['content'] }}{% else %}" +
  "{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content %}" +
  "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}" +
  '{% endfor %}{% endif %}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}';

/** The content of config.json. The vocabulary is padded to a multiple of 16 rows. */
export function judgeConfig(
  words: readonly string[],
  shape: JudgeModelShape,
  further: readonly string[] = [],
): Record<string, unknown> {
  const vocabulary = judgeVocabulary(words, further);
  const id = (token: string) => vocabulary.get(token) as number;
  return {
    architectures: ['Qwen2_5_VLForConditionalGeneration'],
    dtype: 'float32',
    model_type: 'qwen2_5_vl',
    tie_word_embeddings: true,
    image_token_id: id('<|image_pad|>'),
    video_token_id: id('<|video_pad|>'),
    vision_start_token_id: id('<|vision_start|>'),
    vision_end_token_id: id('<|vision_end|>'),
    text_config: {
      model_type: 'qwen2_5_vl_text',
      vocab_size: Math.ceil(vocabulary.size / 16) * 16,
      hidden_size: shape.hiddenSize,
      intermediate_size: shape.intermediateSize,
      num_hidden_layers: shape.numLayers,
      num_attention_heads: shape.numHeads,
      num_key_value_heads: shape.numKvHeads,
      hidden_act: 'silu',
      rms_norm_eps: 1e-6,
      max_position_embeddings: 512,
      attention_dropout: 0,
      initializer_range: shape.initializerRange,
      layer_types: Array.from({ length: shape.numLayers }, () => 'full_attention'),
      rope_parameters: { rope_type: 'default', rope_theta: shape.ropeTheta, mrope_section: shape.mropeSection },
      sliding_window: null,
      use_sliding_window: false,
      use_cache: true,
      bos_token_id: null,
      eos_token_id: id('<|im_end|>'),
      pad_token_id: id('<|endoftext|>'),
      tie_word_embeddings: true,
    },
    vision_config: {
      model_type: 'qwen2_5_vl_vision',
      depth: shape.visionDepth,
      hidden_size: shape.visionHiddenSize,
      intermediate_size: shape.visionIntermediateSize,
      num_heads: shape.visionNumHeads,
      out_hidden_size: shape.hiddenSize,
      hidden_act: 'silu',
      in_channels: 3,
      patch_size: 14,
      temporal_patch_size: 2,
      spatial_merge_size: 2,
      tokens_per_second: 2,
      window_size: 112,
      fullatt_block_indexes: Array.from({ length: shape.visionDepth }, (_, i) => i),
      rope_parameters: { rope_type: 'axial', rope_theta: 10000 },
      initializer_range: shape.initializerRange,
    },
  };
}

/** The content of preprocessor_config.json: any picture becomes one of 56x56 pixels' area, normalised to [-1, 1]. */
export function judgeProcessor(): Record<string, unknown> {
  return {
    image_processor_type: 'Qwen2VLImageProcessor',
    do_convert_rgb: true,
    do_resize: true,
    do_rescale: true,
    do_normalize: true,
    image_mean: [0.5, 0.5, 0.5],
    image_std: [0.5, 0.5, 0.5],
    rescale_factor: 1 / 255,
    resample: 3,
    patch_size: 14,
    temporal_patch_size: 2,
    merge_size: 2,
    size: { shortest_edge: sceneSize * sceneSize, longest_edge: sceneSize * sceneSize },
  };
}

/** Writes every file of a model folder but the weights; `folder` is made when it is missing. */
export async function writeJudgeFolder(
  folder: string,
  words: readonly string[],
  shape: JudgeModelShape,
  further: readonly string[] = [],
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const processor = judgeProcessor();
  const vocabulary = judgeVocabulary(words, further);
  const files: Record<string, unknown> = {
    'config.json': judgeConfig(words, shape, further),
    'generation_config.json': {
      eos_token_id: vocabulary.get('<|im_end|>'),
      pad_token_id: vocabulary.get('<|endoftext|>'),
      do_sample: true,
      temperature: 1,
    },
    'tokenizer.json': judgeTokenizer(words, further),
    'tokenizer_config.json': {
      tokenizer_class: 'TokenizersBackend',
      processor_class: 'Qwen2_5_VLProcessor',
      eos_token: '<|im_end|>',
      pad_token: '<|endoftext|>',
      unk_token: '<|unk|>',
      clean_up_tokenization_spaces: false,
      model_max_length: 512,
    },
    'preprocessor_config.json': processor,
    'processor_config.json': { processor_class: 'Qwen2_5_VLProcessor', image_processor: processor },
  };
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), `${JSON.stringify(content, null, 2)}\n`);
  }
  await writeFile(join(folder, 'chat_template.jinja'), judgeChatTemplate);
}
