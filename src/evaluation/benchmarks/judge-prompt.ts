/**
 * A pair of candidates as a row that asks a judge which is better, with its verdict's words. Texts of a benchmark go into
 * the message as literal parts, so a question that speaks of "<image>" marks no picture.
 */
import type { ContentPart, ImageSource, Row, VideoSource } from '../../data/rows.js';
import { GavelError } from '../../errors.js';
import type { Choice } from '../judgement.js';

export type Piece = { text: string } | { image: ImageSource } | { video: VideoSource };

/** What is judged: a context (question, caption, source picture) and two candidates. */
export interface CandidatePair {
  noun: 'Image' | 'Video' | 'Answer';
  context: readonly Piece[];
  first: readonly Piece[];
  second: readonly Piece[];
}

/**
 * Texts with the slots {context}, {first} and {second}, each exactly once, and {noun} and {verdicts} anywhere. {verdicts} is
 * "Image 1 is better" or "Image 2 is better", and "Tie" where the benchmark has ties.
 */
export interface JudgeTemplates {
  reasoned: string;
  direct: string;
}

const shown = '{context}\n\n{noun} 1:\n{first}\n\n{noun} 2:\n{second}\n\n';

export const defaultTemplates: JudgeTemplates = {
  reasoned:
    `Judge which of two candidates is better.\n\n${shown}` +
    'Inside <think> and </think>, score both candidates from 1 to 10 on each dimension that matters here, with a short reason ' +
    'for each score, and end with the sums in this form:\nTotal score:\n{noun} 1: a+b+c=sum\n{noun} 2: a+b+c=sum\n' +
    'Then write your verdict inside <answer> and </answer>: exactly one of {verdicts}.',
  direct:
    `Judge which of two candidates is better.\n\n${shown}` +
    'Answer at once, without reasoning, inside <answer> and </answer>: exactly one of {verdicts}.',
};

const slot = /\{(context|first|second|noun|verdicts)\}/;

/** Throws 'invalid_config' unless each slot of a template that holds a part of the pair occurs exactly once. */
export function checkTemplate(template: string, name: string): void {
  for (const part of ['context', 'first', 'second']) {
    const times = template.split(`{${part}}`).length - 1;
    if (times === 1) continue;
    throw new GavelError(
      'invalid_config',
      `Expected the slot {${part}} exactly once in \`${name}\` but received it ${times} times. A template needs {context}, {first} and {second}.`,
      { fields: { name, slot: part, times } },
    );
  }
}

/** The words of a verdict. */
export function verdictText(noun: CandidatePair['noun'], choice: Choice): string {
  return choice === 'tie' ? 'Tie' : `${noun} ${choice === 'first' ? 1 : 2} is better`;
}

export interface JudgeRowOptions {
  template: string;
  /** The candidate to be named, in the order that is shown. */
  gold: Choice;
  hasTies: boolean;
  swapped: boolean;
}

/** The row that asks. */
export function judgeRow(id: string, pair: CandidatePair, { template, gold, hasTies, swapped }: JudgeRowOptions): Row {
  const { noun, context } = pair;
  const [first, second] = swapped ? [pair.second, pair.first] : [pair.first, pair.second];
  const choices: Choice[] = ['first', 'second', ...(hasTies ? (['tie'] as const) : [])];
  const verdicts = choices.map((choice) => `"${verdictText(noun, choice)}"`).join(', ');
  const texts: Readonly<Record<string, string>> = { noun, verdicts };
  const pieces: Readonly<Record<string, readonly Piece[]>> = { context, first, second };
  const filled = template.split(slot).flatMap((part, i): readonly Piece[] => {
    if (i % 2 === 0) return [{ text: part }];
    return pieces[part] ?? [{ text: texts[part]! }];
  });
  const content: ContentPart[] = [];
  const images: ImageSource[] = [];
  const videos: VideoSource[] = [];
  for (const piece of filled) {
    const last = content.at(-1);
    if ('image' in piece) images.push(piece.image);
    else if ('video' in piece) videos.push(piece.video);
    else if (last?.type === 'text') last.text += piece.text;
    if ('image' in piece) content.push({ type: 'image' });
    else if ('video' in piece) content.push({ type: 'video' });
    else if (last?.type !== 'text' && piece.text !== '') content.push({ type: 'text', text: piece.text });
  }
  return {
    id,
    prompt: [{ role: 'user', content }],
    images,
    ...(videos.length === 0 ? {} : { videos }),
    solution: verdictText(noun, gold),
  };
}
