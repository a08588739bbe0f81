/**
 * How a question is put to a model: for an answer alone, for a rationale, to refine a wrong solution, to select among
 * candidates. Replaceable whole or by part (`{ ...r3vPrompts(), refine }`); the texts here are English, for chat models.
 */
import { countMarks, toMessages, type ChatMessage, type ContentPart, type Row } from '../data/rows.js';
import { GavelError } from '../errors.js';
import type { AnswerForm } from '../rewards/answer-forms.js';

/**
 * Each takes a question (a row with `prompt`, pictures and `solution`) and returns it as it is asked: id, pictures and
 * solution stay. The same input must give the same row.
 */
export interface R3vPrompts {
  /** The answer without reasons. */
  direct(question: Row): Row;
  /** The solution: reasons, then the answer. */
  rationale(question: Row): Row;
  /** Judge a solution and refine it. */
  refine(question: Row, solution: string): Row;
  /** The answer, given candidate solutions. */
  select(question: Row, candidates: readonly string[]): Row;
  /** What a completion of `direct` and `select` is, for an answer. */
  answer(answer: string): string;
}

/** The default prompts, which ask for answers in tags, or as "The answer is X." for verifiers of that form. */
export function r3vPrompts(form: Exclude<AnswerForm, 'either'> = 'tags'): R3vPrompts {
  const tags = form === 'tags';
  const finally_ = tags
    ? 'then give the final answer between <answer> and </answer>.'
    : 'then finish with "The answer is" and the final answer.';
  const solve = `First write a step-by-step solution${tags ? ' between <think> and </think>' : ''}, ${finally_}`;
  const only = tags
    ? 'Give only the final answer, between <answer> and </answer>.'
    : 'Give only "The answer is" and the final answer.';
  return {
    direct: (question) => asked(question, `\n${only}`),
    rationale: (question) => asked(question, `\n${solve}`),
    refine: (question, solution) =>
      asked(question, `\nProposed solution:\n${solution}\nJudge whether it is correct and refine it. ${solve}`),
    select: (question, candidates) => {
      const listed = candidates.map((candidate, i) => `Candidate solution ${i + 1}:\n${candidate}`);
      return asked(question, `\n${listed.join('\n')}\nWhich candidate solution is correct? ${only}`);
    },
    answer: (answer) => (tags ? `<answer>${answer}</answer>` : `The answer is ${answer}.`),
  };
}

/**
 * The question with `text` at the end of its last user turn, without a completion. The text is taken literally: an "<image>"
 * that a model wrote is no picture. Errors: 'bad_data' for a prompt without a user turn.
 */
export function asked(question: Row, text: string): Row {
  const { completion: _, prompt, ...rest } = question;
  const marks = countMarks(text);
  const isPlain = marks.images + marks.videos === 0;
  if (typeof prompt === 'string' && isPlain) return { ...rest, prompt: prompt + text };
  const messages = toMessages(prompt);
  const turn = messages.findLastIndex(({ role }) => role === 'user');
  if (turn < 0) {
    throw new GavelError(
      'bad_data',
      `Expected a user turn in the prompt of row "${question.id}" but received none. Add the question as one.`,
      { fields: { id: question.id } },
    );
  }
  const { role, content } = messages[turn]!;
  messages[turn] = { role, content: extended(content, text, isPlain) };
  return { ...rest, prompt: messages };
}

/** Text joins the text before it; a string becomes parts only where the text would be read as marks. */
function extended(content: ChatMessage['content'], text: string, isPlain: boolean): string | ContentPart[] {
  if (typeof content === 'string' && isPlain) return content + text;
  const parts: ContentPart[] = typeof content === 'string' ? [{ type: 'text', text: content }] : content;
  const last = parts.at(-1);
  return last?.type === 'text'
    ? [...parts.slice(0, -1), { type: 'text', text: last.text + text }]
    : [...parts, { type: 'text', text }];
}
