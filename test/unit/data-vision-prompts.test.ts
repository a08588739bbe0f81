// Prompts with pictures and videos of every family against transformers: text, ids, grids, times.
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { formatSeconds, patchTimes, secondsPerPatch } from '../../src/data/frame-sampling.js';
import { Processor } from '../../src/data/processor.js';
import type { Row } from '../../src/data/rows.js';
import type { ProcessedImage } from '../../src/data/vision-processor.js';
import { picture } from '../support/pictures.js';
import { type Json, type ChatCase, goldens, chats } from './vision-golden.js';

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
