/**
 * `gavel judge --task`: which of two pictures, videos or answers is better, or how good one is, asked in the words of
 * src/data/judging-rows.ts, and what the reply says.
 */
import { judgingKindSchema, judgingRow, type JudgingKind, type JudgingTask } from '../data/judging-rows.js';
import type { Row } from '../data/rows.js';
import { expected } from '../errors.js';
import { readChoice, type Choice } from '../evaluation/judgement.js';
import { parseScore } from '../rewards/pointwise.js';

/** What the command was given besides the model. */
export interface JudgeTaskOptions {
  task: string;
  prompt: string;
  image: readonly string[];
  video: readonly string[];
  answer: readonly string[];
  /** Ask for the verdict alone. */
  direct?: boolean;
}

/** The task as a row. Errors: 'invalid_argument' for another task, or for candidates that it does not have. */
export function judgeTaskRow({ task: name, prompt, image, video, answer, direct = false }: JudgeTaskOptions): Row {
  const parsed = judgingKindSchema.safeParse(name);
  if (!parsed.success)
    throw expected('invalid_argument', '--task', `one of ${judgingKindSchema.options.join(', ')}`, name);
  const kind = parsed.data;
  const given = { '--image': image.length, '--video': video.length, '--answer': answer.length };
  for (const [option, count] of Object.entries(candidatesOf(kind))) {
    if (given[option as keyof typeof given] === count) continue;
    const what = count === 0 ? 'none' : `${count}`;
    const received = `${given[option as keyof typeof given]}`;
    throw expected('invalid_argument', option, `${what} with --task ${kind}`, received, adviceOf(kind));
  }
  const images = image.map((path) => ({ path }));
  const videos = video.map((path) => ({ path }));
  return judgingRow(taskOf(kind, prompt, images, videos, answer), { id: 'prompt', reasons: !direct });
}

/** How many candidates of each kind; pictures and videos that an answer is about may be any number. */
function candidatesOf(kind: JudgingKind): Record<string, number> {
  const count = kind.endsWith('-pair') ? 2 : 1;
  if (kind.startsWith('answer-')) return { '--answer': count };
  const isImage = kind.startsWith('image-');
  return { '--image': isImage ? count : 0, '--video': isImage ? 0 : count, '--answer': 0 };
}

function adviceOf(kind: JudgingKind): string {
  const candidates = Object.entries(candidatesOf(kind)).find(([, count]) => count > 0)!;
  return `Give ${candidates[0]} ${candidates[1] === 2 ? 'twice' : 'once'}, or choose another task.`;
}

function taskOf(
  kind: JudgingKind,
  prompt: string,
  images: readonly { path: string }[],
  videos: readonly { path: string }[],
  answers: readonly string[],
): JudgingTask {
  switch (kind) {
    case 'image-pair':
      return { kind, caption: prompt, images: [images[0]!, images[1]!] };
    case 'video-pair':
      return { kind, caption: prompt, videos: [videos[0]!, videos[1]!] };
    case 'answer-pair':
      return { kind, question: prompt, answers: [answers[0]!, answers[1]!], images, videos };
    case 'image-score':
      return { kind, caption: prompt, image: images[0]! };
    case 'video-score':
      return { kind, caption: prompt, video: videos[0]! };
    case 'answer-score':
      return { kind, question: prompt, answer: answers[0]!, images, videos };
  }
}

/** What a reply says: of a pair the candidate, of one candidate its score; null where it cannot be read. */
export function readJudged(task: string, text: string, answer: string | null): JudgedCandidate {
  return task.endsWith('-pair')
    ? { task, choice: answer === null ? null : readChoice(answer) }
    : { task, score: parseScore(text) };
}

export type JudgedCandidate = { task: string; choice: Choice | null } | { task: string; score: number | null };
