// A verifier of one's own: a verdict counts as right only when it is the gold one and follows from its own rationale.
import { parseCompletion } from 'gavel-rl';

const numCells = 4;

/**
 * What a rationale says of its two pictures: "dog ok _ no pizza ok cat ok 3" is four cells, each a word and whether it is
 * the caption's, and how many are. Null where it cannot be read.
 */
export function readRationale(completion) {
  const parts = parseCompletion(completion).rationale?.trim().split(/\s+/) ?? [];
  const length = 2 * numCells + 1;
  if (parts.length !== 2 * length) return null;
  return [parts.slice(0, length), parts.slice(length)].map((said) => ({
    words: said.filter((_, i) => i % 2 === 0).slice(0, numCells),
    marks: said.filter((_, i) => i % 2 === 1),
    count: Number(said[length - 1]),
  }));
}

/** Marks follow from words and caption, counts from marks, and the verdict from the counts. */
export function followsFromItself(completion, caption) {
  const pictures = readRationale(completion);
  if (pictures === null) return false;
  const [first, second] = pictures;
  const isCounted = ({ words, marks, count }) =>
    words.every((word, i) => marks[i] === (word === caption[i] ? 'ok' : 'no')) &&
    count === marks.filter((mark) => mark === 'ok').length;
  const verdict = `Image ${first.count > second.count ? 1 : 2} is better`;
  return pictures.every(isCounted) && first.count !== second.count && parseCompletion(completion).answer === verdict;
}

/** The verifier: what a recipe calls for each sample, with the row's gold answer and its `meta`. */
export const soundVerifier = (completion, gold, meta) => {
  const { answer } = parseCompletion(completion);
  return { answer, correct: answer === gold && followsFromItself(completion, meta.caption) };
};
