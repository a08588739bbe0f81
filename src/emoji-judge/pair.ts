/**
 * One judging item: a caption (what stands in which cell) and two pictures with different numbers of wrong cells.
 * The label is exact by construction. Every item is a pure function of (seed, split, index) and the options.
 */
import type { EmojiBank } from './bank.js';
import { CounterRandom } from './counter-random.js';
import { type CellWords, composeScene, emptyWord, numCells, type Scene } from './scene.js';

export type Verdict = 'Image 1 is better' | 'Image 2 is better';
/** hard: the candidates differ by one wrong cell; easy: by two or more. */
export type Difficulty = 'hard' | 'easy';
export type ErrorKind = 'swap' | 'drop' | 'add' | 'replace';

export interface PairOptions {
  readonly seed: number;
  /** Name of the data split; different names never share an item. */
  readonly split: string;
  readonly artists: readonly string[];
  readonly difficulty: Difficulty;
}

export interface JudgePair {
  readonly id: string;
  readonly artist: string;
  readonly caption: CellWords;
  /** What image 1 and image 2 truly show, and what was done to them. */
  readonly cells: readonly [CellWords, CellWords];
  readonly errors: readonly [readonly ErrorKind[], readonly ErrorKind[]];
  readonly scenes: readonly [Scene, Scene];
  readonly verdict: Verdict;
}

const objectProbability = 0.8;
const swapProbability = 0.5;
const dropProbability = 0.35;
const mostWrong = 3;

/** Item `index` of a split. Items 2i and 2i+1 put the better picture on different sides, so the order is balanced. */
export function makePair(bank: EmojiBank, options: PairOptions, index: number): JudgePair {
  const { seed, split } = options;
  const random = new CounterRandom(seed, split, index, 'pair');
  const artist = random.pick(options.artists);
  const caption = drawCaption(bank, random);
  const [fewer, more] = drawNumWrong(options.difficulty, random);
  const better = spoil(bank, caption, fewer, random);
  const worse = spoil(bank, caption, more, random);
  const coin = new CounterRandom(seed, split, index >>> 1, 'order').below(2);
  const betterFirst = (index & 1) === coin;
  const shown = betterFirst ? ([better, worse] as const) : ([worse, better] as const);
  const scene = (which: 0 | 1) =>
    composeScene(bank, shown[which].cells, artist, new CounterRandom(seed, split, index, `scene ${which}`));
  return {
    id: `${split}-${seed}-${index}`,
    artist,
    caption,
    cells: [shown[0].cells, shown[1].cells],
    errors: [shown[0].errors, shown[1].errors],
    scenes: [scene(0), scene(1)],
    verdict: betterFirst ? 'Image 1 is better' : 'Image 2 is better',
  };
}

/** The same item with its pictures exchanged and the verdict rewritten: the other order of an order-consistency test. */
export function swapOrder(pair: JudgePair): JudgePair {
  return {
    ...pair,
    id: `${pair.id}-swapped`,
    cells: [pair.cells[1], pair.cells[0]],
    errors: [pair.errors[1], pair.errors[0]],
    scenes: [pair.scenes[1], pair.scenes[0]],
    verdict: pair.verdict === 'Image 1 is better' ? 'Image 2 is better' : 'Image 1 is better',
  };
}

/** Four words: different objects, some cells empty, never fewer than two objects. */
export function drawCaption(bank: EmojiBank, random: CounterRandom): CellWords {
  const words = random.sample(bank.words, numCells);
  const filled = words.map(() => random.unit() < objectProbability);
  if (filled.filter(Boolean).length < 2) filled.fill(true);
  return words.map((word, i) => (filled[i] ? word : emptyWord)) as unknown as CellWords;
}

function drawNumWrong(difficulty: Difficulty, random: CounterRandom): readonly [number, number] {
  if (difficulty === 'hard') {
    const fewer = random.below(mostWrong);
    return [fewer, fewer + 1];
  }
  const choices = [
    [0, 2],
    [0, 3],
    [1, 3],
  ] as const;
  return random.pick(choices);
}

interface SpoiledCells {
  readonly cells: CellWords;
  readonly errors: readonly ErrorKind[];
}

/** `caption` with exactly `numWrong` cells that differ from it. */
function spoil(bank: EmojiBank, caption: CellWords, numWrong: number, random: CounterRandom): SpoiledCells {
  const cells = [...caption];
  const errors: ErrorKind[] = [];
  const wrong = random.sample([0, 1, 2, 3], numWrong);
  const [first, second] = wrong;
  if (first !== undefined && second !== undefined && caption[first] !== caption[second]) {
    if (random.unit() < swapProbability) {
      cells[first] = caption[second] as string;
      cells[second] = caption[first] as string;
      errors.push('swap');
      wrong.splice(0, 2);
    }
  }
  for (const cell of wrong) {
    const word = caption[cell] as string;
    if (word !== emptyWord && random.unit() < dropProbability) {
      cells[cell] = emptyWord;
      errors.push('drop');
      continue;
    }
    cells[cell] = random.pick(bank.words.filter((other) => other !== word));
    errors.push(word === emptyWord ? 'add' : 'replace');
  }
  return { cells: cells as unknown as CellWords, errors };
}
