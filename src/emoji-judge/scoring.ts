/**
 * The pointwise form of a judging item, for scorers: each picture alone with the caption, and a rationale that counts its
 * right cells and marks them. The better picture is known, no score is: what a preference data set holds.
 */
import { imageMark, type Row } from '../data/rows.js';
import { pictureOf } from './items.js';
import type { JudgePair } from './pair.js';
import { layout, numRight } from './prompts.js';
import type { CellWords } from './scene.js';

/** The word of the task in a prompt; it stands behind the judge's own words in the vocabulary. */
export const scoreWord = 'score';

/** Asks how well one picture follows the caption. */
export function scorePrompt(caption: CellWords): string {
  return `${imageMark} ${scoreWord} ${layout(caption)}`;
}

/**
 * The number of right cells, then its reasons: per cell whether it is the caption's and the word seen, "3 ok dog no key ...".
 * The score stands first, as judges write it, so that predicting the rationale asks for it where the reward token stands.
 */
export function scoreRationale(caption: CellWords, cells: CellWords): string {
  const marks = cells.map((word, i) => `${word === caption[i] ? 'ok' : 'no'} ${word}`);
  return `<think> ${numRight(caption, cells)} ${marks.join(' ')}</think>`;
}

/** One picture of a pair with its rationale. */
export function candidateRow(pair: JudgePair, which: 0 | 1): Row {
  const cells = pair.cells[which];
  return {
    id: `${pair.id}-${which + 1}`,
    prompt: scorePrompt(pair.caption),
    images: [pictureOf(pair.scenes[which])],
    completion: scoreRationale(pair.caption, cells),
    meta: { artist: pair.artist, caption: pair.caption, cells, right: numRight(pair.caption, cells) },
  };
}
