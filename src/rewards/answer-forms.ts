/**
 * Where a completion says its answer. R3V's models end a rationale with "The answer is X" or "Answer: X"; this project's
 * judges write `<answer>` tags. Which one holds is an explicit choice: a completion in another form is unparsed, never
 * searched for something that might be meant.
 */
import { expected } from '../errors.js';
import { parseCompletion } from './format.js';

/** tags: the first answer block. phrase: what follows the last "the answer is" or "Answer:". either: tags, else phrase. */
export const answerForms = ['tags', 'phrase', 'either'] as const;

export type AnswerForm = (typeof answerForms)[number];

/** The answer of a completion, trimmed; null when it has none in this form. Errors: 'invalid_config' for another form. */
export function extractAnswer(completion: string, form: AnswerForm = 'tags'): string | null {
  switch (form) {
    case 'tags':
      return textOrNull(parseCompletion(completion).answer);
    case 'phrase':
      return answerAfterPhrase(completion);
    case 'either':
      // A block that is there but empty is an empty answer, not a reason to look elsewhere.
      return completion.includes('<answer>')
        ? textOrNull(parseCompletion(completion).answer)
        : answerAfterPhrase(completion);
    default:
      throw expected('invalid_config', 'answer', `one of ${answerForms.join(', ')}`, form, 'Use one of these names.');
  }
}

const phrase = /\banswer(?:[ \t]+is\b[ \t]*:?|[ \t]*:)/gi;

/** The rest of the line after the last phrase, or the next line when nothing follows it there; one full stop is left out. */
function answerAfterPhrase(completion: string): string | null {
  const last = [...completion.matchAll(phrase)].at(-1);
  if (last === undefined) return null;
  const rest = completion.slice(last.index + last[0].length).trimStart();
  const line = rest.split('\n', 1)[0]!.trim();
  const bare = line.replace(/^\*\*\s*(.*?)\s*\*\*/, '$1').trim();
  // "7:25 P.M." keeps its last stop.
  return textOrNull(/[AP]\.M\.$/i.test(bare) ? bare : bare.replace(/\.$/, '').trim());
}

const textOrNull = (text: string | null): string | null => (text === null || text === '' ? null : text);
