/**
 * Composes one picture: 56x56 RGB, 2x2 cells of 28 pixels, a glyph or nothing in each, on a light noisy background.
 * 28 pixels are one merged vision token (14-pixel patches, merged 2x2), so the language model gets one token a cell.
 */
import type { EmojiBank } from './bank.js';
import type { CounterRandom } from './counter-random.js';

export const cellSize = 28;
export const sceneSize = 2 * cellSize;
export const numCells = 4;
/** The word of a cell without an object. */
export const emptyWord = '_';

const darkestBackground = 190;
const noiseAmplitude = 8;
/** A glyph may move by this many pixels in each direction. */
const numOffsets = 3;

/** Four words in reading order; `emptyWord` for an empty cell. */
export type CellWords = readonly [string, string, string, string];

export interface Scene {
  /** 56 * 56 * 3 bytes, row by row. */
  readonly rgb: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** Draws `cells` in the style of `artist`. Background, jitter and noise are taken from `random` in a fixed order. */
export function composeScene(bank: EmojiBank, cells: CellWords, artist: string, random: CounterRandom): Scene {
  const rgb = new Uint8Array(sceneSize * sceneSize * 3);
  const background = [0, 1, 2].map(() => darkestBackground + random.below(256 - darkestBackground));
  for (let i = 0; i < rgb.length; i++) rgb[i] = background[i % 3] as number;
  const margin = Math.floor((cellSize - bank.glyphSize - (numOffsets - 1)) / 2);
  cells.forEach((word, cell) => {
    // Drawn for empty cells too, so that the rest of the picture does not depend on which cells are empty.
    const left = (cell % 2) * cellSize + margin + random.below(numOffsets);
    const top = Math.floor(cell / 2) * cellSize + margin + random.below(numOffsets);
    if (word !== emptyWord) blend(rgb, bank.glyph(artist, word), bank.glyphSize, left, top);
  });
  addNoise(rgb, random);
  return { rgb, width: sceneSize, height: sceneSize };
}

function blend(rgb: Uint8Array, glyph: Uint8Array, size: number, left: number, top: number): void {
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      const from = (y * size + x) * 4;
      const to = ((top + y) * sceneSize + left + x) * 3;
      const alpha = (glyph[from + 3] as number) / 255;
      for (let channel = 0; channel < 3; channel++) {
        const over = glyph[from + channel] as number;
        rgb[to + channel] = Math.round(over * alpha + (rgb[to + channel] as number) * (1 - alpha));
      }
    }
  }
}

/** Uniform noise of at most `noiseAmplitude` grey levels; one random word serves four bytes. */
function addNoise(rgb: Uint8Array, random: CounterRandom): void {
  for (let i = 0; i < rgb.length; i += 4) {
    const word = random.word();
    for (let lane = 0; lane < 4 && i + lane < rgb.length; lane++) {
      const byte = (word >>> (8 * lane)) & 0xff;
      const shift = Math.round((byte / 255) * 2 * noiseAmplitude) - noiseAmplitude;
      rgb[i + lane] = Math.min(255, Math.max(0, (rgb[i + lane] as number) + shift));
    }
  }
}
