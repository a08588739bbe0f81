/** One item as rows, from a request of plain data: what a composing thread does, and what any thread may do. */
import type { Row } from '../data/rows.js';
import type { EmojiBank } from './bank.js';
import { directRow, judgeRow, lookRow } from './items.js';
import { makePair, swapOrder, type Difficulty } from './pair.js';
import { makeLook } from './perception.js';
import { makeQuestion, questionRow, type QuestionForm } from './questions.js';
import { candidateRow } from './scoring.js';

/**
 * look: a single picture with its words. Of a pair: with its gold rationale, to be judged, to be judged in the other
 * order, asked without chain of thought, and each picture alone for a scorer. Of a question: in its own forms.
 */
export type RowForm =
  'look' | 'rationale' | 'judge' | 'swapped' | 'direct' | 'candidate-1' | 'candidate-2' | `question-${QuestionForm}`;

/** Item `index` of a split, in one form or several; its pictures are composed once. */
export interface RowRequest {
  split: string;
  index: number;
  artists: readonly string[];
  forms: readonly RowForm[];
  /** Of a pair; default 'hard'. */
  difficulty?: Difficulty;
}

/** A bank as plain data, so that it travels to a thread. */
export interface GlyphTable extends Omit<EmojiBank, 'glyph'> {
  /** By `artist/word`. */
  glyphs: ReadonlyMap<string, Uint8Array>;
}

export function glyphTable(bank: EmojiBank): GlyphTable {
  const { glyphSize, words, artists, seenArtists, unseenArtists } = bank;
  const pairs = artists.flatMap((artist) =>
    words.map((word) => [`${artist}/${word}`, bank.glyph(artist, word)] as const),
  );
  return { glyphSize, words, artists, seenArtists, unseenArtists, glyphs: new Map(pairs) };
}

export function bankOf({ glyphs, ...names }: GlyphTable): EmojiBank {
  return { ...names, glyph: (artist, word) => glyphs.get(`${artist}/${word}`)! };
}

/** The rows of a request, in the order of its forms. The same numbers give the same rows on any thread. */
export function makeRows(bank: EmojiBank, seed: number, request: RowRequest): Row[] {
  const { split, index, artists, forms, difficulty = 'hard' } = request;
  const lookOf = lazily(() => lookRow(makeLook(bank, { seed, split, artists }, index)));
  const pairOf = lazily(() => makePair(bank, { seed, split, artists, difficulty }, index));
  const questionOf = lazily(() => makeQuestion(bank, { seed, split, artists }, index));
  return forms.map((form) => {
    switch (form) {
      case 'look':
        return lookOf();
      case 'rationale':
        return judgeRow(pairOf(), true);
      case 'judge':
        return judgeRow(pairOf(), false);
      case 'swapped':
        return judgeRow(swapOrder(pairOf()), false);
      case 'direct':
        return directRow(pairOf());
      case 'candidate-1':
        return candidateRow(pairOf(), 0);
      case 'candidate-2':
        return candidateRow(pairOf(), 1);
      case 'question-ask':
        return questionRow(questionOf(), 'ask');
      case 'question-cot':
        return questionRow(questionOf(), 'cot');
      case 'question-direct':
        return questionRow(questionOf(), 'direct');
      case 'question-told':
        return questionRow(questionOf(), 'told');
    }
  });
}

function lazily<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => (made ??= { value: make() }).value;
}
