/**
 * Reads a generated rationale back: what the judge says it sees in each cell, its marks, scores and verdict. Tells how
 * well it sees, and whether its marks, scores and verdict follow from what it said before.
 */
import type { JudgePair, Verdict } from './pair.js';
import { emptyWord, numCells } from './scene.js';

export interface TraceCell {
  readonly word: string;
  readonly ok: boolean;
}

export interface TracePicture {
  readonly cells: readonly TraceCell[];
  /** The number of right cells the judge states. */
  readonly score: number;
}

export interface Trace {
  readonly pictures: readonly [TracePicture, TracePicture];
  readonly verdict: Verdict;
}

/** Shares in [0, 1] over one completion; means over many are what the report shows. */
export interface TraceMarks {
  /** Exactly one think block, then exactly one answer block, nothing else. */
  readonly format: boolean;
  /** The block is well formed and the verdict is the gold one. */
  readonly correct: boolean;
  /** Whether the rationale inside the block could be read; the shares below are null where it could not. */
  readonly readable: boolean;
  /** Cells whose named word is what the picture truly shows. */
  readonly perception: number | null;
  /** Cells whose ok/no follows from the named word and the caption. */
  readonly cellConsistency: number | null;
  /** Pictures whose score is the number of cells marked ok. */
  readonly scoreConsistency: number | null;
  /** Whether the verdict names the picture with the higher stated score; a tie contradicts every verdict. */
  readonly verdictConsistency: number | null;
}

const blocks =
  /^\s*<think>((?:(?!<\/?(?:think|answer)>)[^])*)<\/think>\s*<answer>((?:(?!<\/?(?:think|answer)>)[^])*)<\/answer>\s*$/;
const tokensPerPicture = 2 * numCells + 1;

/** The two blocks of a completion, or null where it is not one think block followed by one answer block. */
export function splitBlocks(completion: string): { readonly rationale: string; readonly answer: string } | null {
  const match = blocks.exec(completion);
  return match === null ? null : { rationale: (match[1] as string).trim(), answer: (match[2] as string).trim() };
}

/** The rationale as data, or null where the completion is not a rationale and verdict of the expected grammar. */
export function parseTrace(completion: string, words: readonly string[]): Trace | null {
  const parts = splitBlocks(completion);
  if (parts === null || !isVerdict(parts.answer)) return null;
  const tokens = parts.rationale.split(/\s+/);
  if (tokens.length !== 2 * tokensPerPicture) return null;
  const known = new Set([...words, emptyWord]);
  const first = parsePicture(tokens.slice(0, tokensPerPicture), known);
  const second = parsePicture(tokens.slice(tokensPerPicture), known);
  if (first === null || second === null) return null;
  return { pictures: [first, second], verdict: parts.answer };
}

function isVerdict(text: string): text is Verdict {
  return text === 'Image 1 is better' || text === 'Image 2 is better';
}

function parsePicture(tokens: readonly string[], known: ReadonlySet<string>): TracePicture | null {
  const cells: TraceCell[] = [];
  for (let i = 0; i < numCells; i++) {
    const word = tokens[2 * i] as string;
    const mark = tokens[2 * i + 1] as string;
    if (!known.has(word) || (mark !== 'ok' && mark !== 'no')) return null;
    cells.push({ word, ok: mark === 'ok' });
  }
  const score = tokens[tokensPerPicture - 1] as string;
  return /^[0-4]$/.test(score) ? { cells, score: Number(score) } : null;
}

/** Marks one completion against its item. */
export function markTrace(
  completion: string,
  pair: Pick<JudgePair, 'caption' | 'cells' | 'verdict'>,
  words: readonly string[],
): TraceMarks {
  const parts = splitBlocks(completion);
  const format = parts !== null;
  const correct = parts !== null && parts.answer === pair.verdict;
  const trace = parseTrace(completion, words);
  if (trace === null) {
    return {
      format,
      correct,
      readable: false,
      perception: null,
      cellConsistency: null,
      scoreConsistency: null,
      verdictConsistency: null,
    };
  }
  const share = (test: (cell: TraceCell, picture: 0 | 1, index: number) => boolean) => {
    let passed = 0;
    for (const picture of [0, 1] as const) {
      trace.pictures[picture].cells.forEach((cell, i) => (passed += test(cell, picture, i) ? 1 : 0));
    }
    return passed / (2 * numCells);
  };
  const scoreIsCount = (picture: TracePicture) => picture.cells.filter((cell) => cell.ok).length === picture.score;
  const [first, second] = trace.pictures;
  const follows =
    first.score !== second.score && first.score > second.score === (trace.verdict === 'Image 1 is better');
  return {
    format,
    correct,
    readable: true,
    perception: share((cell, picture, i) => cell.word === pair.cells[picture][i]),
    cellConsistency: share((cell, _picture, i) => cell.ok === (cell.word === pair.caption[i])),
    scoreConsistency: (Number(scoreIsCount(first)) + Number(scoreIsCount(second))) / 2,
    verdictConsistency: Number(follows),
  };
}

/** Means over the completions of a test set; a share is null when no rationale was readable. */
export function meanMarks(marks: readonly TraceMarks[]): Record<keyof TraceMarks, number | null> {
  const mean = (values: readonly (number | boolean | null)[]) => {
    const numbers = values.filter((value) => value !== null).map(Number);
    return numbers.length === 0 ? null : numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  };
  const over = (key: keyof TraceMarks) => mean(marks.map((mark) => mark[key]));
  return {
    format: over('format'),
    correct: over('correct'),
    readable: over('readable'),
    perception: over('perception'),
    cellConsistency: over('cellConsistency'),
    scoreConsistency: over('scoreConsistency'),
    verdictConsistency: over('verdictConsistency'),
  };
}
