/**
 * Position balance: a judge must not prefer the first candidate for standing first. A coin keyed by (seed, item id) decides
 * whether the two candidates of a pairwise row change places; gold answer and rationale are rewritten with them.
 */
import { createHash } from 'node:crypto';
import type { Row } from '../data/rows.js';
import { GavelError } from '../errors.js';

/** Where the candidates of a row are. */
export interface SwapOptions {
  /**
   * Image indices of candidate 1 and of candidate 2, equally many (frames of two videos, say). Default: [[0], [1]] for a row
   * of exactly two images; two videos of a row without images change places likewise.
   */
  images?: readonly [readonly number[], readonly number[]];
  /**
   * The texts of two candidate answers as they stand in the prompt, each exactly once; they change places. Default:
   * `meta.answers` of the row, where it holds two texts.
   */
  answers?: readonly [string, string];
}

/** The coin of an item: true with probability 1/2 over ids, always the same for one seed and id. */
export function swapCoin(seed: number, id: string): boolean {
  return (createHash('sha256').update(`${seed}\0${id}`).digest()[0]! & 1) === 1;
}

/** "Image 1" becomes "Image 2" and so on, for Image, Video and Answer, wherever it stands. */
export function swapNames(text: string): string {
  return text.replace(
    /\b(Image|Video|Answer) ([12])\b/gi,
    (_, noun: string, which: string) => `${noun} ${which === '1' ? '2' : '1'}`,
  );
}

/**
 * The row with its two candidates exchanged; the original is untouched. Solution and completion name candidates in the form
 * "Image 1", "Video 2", "Answer 1". Throws 'bad_data', naming the row, when the candidates cannot be told.
 */
export function swapCandidates(row: Row, options: SwapOptions = {}): Row {
  const swapped: Row = { ...row };
  const answers = options.answers ?? answersOf(row);
  const videos = row.videos ?? [];
  if (answers !== undefined) {
    swapped.prompt = swapAnswers(row, answers);
    if (row.meta?.['answers'] !== undefined) swapped.meta = { ...row.meta, answers: [answers[1], answers[0]] };
  }
  if (options.images !== undefined) swapped.images = swapImages(row, options.images);
  else if (answers === undefined && row.images.length === 0 && videos.length === 2) {
    swapped.videos = [videos[1]!, videos[0]!];
  } else if (answers === undefined) swapped.images = swapImages(row, undefined);
  if (row.completion !== undefined) swapped.completion = swapNames(row.completion);
  if (row.solution !== undefined) {
    swapped.solution = swapNames(row.solution);
    if (swapped.solution === row.solution) {
      throw cannotSwap(row, `a solution that names a candidate, such as "Image 1 is better", not "${row.solution}"`);
    }
  }
  return swapped;
}

/** Swaps the row if its coin says so. `swapped` in `meta` tells which it was. */
export function balanceOrder(row: Row, seed: number, options: SwapOptions = {}): Row {
  const swapped = swapCoin(seed, row.id);
  return { ...(swapped ? swapCandidates(row, options) : row), meta: { ...row.meta, swapped } };
}

function answersOf(row: Row): readonly [string, string] | undefined {
  const answers = row.meta?.['answers'];
  const isPair =
    Array.isArray(answers) && answers.length === 2 && answers.every((answer) => typeof answer === 'string');
  return isPair ? (answers as unknown as readonly [string, string]) : undefined;
}

function swapImages(row: Row, candidates: SwapOptions['images']): Row['images'] {
  if (candidates === undefined && row.images.length !== 2) {
    throw cannotSwap(
      row,
      `two images or two videos (or the indices of each candidate's images), not ${row.images.length} images and ${row.videos?.length ?? 0} videos`,
    );
  }
  const [first, second] = candidates ?? [[0], [1]];
  const named = [...first, ...second];
  const valid = new Set(named).size === named.length && named.every((index) => row.images[index] !== undefined);
  if (!valid || first.length === 0 || first.length !== second.length) {
    throw cannotSwap(
      row,
      `two candidates of equally many images, not [${first.join()}] and [${second.join()}] of ${row.images.length}`,
    );
  }
  const images = [...row.images];
  first.forEach((index, i) => {
    images[index] = row.images[second[i]!]!;
    images[second[i]!] = row.images[index]!;
  });
  return images;
}

function swapAnswers(row: Row, answers: readonly [string, string]): string {
  const { prompt } = row;
  if (typeof prompt !== 'string') throw cannotSwap(row, 'a string prompt, not a list of messages');
  const [first, second] = answers.map((answer) => prompt.indexOf(answer)) as [number, number];
  const once = answers.every((answer) => answer !== '' && prompt.split(answer).length === 2);
  if (!once || first + answers[0].length > second)
    throw cannotSwap(row, 'each answer exactly once in the prompt, 1 before 2');
  const [head, between, tail] = [
    prompt.slice(0, first),
    prompt.slice(first + answers[0].length, second),
    prompt.slice(second + answers[1].length),
  ];
  return head + answers[1] + between + answers[0] + tail;
}

function cannotSwap(row: Row, what: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected ${what} in row "${row.id}", whose candidates are to change places. Correct the row, or ask in one order (bothOrders: false, --one-order).`,
    {
      fields: { id: row.id },
    },
  );
}
