import { afterAll, describe, expect, it } from 'vitest';
import type { NativeGroup, NativeImage, NativeModel } from '../../src/binding/contract.js';
import type { GavelError } from '../../src/errors.js';
import { type ErrorCode } from '../../src/errors.js';
import { group, job, makeEngine, stepOptions } from './checkpoint.js';
import { imageToken, smallFamilies, videoToken } from './small-families.js';

// What a family cannot compute is refused with a typed error that names the key, before anything is computed.

const engine = makeEngine(1);
afterAll(() => engine.dispose());

const family = (name: string) => smallFamilies.find((one) => one.name === name)!;

const refusal = (code: ErrorCode, message: string): unknown =>
  expect.objectContaining({ code, message: expect.stringContaining(message) as string });

interface Change {
  what: string;
  of: string;
  numbers?: Record<string, number | readonly number[]>;
  without?: string;
  texts?: Record<string, string>;
  code: ErrorCode;
  message: string;
}

const changes: readonly Change[] = [
  { what: 'a missing size', of: 'llama', without: 'hidden_size', code: 'invalid_config', message: '`hidden_size`' },
  { what: 'a broken size', of: 'qwen2', numbers: { vocab_size: 1.5 }, code: 'invalid_config', message: '`vocab_size`' },
  {
    what: 'a huge size',
    of: 'qwen2',
    numbers: { hidden_size: 2 ** 30 },
    code: 'invalid_config',
    message: '`hidden_size`',
  },
  {
    what: 'an odd head size',
    of: 'qwen3',
    numbers: { head_dim: 24 },
    code: 'invalid_config',
    message: 'multiple of 16',
  },
  {
    what: 'heads that do not divide',
    of: 'llama',
    numbers: { num_key_value_heads: 3 },
    code: 'invalid_config',
    message: '`num_key_value_heads`',
  },
  {
    what: 'an unknown rope type',
    of: 'llama',
    texts: { 'rope_parameters.rope_type': 'proportional' },
    code: 'unsupported',
    message: '`rope_parameters.rope_type`',
  },
  {
    what: 'a rope type without its factor',
    of: 'qwen2',
    texts: { 'rope_parameters.rope_type': 'linear' },
    code: 'invalid_config',
    message: '`rope_parameters.factor`',
  },
  {
    what: 'longrope factors of another length',
    of: 'qwen2',
    numbers: {
      max_position_embeddings: 64,
      'rope_parameters.short_factor': [1],
      'rope_parameters.long_factor': [1],
    },
    texts: { 'rope_parameters.rope_type': 'longrope' },
    code: 'invalid_config',
    message: '`rope_parameters.short_factor`',
  },
  {
    what: 'frequencies that are not finite',
    of: 'qwen2',
    numbers: {
      max_position_embeddings: 64,
      'rope_parameters.short_factor': Array<number>(8).fill(0),
      'rope_parameters.long_factor': Array<number>(8).fill(0),
    },
    texts: { 'rope_parameters.rope_type': 'longrope' },
    code: 'invalid_config',
    message: 'finite frequencies',
  },
  {
    what: 'heads rotated in part',
    of: 'qwen3',
    numbers: { 'rope_parameters.partial_rotary_factor': 0.5 },
    code: 'unsupported',
    message: '`rope_parameters.partial_rotary_factor`',
  },
  {
    what: 'mRoPE sections that do not add up',
    of: 'qwen3_vl',
    numbers: { 'rope_parameters.mrope_section': [1, 2, 3] },
    code: 'invalid_config',
    message: '`mrope_section`',
  },
  {
    what: 'another activation',
    of: 'qwen3_vl',
    texts: { 'vision_config.hidden_act': 'relu' },
    code: 'unsupported',
    message: '`vision_config.hidden_act`',
  },
  {
    what: 'no token for images',
    of: 'qwen2_5_vl',
    without: 'image_token_id',
    code: 'invalid_config',
    message: '`image_token_id`',
  },
  {
    what: 'a position grid that is no square',
    of: 'qwen3_vl',
    numbers: { 'vision_config.num_position_embeddings': 26 },
    code: 'invalid_config',
    message: '`vision_config.num_position_embeddings`',
  },
  {
    what: 'deepstack beyond the tower',
    of: 'qwen3_vl',
    numbers: { 'vision_config.deepstack_visual_indexes': [0, 9] },
    code: 'invalid_config',
    message: '`vision_config.deepstack_visual_indexes`',
  },
  {
    what: 'another decoder',
    of: 'llava_onevision',
    texts: { model_type: 'llama' },
    code: 'unsupported',
    message: '`model_type`',
  },
  {
    what: 'a pooling head',
    of: 'llava_onevision',
    numbers: { 'vision_config.vision_use_head': 1 },
    code: 'unsupported',
    message: '`vision_config.vision_use_head`',
  },
  {
    what: 'several feature layers',
    of: 'llava_onevision',
    numbers: { vision_feature_layer: [-1, -2] },
    code: 'unsupported',
    message: '`vision_feature_layer`',
  },
  {
    what: 'pinpoints that are no tiles',
    of: 'llava_onevision',
    numbers: { image_grid_pinpoints: [6, 7] },
    code: 'invalid_config',
    message: '`image_grid_pinpoints`',
  },
  {
    what: 'another aspect ratio',
    of: 'llava_onevision',
    texts: { vision_aspect_ratio: 'square' },
    code: 'unsupported',
    message: '`vision_aspect_ratio`',
  },
];

describe('configs', () => {
  it.each(changes)('$of: $what', async ({ of, numbers, without, texts, code, message }) => {
    const { spec } = family(of);
    const changed: Record<string, number | readonly number[]> = { ...spec.numbers, ...numbers };
    if (without !== undefined) delete changed[without];
    const made = engine.createModel({ ...spec, numbers: changed, texts: { ...spec.texts, ...texts }, dtype: 'fp32' });
    await expect(made).rejects.toThrow(refusal(code, message));
  });

  it('an unknown architecture names the known ones', async () => {
    await expect(engine.createModel({ family: 'gpt2', numbers: {}, dtype: 'fp32' })).rejects.toThrow(
      refusal('unsupported', 'llama, qwen2, qwen3, qwen2_5_vl, qwen3_vl, llava_onevision'),
    );
  });
});

describe('pictures and videos', () => {
  const next = (): number => 0.25;
  const media = (name: string, rows: number, cols: number, frames: number | null) =>
    family(name).media!({ rows, cols, frames }, next);
  const scored = async (name: string, prompt: number[], images: NativeImage[], model?: NativeModel): Promise<void> => {
    const made = model ?? (await engine.createModel({ ...family(name).spec, dtype: 'fp32' }));
    const one: NativeGroup = group([70, ...prompt, 71], [{ tokens: Int32Array.of(80, 81) }], images);
    try {
      await made.logprobs([one], { ...stepOptions, entropy: false }, job());
    } finally {
      await made.dispose();
    }
  };

  it.each(['qwen2_5_vl', 'qwen3_vl', 'llava_onevision'])('%s: counts and kinds must match', async (name) => {
    const still = media(name, 2, 1, null);
    const video = media(name, 1, 1, 3);
    const mismatch = (message: string) => refusal('image_count_mismatch', message) as GavelError;
    await scored(name, [...still.tokens, ...video.tokens], [still.image, video.image]);
    await expect(scored(name, [...video.tokens, ...still.tokens], [still.image, video.image])).rejects.toThrow(
      mismatch("but received another kind's"),
    );
    await expect(scored(name, still.tokens, [])).rejects.toThrow(mismatch('received more'));
    await expect(scored(name, [], [still.image])).rejects.toThrow(mismatch('received those of 0'));
    const short = still.tokens.slice();
    short.splice(short.indexOf(imageToken), 1);
    await expect(scored(name, short, [still.image])).rejects.toThrow(mismatch('placeholder tokens'));
    const cut = video.tokens.slice(0, video.tokens.lastIndexOf(videoToken));
    await expect(scored(name, cut, [video.image])).rejects.toThrow(mismatch('for image 1'));
  });

  it('pixels must fill the grid', async () => {
    for (const name of ['qwen2_5_vl', 'qwen3_vl', 'llava_onevision']) {
      const { tokens, image } = media(name, 2, 2, null);
      const patches = image.grid[0] * image.grid[1] * image.grid[2];
      const columns = image.pixels.length / patches;
      const fewer = { ...image, pixels: image.pixels.slice(0, patches * (columns - 1)) };
      await expect(scored(name, tokens, [fewer])).rejects.toThrow(refusal('bad_data', 'pixel values'));
    }
  });

  it('a text model takes none, and a config without a video token no video', async () => {
    const { tokens, image } = media('qwen2_5_vl', 1, 1, 2);
    await expect(scored('qwen2', [], [image])).rejects.toThrow(refusal('image_count_mismatch', 'text-only model'));
    const { spec } = family('qwen2_5_vl');
    const { video_token_id: _token, ...numbers } = spec.numbers;
    const model = await engine.createModel({ ...spec, numbers, dtype: 'fp32' });
    await expect(scored('qwen2_5_vl', tokens, [image], model)).rejects.toThrow(refusal('bad_data', '`video_token_id`'));
  });

  it('LLaVA-OneVision needs the size of a tiled picture, and its tiles', async () => {
    const { tokens, image } = media('llava_onevision', 2, 3, null);
    const { size: _size, ...unsized } = image;
    await expect(scored('llava_onevision', tokens, [unsized])).rejects.toThrow(refusal('bad_data', '`size`'));
    await expect(scored('llava_onevision', tokens, [{ ...image, size: [6, 6] }])).rejects.toThrow(
      refusal('bad_data', 'Expected 2 tiles'),
    );
    const [tiles, rows, cols] = image.grid;
    await expect(scored('llava_onevision', tokens, [{ ...image, grid: [tiles, rows * cols, 1] }])).rejects.toThrow(
      refusal('bad_data', 'Expected tiles of 3x3 patches'),
    );
  });

  it('no placeholder stands in a completion', async () => {
    const model = await engine.createModel({ ...family('qwen3_vl').spec, dtype: 'fp32' });
    for (const token of [imageToken, videoToken]) {
      const one = group([70, 71], [{ tokens: Int32Array.of(80, token) }]);
      await expect(model.logprobs([one], { ...stepOptions, entropy: false }, job())).rejects.toThrow(
        refusal('bad_data', 'placeholder in a completion'),
      );
    }
    await model.dispose();
  });
});
