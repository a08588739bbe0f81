/**
 * The words around the pictures: prompts with one "<image>" mark a picture, gold rationales and gold answers.
 * The wording is kept short because the length of a sequence is what training costs.
 */
import { imageMark } from '../data/rows.js';
import type { JudgePair, Verdict } from './pair.js';
import { type CellWords, numCells } from './scene.js';

/** What stands between two columns and two rows of a caption. */
export const separators = ['|', '/'] as const;
/** First word of a prompt: judge with reasons, judge at once, or name what one picture shows. */
export const taskWords = { judge: 'judge', answer: 'answer', look: 'look' } as const;

/** Asks for a rationale and a verdict. */
export function judgePrompt(caption: CellWords): string {
  return `${imageMark}${imageMark} ${taskWords.judge} ${layout(caption)}`;
}

/** The same item without chain of thought: asks for the verdict alone. */
export function directPrompt(caption: CellWords): string {
  return `${imageMark}${imageMark} ${taskWords.answer} ${layout(caption)}`;
}

/** Asks what the four cells of one picture show. */
export function lookPrompt(): string {
  return `${imageMark} ${taskWords.look}`;
}

/**
 * The caption as a table of two rows, "dog | _ / pizza | cat". The separators give caption and rationale the same
 * spacing, so that word and cell stand one fixed distance apart, which makes their comparison much easier to learn.
 */
export function layout(caption: CellWords): string {
  const [column, row] = separators;
  return `${caption[0]} ${column} ${caption[1]} ${row} ${caption[2]} ${column} ${caption[3]}`;
}

/** The verdict without reasons. */
export function directAnswer(verdict: Verdict): string {
  return `<answer>${verdict}</answer>`;
}

/** Per picture and cell the word seen and whether it is the caption's; per picture the number of right cells. */
export function goldRationale(pair: Pick<JudgePair, 'caption' | 'cells' | 'verdict'>): string {
  const parts = pair.cells.map((cells) => `${cellMarks(pair.caption, cells)} ${numRight(pair.caption, cells)}`);
  return `<think> ${parts.join(' ')}</think>${directAnswer(pair.verdict)}`;
}

/** Each cell's word and whether it is the caption's: "dog ok _ no". */
export function cellMarks(caption: CellWords, cells: CellWords): string {
  return cells.map((word, i) => `${word} ${word === caption[i] ? 'ok' : 'no'}`).join(' ');
}

/** How many cells show what the caption says, 0 to 4. */
export function numRight(caption: CellWords, cells: CellWords): number {
  let right = 0;
  for (let i = 0; i < numCells; i++) if (caption[i] === cells[i]) right++;
  return right;
}
