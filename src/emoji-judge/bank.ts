/**
 * The committed bank of emoji glyphs (assets/emoji-bank): straight-alpha RGBA squares by concept and artist.
 * Loaded once a process through sharp; `scripts/build-emoji-bank.mjs` rebuilds the files.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { z } from 'zod';
import { GavelError } from '../errors.js';

const manifestSchema = z.strictObject({
  glyphSize: z.number().int().positive(),
  columns: z.number().int().positive(),
  concepts: z.array(z.strictObject({ word: z.string(), codePoint: z.string() })).min(24),
  artists: z.array(
    z.strictObject({ name: z.string(), licence: z.string(), hasRationales: z.boolean(), sheet: z.string() }),
  ),
});

export interface EmojiBank {
  /** Width and height of a glyph in pixels. */
  readonly glyphSize: number;
  /** The concept words in the order of their numbers. */
  readonly words: readonly string[];
  /** Every artist, and those whose pictures come with gold rationales. */
  readonly artists: readonly string[];
  readonly seenArtists: readonly string[];
  readonly unseenArtists: readonly string[];
  /** RGBA of one glyph, `glyphSize * glyphSize * 4` bytes, straight alpha. */
  glyph(artist: string, word: string): Uint8Array;
}

const defaultFolder = fileURLToPath(new URL('../../assets/emoji-bank', import.meta.url));
const loaded = new Map<string, Promise<EmojiBank>>();

/** The bank of `folder` (default: the committed one), decoded on first use. */
export function loadEmojiBank(folder: string = defaultFolder): Promise<EmojiBank> {
  const known = loaded.get(folder);
  if (known !== undefined) return known;
  const bank = decodeBank(folder).catch((cause: unknown) => {
    loaded.delete(folder);
    throw GavelError.is(cause)
      ? cause
      : new GavelError(
          'io',
          `Expected an emoji bank in \`${folder}\` but it cannot be read. Rebuild it with scripts/build-emoji-bank.mjs.`,
          { fields: { folder }, cause },
        );
  });
  loaded.set(folder, bank);
  return bank;
}

async function decodeBank(folder: string): Promise<EmojiBank> {
  const manifest = manifestSchema.parse(JSON.parse(await readFile(join(folder, 'bank.json'), 'utf8')));
  const { glyphSize, columns } = manifest;
  const words = manifest.concepts.map((concept) => concept.word);
  const glyphs = new Map<string, Uint8Array>();
  for (const artist of manifest.artists) {
    const { data, info } = await sharp(join(folder, artist.sheet))
      .ensureAlpha()
      .raw()
      .toBuffer({ resolveWithObject: true });
    const height = Math.ceil(words.length / columns) * glyphSize;
    if (info.width !== columns * glyphSize || info.height !== height) {
      throw new GavelError(
        'bad_data',
        `Expected a sheet of ${columns * glyphSize}x${height} pixels for \`${artist.sheet}\` but received ` +
          `${info.width}x${info.height}. Rebuild the bank with scripts/build-emoji-bank.mjs.`,
        { fields: { sheet: artist.sheet } },
      );
    }
    words.forEach((word, i) => {
      const glyph = new Uint8Array(glyphSize * glyphSize * 4);
      const left = (i % columns) * glyphSize;
      const top = Math.floor(i / columns) * glyphSize;
      for (let y = 0; y < glyphSize; y++) {
        const start = ((top + y) * info.width + left) * 4;
        glyph.set(data.subarray(start, start + glyphSize * 4), y * glyphSize * 4);
      }
      glyphs.set(`${artist.name}/${word}`, glyph);
    });
  }
  return {
    glyphSize,
    words,
    artists: manifest.artists.map((artist) => artist.name),
    seenArtists: manifest.artists.filter((artist) => artist.hasRationales).map((artist) => artist.name),
    unseenArtists: manifest.artists.filter((artist) => !artist.hasRationales).map((artist) => artist.name),
    glyph(artist, word) {
      const glyph = glyphs.get(`${artist}/${word}`);
      if (glyph === undefined) {
        throw new GavelError(
          'invalid_argument',
          `Expected an artist and a concept of the bank for \`glyph\` but received "${artist}" and "${word}". ` +
            `Artists: ${manifest.artists.map((a) => a.name).join(', ')}. Concepts: ${words.join(', ')}.`,
          { fields: { artist, word } },
        );
      }
      return glyph;
    },
  };
}
