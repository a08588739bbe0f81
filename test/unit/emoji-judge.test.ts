import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { toMessages } from '../../src/data/rows.js';
import { ChatTemplate } from '../../src/data/template.js';
import { Tokenizer } from '../../src/data/tokenizer.js';
import { type EmojiBank, loadEmojiBank } from '../../src/emoji-judge/bank.js';
import { CounterRandom, philox4x32 } from '../../src/emoji-judge/counter-random.js';
import { directRow, judgeRow, lookRow } from '../../src/emoji-judge/items.js';
import { type Difficulty, makePair, type PairOptions, swapOrder } from '../../src/emoji-judge/pair.js';
import { makeLook } from '../../src/emoji-judge/perception.js';
import { goldRationale, numRight } from '../../src/emoji-judge/prompts.js';
import { composeScene, emptyWord, sceneSize } from '../../src/emoji-judge/scene.js';
import { judgeVocabulary, writeJudgeFolder } from '../../src/emoji-judge/vocabulary.js';

let bank: EmojiBank;
beforeAll(async () => {
  bank = await loadEmojiBank();
});

const options = (difficulty: Difficulty = 'hard', seed = 7): PairOptions => ({
  seed,
  split: 'unit',
  artists: bank.artists,
  difficulty,
});

describe('counter-based randomness', () => {
  it('equals the published Philox 4x32-10 vectors', () => {
    const max = 0xffffffff;
    expect(philox4x32([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
    expect(philox4x32([max, max, max, max], [max, max])).toEqual([0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  });

  it('gives unlike streams for unlike names', () => {
    const first = (...name: ConstructorParameters<typeof CounterRandom>) => new CounterRandom(...name).word();
    const words = [first(1, 'a', 0, 'x'), first(2, 'a', 0, 'x'), first(1, 'b', 0, 'x'), first(1, 'a', 1, 'x')];
    expect(new Set([...words, first(1, 'a', 0, 'y')]).size).toBe(5);
  });
});

describe('the bank', () => {
  it('has at least 24 concepts by three seen artists and one unseen', () => {
    expect(bank.words.length).toBeGreaterThanOrEqual(24);
    expect(new Set(bank.words).size).toBe(bank.words.length);
    expect(bank.seenArtists).toEqual(['twemoji', 'fluent-flat', 'fluent-color']);
    expect(bank.unseenArtists).toEqual(['noto']);
  });

  it('holds a different, non-empty glyph for every artist and concept', () => {
    const seen = new Set<string>();
    for (const artist of bank.artists) {
      for (const word of bank.words) {
        const glyph = bank.glyph(artist, word);
        const opaque = glyph.filter((value, i) => i % 4 === 3 && value > 128).length;
        expect(opaque, `${artist} ${word}`).toBeGreaterThan(60);
        seen.add(Buffer.from(glyph).toString('base64'));
      }
    }
    expect(seen.size).toBe(bank.artists.length * bank.words.length);
  });

  it('names the artists and concepts it has when asked for another', () => {
    expect(() => bank.glyph('apple', 'dog')).toThrow(/Artists: twemoji, fluent-flat/);
  });
});

describe('pairs', () => {
  it('are a pure function of seed, split and index', () => {
    const once = makePair(bank, options(), 5);
    makePair(bank, options(), 6);
    expect(makePair(bank, options(), 5)).toEqual(once);
    expect(makePair(bank, options('hard', 8), 5).scenes[0].rgb).not.toEqual(once.scenes[0].rgb);
  });

  it.each(['hard', 'easy'] as const)('of the %s split carry an exact label', (difficulty) => {
    for (let i = 0; i < 100; i++) {
      const pair = makePair(bank, options(difficulty), i);
      const [first, second] = pair.cells.map((cells) => numRight(pair.caption, cells)) as [number, number];
      const gap = Math.abs(first - second);
      expect(difficulty === 'hard' ? gap === 1 : gap >= 2).toBe(true);
      expect(pair.verdict).toBe(first > second ? 'Image 1 is better' : 'Image 2 is better');
      expect(pair.caption.filter((word) => word !== emptyWord).length).toBeGreaterThanOrEqual(2);
    }
  });

  it('put the better picture equally often on each side, and use every kind of error', () => {
    const pairs = Array.from({ length: 200 }, (_, i) => makePair(bank, options(), i));
    expect(pairs.filter((pair) => pair.verdict === 'Image 1 is better')).toHaveLength(100);
    const kinds = new Set(pairs.flatMap((pair) => pair.errors.flat()));
    expect([...kinds].sort()).toEqual(['add', 'drop', 'replace', 'swap']);
  });

  it('swapped show the same pictures with the other verdict', () => {
    const pair = makePair(bank, options(), 3);
    const other = swapOrder(pair);
    expect(other.scenes).toEqual([pair.scenes[1], pair.scenes[0]]);
    expect(other.verdict).not.toBe(pair.verdict);
    expect(swapOrder(other).verdict).toBe(pair.verdict);
  });
});

describe('pictures', () => {
  it('show the glyphs of their cells and leave empty cells near the background', () => {
    const compose = (cells: Parameters<typeof composeScene>[1]) =>
      composeScene(bank, cells, 'twemoji', new CounterRandom(1, 'unit', 0, 'scene'));
    const empty = compose([emptyWord, emptyWord, emptyWord, emptyWord]);
    const heart = compose([emptyWord, emptyWord, emptyWord, 'heart']);
    expect(empty.rgb).toHaveLength(sceneSize * sceneSize * 3);
    for (let y = 0; y < sceneSize; y++) {
      for (let x = 0; x < sceneSize; x++) {
        const at = (y * sceneSize + x) * 3;
        const same = [0, 1, 2].every((channel) => empty.rgb[at + channel] === heart.rgb[at + channel]);
        if (x < 28 || y < 28) expect(same, `${x},${y}`).toBe(true);
        if (x === 42 && y === 42) expect(same).toBe(false);
      }
    }
  });
});

describe('rows', () => {
  it('carry one image a mark, and a rationale only when asked', () => {
    const pair = makePair(bank, options(), 0);
    const bare = judgeRow(pair, false);
    expect(bare.completion).toBeUndefined();
    expect(bare.solution).toBe(pair.verdict);
    expect(bare.images).toHaveLength(2);
    expect(judgeRow(pair, true).completion).toBe(goldRationale(pair));
    expect(directRow(pair).completion).toBe(`<answer>${pair.verdict}</answer>`);
    expect(lookRow(makeLook(bank, options(), 0)).images).toHaveLength(1);
  });
});

describe('the model folder', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'emoji-judge-'));
    await writeJudgeFolder(folder, bank.words, {
      hiddenSize: 128,
      intermediateSize: 256,
      numLayers: 3,
      numHeads: 4,
      numKvHeads: 4,
      ropeTheta: 10,
      mropeSection: [4, 6, 6],
      visionHiddenSize: 64,
      visionIntermediateSize: 128,
      visionDepth: 2,
      visionNumHeads: 2,
      initializerRange: 0.05,
    });
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const json = async (name: string) => JSON.parse(await readFile(join(folder, name), 'utf8')) as Record<string, never>;

  it('has a tokenizer and template that render and round-trip every row without unknown words', async () => {
    const tokenizer = await Tokenizer.load(folder);
    const template = await ChatTemplate.load(folder);
    const unknown = judgeVocabulary(bank.words).get('<|unk|>');
    for (let i = 0; i < 40; i++) {
      const pair = makePair(bank, options(), i);
      for (const row of [judgeRow(pair, true), directRow(pair), lookRow(makeLook(bank, options(), i))]) {
        const user = toMessages(row.prompt);
        const prompt = template.render(user, { addGenerationPrompt: true });
        const whole = template.render([...user, { role: 'assistant', content: row.completion as string }]);
        expect(whole.startsWith(prompt)).toBe(true);
        expect(whole.slice(prompt.length)).toBe(`${row.completion}<|im_end|>`);
        const ids = tokenizer.encode(whole);
        expect(ids).not.toContain(unknown);
        expect(tokenizer.decode(ids, { skipSpecial: false })).toBe(whole);
      }
    }
    expect(tokenizer.encode(goldRationale(makePair(bank, options(), 0)))).toHaveLength(23);
  });

  it('has a config whose ids are those of the tokenizer', async () => {
    const config = (await json('config.json')) as unknown as Record<string, number> & {
      text_config: Record<string, number>;
    };
    const vocabulary = judgeVocabulary(bank.words);
    expect(config['image_token_id']).toBe(vocabulary.get('<|image_pad|>'));
    expect(config.text_config['eos_token_id']).toBe(vocabulary.get('<|im_end|>'));
    expect(config.text_config['vocab_size']).toBeGreaterThanOrEqual(vocabulary.size);
  });
});
