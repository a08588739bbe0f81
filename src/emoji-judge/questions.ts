/**
 * Questions about one picture whose answers follow from its cells: how often an object stands there, and what stands
 * beside another. Gold rationales name what stands in each cell.
 */
import { imageMark, type Row } from '../data/rows.js';
import type { EmojiBank } from './bank.js';
import { CounterRandom } from './counter-random.js';
import { pictureOf } from './items.js';
import { drawCaption, type PairOptions } from './pair.js';
import { taskWords } from './prompts.js';
import { type CellWords, composeScene, numCells, type Scene } from './scene.js';

/** What is asked: a number, or the word in the cell next to an object's. */
export const questionKinds = ['count', 'right', 'left', 'below', 'above'] as const;
export type QuestionKind = (typeof questionKinds)[number];

/** Words of this task, behind the judge's own in the vocabulary. */
export const questionWords = ['ask', 'refine', 'select', ...questionKinds] as const;

export interface QuestionItem {
  readonly id: string;
  readonly artist: string;
  readonly kind: QuestionKind;
  /** The object of the question. */
  readonly word: string;
  readonly cells: CellWords;
  readonly scene: Scene;
  readonly answer: string;
}

const mostCopies = 3;

/** Cells an object may stand in, and where its neighbour is from there. */
const neighbours: Readonly<Record<Exclude<QuestionKind, 'count'>, { from: readonly number[]; step: number }>> = {
  right: { from: [0, 2], step: 1 },
  left: { from: [1, 3], step: -1 },
  below: { from: [0, 1], step: 2 },
  above: { from: [2, 3], step: -2 },
};

/** Item `index` of a split. */
export function makeQuestion(
  bank: EmojiBank,
  options: Pick<PairOptions, 'seed' | 'split' | 'artists'>,
  index: number,
): QuestionItem {
  const { seed, split } = options;
  const random = new CounterRandom(seed, split, index, 'question');
  const artist = random.pick(options.artists);
  const kind = random.unit() < 0.5 ? 'count' : random.pick(questionKinds.slice(1));
  const cells = [...drawCaption(bank, random)];
  const word = random.pick(bank.words.filter((other) => !cells.includes(other)));
  let answer: string;
  if (kind === 'count') {
    const copies = random.below(mostCopies + 1);
    for (const cell of random.sample([0, 1, 2, 3], copies)) cells[cell] = word;
    answer = String(copies);
  } else {
    const { from, step } = neighbours[kind];
    const cell = random.pick(from);
    cells[cell] = word;
    answer = cells[cell + step]!;
  }
  const shown = cells as unknown as CellWords;
  const scene = composeScene(bank, shown, artist, new CounterRandom(seed, split, index, 'question scene'));
  return { id: `${split}-${seed}-${index}`, artist, kind: kind, word, cells: shown, scene, answer };
}

/**
 * cot: asked for reasons, with the gold ones; ask: the same without; direct: asked for the answer alone; told: as cot, but
 * words say what is in the cells, and there is no picture.
 */
export type QuestionForm = 'ask' | 'cot' | 'direct' | 'told';

/** The item as a row; `solution` is the answer. */
export function questionRow(item: QuestionItem, form: QuestionForm): Row {
  const { id, kind, word, cells, answer, artist, scene } = item;
  const task = form === 'direct' ? taskWords.answer : questionWords[0];
  const completion =
    form === 'ask' ? undefined : form === 'direct' ? answerText(answer) : questionRationale(item) + answerText(answer);
  const told = form === 'told';
  return {
    id: form === 'direct' || told ? `${id}-${form}` : id,
    prompt: `${told ? cells.join(' ') : imageMark} ${task} ${kind} ${word}`,
    images: told ? [] : [pictureOf(scene)],
    ...(completion === undefined ? {} : { completion }),
    solution: answer,
    meta: { artist, kind, word, cells },
  };
}

/** What stands in each cell and whether it is what was asked for, "dog no key ok"; the answer follows from it. */
export function questionRationale({ cells, word }: Pick<QuestionItem, 'cells' | 'word'>): string {
  return `<think> ${cells.map((cell) => `${cell} ${cell === word ? 'ok' : 'no'}`).join(' ')}</think>`;
}

const answerText = (answer: string): string => `<answer> ${answer}</answer>`;

/** Shares of a rationale that are true: of the cells it names. Null where it cannot be read. */
export function questionPerception(text: string, cells: CellWords): number | null {
  const said = /^\s*<think>([^<]*)<\/think>/.exec(text)?.[1]?.trim().split(/\s+/) ?? [];
  return said.length === 2 * numCells ? cells.filter((cell, i) => said[2 * i] === cell).length / numCells : null;
}
