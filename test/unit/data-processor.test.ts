import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Processor } from '../../src/data/processor.js';
import type { ImageSource, Row } from '../../src/data/rows.js';
import { readSafetensorsHeader, readTensor } from '../../src/data/safetensors.js';

const goldens = new URL('../goldens/', import.meta.url).pathname;
const processor = await Processor.load(join(goldens, 'micro-vl'));
let empty = '';
beforeAll(async () => {
  empty = await mkdtemp(join(tmpdir(), 'gavel-processor-'));
});
afterAll(() => rm(empty, { recursive: true }));

const flat = (height: number, width: number, value = 128): ImageSource => ({
  rgb: new Uint8Array(height * width * 3).fill(value),
  width,
  height,
});

// The pictures of the vision-language golden: a smooth function and noise from a counter hash.
const mask64 = (1n << 64n) - 1n;
function hashUniform(name: string, count: number): Float64Array {
  let fnv = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(name)) fnv = ((fnv ^ BigInt(byte)) * 0x100000001b3n) & mask64;
  return Float64Array.from({ length: count }, (_, i) => {
    let z = (fnv + BigInt(i) + 0x9e3779b97f4a7c15n) & mask64;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask64;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask64;
    z ^= z >> 31n;
    return Number(z >> 40n) * 2 ** -23 - 1;
  });
}

function goldenPicture(name: string, height: number, width: number): ImageSource {
  const noise = hashUniform(`golden.img.${name}`, height * width * 3);
  const rgb = new Uint8Array(height * width * 3);
  for (let y = 0, at = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const base = [
        127 + 100 * Math.sin(x / 7 + y / 13),
        127 + 90 * Math.cos(x / 5 - y / 9),
        127 + 80 * Math.sin((x + y) / 11),
      ];
      for (const value of base) rgb[at] = Math.max(0, Math.min(255, Math.round(value + 12 * noise[at++]!)));
    }
  return { rgb, width, height };
}

describe('processor', () => {
  it('encodes the prompts and pictures of the vision-language golden as its own processor did', async () => {
    const rows: Row[] = [
      { id: '0', prompt: '<image>What is the sum?', images: [goldenPicture('a', 56, 84)] },
      {
        id: '1',
        prompt: 'Compare <image><image> and say which is larger.',
        images: [goldenPicture('b', 50, 61), goldenPicture('c', 90, 57)],
      },
    ];
    const { tensors } = await readSafetensorsHeader(join(goldens, 'vl.safetensors'));
    const { prompt_len: promptLength, prompts } = JSON.parse(await readFile(join(goldens, 'vl.json'), 'utf8')) as {
      prompt_len: number;
      prompts: string[];
    };
    const ids = Array.from((await readTensor(tensors.get('input_ids')!)) as BigInt64Array, Number);
    const mask = Array.from((await readTensor(tensors.get('attention_mask')!)) as BigInt64Array, Number);
    const wanted = (await readTensor(tensors.get('pixel_values')!)) as Float32Array;
    const grids = Array.from((await readTensor(tensors.get('image_grid_thw')!)) as BigInt64Array, Number);
    const width = tensors.get('input_ids')!.shape[1]!;
    const encoded = await Promise.all(rows.map((row) => processor.encode(row)));
    encoded.forEach((row, i) => {
      expect(processor.renderPrompt(rows[i]!.prompt)).toBe(prompts[i]);
      const prompt = ids.slice(i * width, i * width + promptLength).filter((_, k) => mask[i * width + k] === 1);
      expect(Array.from(row.promptTokens)).toEqual(prompt);
    });
    expect(encoded.flatMap(({ images }) => images.flatMap(({ grid }) => grid))).toEqual(grids);
    const pixels = encoded.flatMap(({ images }) => images.flatMap((image) => Array.from(image.pixels)));
    expect(pixels).toHaveLength(wanted.length);
    // The golden was made by the torchvision back end: within a gray level, and mostly far closer.
    const differences = pixels.map((value, i) => Math.abs(value - wanted[i]!));
    expect(Math.max(...differences.slice(0, 24 * 1176))).toBeLessThan(3e-7);
    expect(differences.reduce((max, value) => Math.max(max, value), 0)).toBeLessThan(0.0151);
  });

  it('ends a completion with the end-of-turn token and decodes it back', async () => {
    const row = await processor.encode({
      id: 'x',
      prompt: 'Hi',
      images: [],
      completion: '<think>so</think>',
      meta: { a: 1 },
    });
    expect(row.completionTokens!.at(-1)).toBe(processor.tokenizer.eosId);
    expect(processor.decodeCompletion(row.completionTokens!)).toBe('<think>so</think>');
    expect(row.meta).toEqual({ a: 1 });
    expect(row.images).toEqual([]);
    expect((await processor.encode({ id: 'y', prompt: 'Hi', images: [] })).completionTokens).toBeUndefined();
  });

  it('repeats each placeholder by its picture, in order', async () => {
    const row = await processor.encode({ id: 'x', prompt: '<image>a<image>', images: [flat(56, 56), flat(56, 112)] });
    const runs: number[] = [];
    let run = 0;
    for (const id of row.promptTokens) {
      if (id === processor.imageTokenId) run++;
      else if (run > 0) {
        runs.push(run);
        run = 0;
      }
    }
    expect(runs).toEqual([4, 8]);
    expect(row.images.map(({ grid, pixels }) => [grid, pixels.length])).toEqual([
      [[1, 4, 4], 16 * 1176],
      [[1, 4, 8], 32 * 1176],
    ]);
  });

  it('refuses a prompt that does not fit, naming the row, and never cuts it', async () => {
    const small = await Processor.load(join(goldens, 'micro-vl'), { maxPromptTokens: 60 });
    const row = { id: 'long-one', prompt: '<image>What is shown here?', images: [flat(280, 280)] };
    await expect(small.encode(row)).rejects.toMatchObject({
      code: 'prompt_too_long',
      fields: { id: 'long-one', maxPromptTokens: 60, tokens: (await processor.encode(row)).promptTokens.length },
    });
    const length = (await processor.encode(row)).promptTokens.length;
    const exact = await Processor.load(join(goldens, 'micro-vl'), { maxPromptTokens: length });
    expect((await exact.encode(row)).promptTokens).toHaveLength(length);
  });

  it('refuses a completion that goes past the positions of the model, naming the row', async () => {
    const folder = join(empty, 'few-positions');
    const keep = (path: string): boolean => !path.endsWith('.safetensors');
    await cp(join(goldens, 'micro-text'), folder, { recursive: true, filter: keep });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
    const row = { id: 'long', prompt: 'Hi', images: [], completion: 'this one' };
    const text = await Processor.load(join(goldens, 'micro-text'));
    const { promptTokens, completionTokens } = await text.encode(row);
    const tokens = promptTokens.length + completionTokens!.length;
    const withPositions = async (positions: number, maxPromptTokens?: number): Promise<Processor> => {
      await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, max_position_embeddings: positions }));
      return Processor.load(folder, maxPromptTokens === undefined ? {} : { maxPromptTokens });
    };
    expect(await (await withPositions(tokens)).encode(row)).toMatchObject({ promptTokens, completionTokens });
    await expect((await withPositions(tokens - 1)).encode(row)).rejects.toMatchObject({
      code: 'prompt_too_long',
      fields: { id: 'long', tokens, promptTokens: promptTokens.length, maxTokens: tokens - 1 },
    });
    // A lower bound of prompts is none of completions.
    expect(await (await withPositions(tokens, promptTokens.length)).encode(row)).toMatchObject({ completionTokens });
  });

  it('counts placeholders after rendering too', async () => {
    await expect(processor.encode({ id: 'a', prompt: '<image>', images: [] })).rejects.toMatchObject({
      code: 'image_count_mismatch',
    });
    await expect(processor.encode({ id: 'b', prompt: 'one <|image_pad|>', images: [] })).rejects.toMatchObject({
      code: 'image_count_mismatch',
      fields: { id: 'b', placeholders: 1, images: 0 },
    });
  });

  it('refuses images for a text model instead of dropping them', async () => {
    const text = await Processor.load(join(goldens, 'micro-text'));
    await expect(text.encode({ id: 'a', prompt: '<image>', images: [flat(56, 56)] })).rejects.toMatchObject({
      code: 'unsupported',
      fields: { id: 'a' },
    });
    expect((await text.encode({ id: 'a', prompt: 'Hi', images: [] })).promptTokens.length).toBeGreaterThan(3);
  });

  it('names what a row lacks, and what it cannot have', async () => {
    const refused = (row: unknown): Promise<unknown> => processor.encode(row as never);
    await expect(refused({ id: 'a', prompt: 'Hello' })).rejects.toMatchObject({
      code: 'invalid_argument',
      message: expect.stringMatching(/`row\.images` but received nothing: .*\[\] for a row of text/) as string,
    });
    await expect(refused({ id: 'a', prompt: 5, images: [] })).rejects.toThrow(/`row\.prompt` but received 5/);
    await expect(refused({ id: 'a', prompt: '', images: ['a.png'] })).rejects.toThrow(/`row\.images\[0\]`.*\{ path \}/);
    await expect(refused({ id: 'a', prompt: '', images: [], imges: [] })).rejects.toThrow(/Did you mean `images`/);
    await expect(refused(null)).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it('names the row of a picture that is too narrow', async () => {
    await expect(processor.encode({ id: 'thin', prompt: '<image>', images: [flat(1, 201)] })).rejects.toMatchObject({
      code: 'bad_data',
      fields: { id: 'thin' },
    });
  });

  it('refuses a folder that is no checkpoint', async () => {
    await expect(Processor.load(empty)).rejects.toMatchObject({ code: 'io' });
  });

  it('refuses a token that the template writes and the tokenizer lacks, naming the row', async () => {
    const folder = join(empty, 'foreign-template');
    const keep = (path: string): boolean => !path.endsWith('.safetensors');
    await cp(join(goldens, 'micro-vl'), folder, { recursive: true, filter: keep });
    const template = '<|im_start|>{% for m in messages %}<|{{ m.role }}_turn|>{{ m.content }}{% endfor %}';
    await writeFile(join(folder, 'chat_template.jinja'), template);
    const foreign = await Processor.load(folder);
    await expect(foreign.encode({ id: 'row-4', prompt: 'Hi', images: [] })).rejects.toMatchObject({
      code: 'tokenizer_mismatch',
      fields: { id: 'row-4', token: '<|user_turn|>' },
    });
    // What a message says is text.
    const own = { id: 'x', prompt: 'say <|user_turn|>', images: [] };
    expect((await processor.encode(own)).promptTokens.length).toBeGreaterThan(8);
    await writeFile(join(folder, 'chat_template.jinja'), template.replace('<|im_start|>', ''));
    const unknownOnly = await Processor.load(folder);
    await expect(unknownOnly.encode({ id: 'y', prompt: 'Hi', images: [] })).rejects.toMatchObject({
      code: 'tokenizer_mismatch',
    });
  });

  it('refuses a model and a tokenizer that disagree on a placeholder', async () => {
    const folder = join(empty, 'other-placeholder');
    const keep = (path: string): boolean => !path.endsWith('.safetensors');
    await cp(join(goldens, 'micro-vl'), folder, { recursive: true, filter: keep });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
    await writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, image_token_id: 17 }));
    await expect(Processor.load(folder)).rejects.toMatchObject({ code: 'tokenizer_mismatch' });
  });

  it('counts videos as it counts images', async () => {
    const film = { frames: [flat(56, 56), flat(56, 56)] };
    await expect(processor.encode({ id: 'v', prompt: 'none', images: [], videos: [film] })).rejects.toMatchObject({
      code: 'image_count_mismatch',
      fields: { id: 'v', marks: 0, videos: 1 },
    });
    const folder = join(empty, 'no-videos');
    const keep = (path: string): boolean => !path.endsWith('.safetensors');
    await cp(join(goldens, 'micro-vl'), folder, { recursive: true, filter: keep });
    await cp(join(goldens, 'micro-text/chat_template.jinja'), join(folder, 'chat_template.jinja'));
    const row = { id: 'w', prompt: '<video>', images: [], videos: [film] };
    await expect((await Processor.load(folder)).encode(row)).rejects.toMatchObject({
      code: 'image_count_mismatch',
      fields: { id: 'w', placeholders: 0, videos: 1 },
    });
  });

  it.each(['micro-vl', 'micro-ov', 'micro-qwen3-vl'])('reads a video through the template of %s', async (name) => {
    const own = await Processor.load(join(goldens, name));
    const film = { frames: [flat(56, 56), flat(56, 56)] };
    const encoded = await own.encode({
      id: 'v',
      prompt: '<image>and <video>?',
      images: [flat(56, 56)],
      videos: [film],
    });
    expect(encoded.images.map(({ kind }) => kind)).toEqual(['image', 'video']);
    const count = (token: number | undefined): number => encoded.promptTokens.filter((id) => id === token).length;
    expect(count(own.imageTokenId)).toBeGreaterThan(0);
    expect(count(own.videoTokenId)).toBeGreaterThan(0);
  });
});
