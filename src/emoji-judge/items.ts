/**
 * The items of the task as rows of the data ring: what the trainer and the samplers consume. Pictures stay in memory as
 * RGB; a row is made when it is asked for and is the same whenever and wherever it is made.
 */
import type { Row } from '../data/rows.js';
import type { EmojiBank } from './bank.js';
import { type JudgePair, makePair, type PairOptions } from './pair.js';
import { type LookItem, lookAnswer, makeLook } from './perception.js';
import { directAnswer, directPrompt, goldRationale, judgePrompt, lookPrompt } from './prompts.js';
import type { Scene } from './scene.js';

/** A judging row with or without its gold rationale; `solution` is always there. */
export function judgeRow(pair: JudgePair, withRationale: boolean): Row {
  return {
    id: pair.id,
    prompt: judgePrompt(pair.caption),
    images: pair.scenes.map(pictureOf),
    ...(withRationale ? { completion: goldRationale(pair) } : {}),
    solution: pair.verdict,
    meta: pairMeta(pair),
  };
}

/** The same item asked without chain of thought; the completion is the bare verdict. */
export function directRow(pair: JudgePair): Row {
  return {
    id: `${pair.id}-direct`,
    prompt: directPrompt(pair.caption),
    images: pair.scenes.map(pictureOf),
    completion: directAnswer(pair.verdict),
    solution: pair.verdict,
    meta: pairMeta(pair),
  };
}

/** A single-picture row of perception pre-training. */
export function lookRow(item: LookItem): Row {
  return {
    id: item.id,
    prompt: lookPrompt(),
    images: [pictureOf(item.scene)],
    completion: lookAnswer(item.cells),
    meta: { artist: item.artist, cells: item.cells },
  };
}

/** Items [from, from + count) of a split of pairs. */
export function makePairs(bank: EmojiBank, options: PairOptions, from: number, count: number): JudgePair[] {
  return Array.from({ length: count }, (_, i) => makePair(bank, options, from + i));
}

/** Items [from, from + count) of a split of single pictures. */
export function makeLooks(
  bank: EmojiBank,
  options: Pick<PairOptions, 'seed' | 'split' | 'artists'>,
  from: number,
  count: number,
): LookItem[] {
  return Array.from({ length: count }, (_, i) => makeLook(bank, options, from + i));
}

function pairMeta(pair: JudgePair): Record<string, unknown> {
  return { artist: pair.artist, caption: pair.caption, cells: pair.cells, errors: pair.errors };
}

/** A scene as an image of a row. */
export function pictureOf(scene: Scene): Row['images'][number] {
  return { rgb: scene.rgb, width: scene.width, height: scene.height };
}
