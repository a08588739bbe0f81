/**
 * Single-picture items for perception pre-training: one picture, and the four words of its cells as the answer.
 * Pure in (seed, split, index) as the pairs are.
 */
import type { EmojiBank } from './bank.js';
import { CounterRandom } from './counter-random.js';
import { drawCaption, type PairOptions } from './pair.js';
import { type CellWords, composeScene, type Scene } from './scene.js';

export interface LookItem {
  readonly id: string;
  readonly artist: string;
  readonly cells: CellWords;
  readonly scene: Scene;
}

/** Item `index` of a split of single pictures. */
export function makeLook(
  bank: EmojiBank,
  options: Pick<PairOptions, 'seed' | 'split' | 'artists'>,
  index: number,
): LookItem {
  const { seed, split } = options;
  const random = new CounterRandom(seed, split, index, 'look');
  const artist = random.pick(options.artists);
  const cells = drawCaption(bank, random);
  const scene = composeScene(bank, cells, artist, new CounterRandom(seed, split, index, 'look scene'));
  return { id: `${split}-${seed}-${index}`, artist, cells, scene };
}

/** The gold completion of a single-picture item. */
export function lookAnswer(cells: CellWords): string {
  return ` ${cells.join(' ')}`;
}
