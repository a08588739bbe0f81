/**
 * Verifiers: does a completion give the gold answer? Strict is what training uses; lenient is the substring test of public
 * benchmarks. A completion that cannot be parsed is wrong, never random.
 */
import type { Row } from '../data/rows.js';
import { expected } from '../errors.js';
import { extractAnswer, type AnswerForm } from './answer-forms.js';
import {
  exactDigitsVerifier,
  optionLetterVerifier,
  relaxedNumericVerifier,
  tabmwpVerifier,
} from './benchmark-verifiers.js';
import { parseCompletion } from './format.js';

/** The verdict on one completion. */
export interface Verdict {
  correct: boolean;
  /** The text that was compared; null when the completion could not be parsed (a parse failure, counted apart). */
  answer: string | null;
}

/** Compares a completion with the gold answer; `meta` is the row's, for verifiers that need more, such as a unit. */
export type Verifier = (completion: string, gold: string, meta?: Row['meta']) => Verdict;

/** The text of the first answer tag, trimmed, equals the gold string exactly; without tags it is wrong. */
export const strictVerifier: Verifier = (completion, gold) => {
  const { answer } = parseCompletion(completion);
  return { correct: answer !== null && answer === gold, answer };
};

/** The gold string occurs in the text of the first answer tag or, without tags, anywhere in the completion. */
export const lenientVerifier: Verifier = (completion, gold) => {
  const answer = parseCompletion(completion).answer ?? completion;
  return { correct: gold !== '' && answer.includes(gold), answer };
};

/** The two above for answers in another form than tags. */
const strictOf =
  (form: AnswerForm): Verifier =>
  (completion, gold) => {
    const answer = extractAnswer(completion, form);
    return { correct: answer !== null && answer === gold, answer };
  };
const lenientOf =
  (form: AnswerForm): Verifier =>
  (completion, gold) => {
    const answer = extractAnswer(completion, form) ?? completion;
    return { correct: gold !== '' && answer.includes(gold), answer };
  };

const verifiers = {
  strict: (form: AnswerForm) => (form === 'tags' ? strictVerifier : strictOf(form)),
  lenient: (form: AnswerForm) => (form === 'tags' ? lenientVerifier : lenientOf(form)),
  chartqa: relaxedNumericVerifier,
  'clevr-math': exactDigitsVerifier,
  geoqa: optionLetterVerifier,
  tabmwp: tabmwpVerifier,
} as const;

export type VerifierName = keyof typeof verifiers;

/** The names `verifierByName` knows. */
export const verifierNames = Object.keys(verifiers) as readonly VerifierName[];

/**
 * The verifier of a name, reading answers in `form`: `<answer>` tags by default, "the answer is X" with 'phrase'. Throws
 * 'invalid_config' for another name.
 */
export function verifierByName(name: string, form: AnswerForm = 'tags'): Verifier {
  if (Object.hasOwn(verifiers, name)) return verifiers[name as VerifierName](form);
  throw expected('invalid_config', 'verifier', `one of ${verifierNames.join(', ')}`, name, 'Use one of these names.');
}
