/**
 * Judging tasks as rows: two pictures or two videos for a caption, two answers about pictures or videos, or one candidate to
 * be scored. The form of the reply is UnifiedReward-Think's (arXiv 2505.03318): reasons with a score from 1 to 10 for each
 * dimension and a total for each candidate inside think tags, then the verdict inside answer tags. Wording is our own.
 */
import { z } from 'zod';
import { GavelError } from '../errors.js';
import { imageMark, videoMark, type ImageSource, type Row, type VideoSource } from './rows.js';

/** What is judged. Two videos stand with a line of their own each, so that their frames have a boundary. */
export type JudgingTask =
  | { kind: 'image-pair'; caption: string; images: readonly [ImageSource, ImageSource] }
  | { kind: 'video-pair'; caption: string; videos: readonly [VideoSource, VideoSource] }
  | {
      kind: 'answer-pair';
      question: string;
      answers: readonly [string, string];
      images?: readonly ImageSource[];
      videos?: readonly VideoSource[];
    }
  | { kind: 'image-score'; caption: string; image: ImageSource }
  | { kind: 'video-score'; caption: string; video: VideoSource }
  | {
      kind: 'answer-score';
      question: string;
      answer: string;
      images?: readonly ImageSource[];
      videos?: readonly VideoSource[];
    };

export type JudgingKind = JudgingTask['kind'];

/** Names of the tasks, for command lines. */
export const judgingKindSchema = z.enum([
  'image-pair',
  'video-pair',
  'answer-pair',
  'image-score',
  'video-score',
  'answer-score',
]);

export interface JudgingRowOptions {
  /** Name of the row. */
  id: string;
  /** false asks for the verdict alone, without reasons. Default: true. */
  reasons?: boolean;
  /** Which candidate is better (pairs), or the score from 1 to 10 (scores); becomes `solution`. */
  gold?: number;
  /** A distilled reply to train on. */
  completion?: string;
  /** What is scored inside the reasons. Default: those of the paper for the kind. */
  dimensions?: readonly string[];
}

const nouns = { image: 'Image', video: 'Video', answer: 'Answer' } as const;

const defaultDimensions = {
  image: ['semantic consistency', 'aesthetics', 'authenticity'],
  video: ['semantic consistency', 'temporal coherence', 'authenticity'],
  answer: ['semantic accuracy', 'correctness', 'clarity'],
} as const;

/** Lowest and highest score a judge may give. */
export const scoreRange = { lowest: 1, highest: 10 } as const;

const subjectOf = (kind: JudgingKind): keyof typeof nouns => kind.slice(0, kind.indexOf('-')) as keyof typeof nouns;
const isPair = (kind: JudgingKind): boolean => kind.endsWith('-pair');

/** The gold answer of a pair: "Image 1 is better", "Video 2 is better", "Answer 1 is better". */
export function verdictText(kind: JudgingKind, better: number): string {
  return `${nouns[subjectOf(kind)]} ${better} is better`;
}

/** The task as a row. Errors: 'invalid_argument' for a gold value that the task cannot have. */
export function judgingRow(task: JudgingTask, options: JudgingRowOptions): Row {
  const { id, reasons = true, gold, completion } = options;
  const subject = subjectOf(task.kind);
  const dimensions = options.dimensions ?? defaultDimensions[subject];
  const { images, videos } = picturesOf(task);
  const lines = [...shown(task), '', ...(reasons ? askReasons(task.kind, dimensions) : askVerdict(task.kind))];
  return {
    id,
    prompt: lines.join('\n'),
    images,
    ...(videos.length === 0 ? {} : { videos }),
    ...(completion === undefined ? {} : { completion }),
    ...(gold === undefined ? {} : { solution: goldText(task.kind, gold) }),
    meta: { task: task.kind, ...(task.kind === 'answer-pair' ? { answers: [...task.answers] } : {}) },
  };
}

/** The task with its two candidates exchanged; a score has no other order and is refused with 'invalid_argument'. */
export function exchangeCandidates(task: JudgingTask): JudgingTask {
  switch (task.kind) {
    case 'image-pair':
      return { ...task, images: [task.images[1], task.images[0]] };
    case 'video-pair':
      return { ...task, videos: [task.videos[1], task.videos[0]] };
    case 'answer-pair':
      return { ...task, answers: [task.answers[1], task.answers[0]] };
    default:
      throw new GavelError(
        'invalid_argument',
        `Expected a task with two candidates but received "${task.kind}", which has one. Judge it as it is.`,
        { fields: { kind: task.kind } },
      );
  }
}

function picturesOf(task: JudgingTask): { images: ImageSource[]; videos: VideoSource[] } {
  switch (task.kind) {
    case 'image-pair':
      return { images: [...task.images], videos: [] };
    case 'video-pair':
      return { images: [], videos: [...task.videos] };
    case 'image-score':
      return { images: [task.image], videos: [] };
    case 'video-score':
      return { images: [], videos: [task.video] };
    default:
      return { images: [...(task.images ?? [])], videos: [...(task.videos ?? [])] };
  }
}

/** What the judge sees, candidate by candidate. */
function shown(task: JudgingTask): string[] {
  switch (task.kind) {
    case 'image-pair':
      return [`Image 1: ${imageMark}`, `Image 2: ${imageMark}`, `Caption: ${task.caption}`];
    case 'video-pair':
      return [`Video 1: ${videoMark}`, `Video 2: ${videoMark}`, `Caption: ${task.caption}`];
    case 'image-score':
      return [`Image: ${imageMark}`, `Caption: ${task.caption}`];
    case 'video-score':
      return [`Video: ${videoMark}`, `Caption: ${task.caption}`];
    case 'answer-pair':
      return [
        ...marksOf(task),
        `Question: ${task.question}`,
        `Answer 1: ${task.answers[0]}`,
        `Answer 2: ${task.answers[1]}`,
      ];
    case 'answer-score':
      return [...marksOf(task), `Question: ${task.question}`, `Answer: ${task.answer}`];
  }
}

const marksOf = ({
  images = [],
  videos = [],
}: {
  images?: readonly unknown[];
  videos?: readonly unknown[];
}): string[] => [...images.map(() => imageMark), ...videos.map(() => videoMark)];

function askReasons(kind: JudgingKind, dimensions: readonly string[]): string[] {
  const noun = nouns[subjectOf(kind)];
  const { lowest, highest } = scoreRange;
  const scored = `Score ${isPair(kind) ? `each ${noun.toLowerCase()}` : `the ${noun.toLowerCase()}`} from ${lowest} to ${highest} on ${dimensions.join(', ')} and on what else matters here, with one sentence of reasons for each score.`;
  return isPair(kind)
    ? [
        `Which ${noun.toLowerCase()} is better? ${scored}`,
        `End with a line "Total score: N" for each, and reply in this form:`,
        `<think>your reasons and scores</think><answer>${noun} 1 is better</answer> or <answer>${noun} 2 is better</answer>`,
      ]
    : [
        `How good is the ${noun.toLowerCase()}? ${scored}`,
        `Reply in this form: <think>your reasons and scores</think><answer>an overall score from ${lowest} to ${highest}</answer>`,
      ];
}

function askVerdict(kind: JudgingKind): string[] {
  const noun = nouns[subjectOf(kind)];
  return isPair(kind)
    ? [
        `Which ${noun.toLowerCase()} is better? Reply at once, without reasons: <answer>${noun} 1 is better</answer> or <answer>${noun} 2 is better</answer>`,
      ]
    : [
        `How good is the ${noun.toLowerCase()}? Reply at once, without reasons: <answer>an overall score from ${scoreRange.lowest} to ${scoreRange.highest}</answer>`,
      ];
}

function goldText(kind: JudgingKind, gold: number): string {
  const { lowest, highest } = scoreRange;
  const fits = isPair(kind) ? gold === 1 || gold === 2 : gold >= lowest && gold <= highest;
  if (fits) return isPair(kind) ? verdictText(kind, gold) : String(gold);
  throw new GavelError(
    'invalid_argument',
    `Expected ${isPair(kind) ? '1 or 2' : `a score from ${lowest} to ${highest}`} for \`gold\` but received ${gold}. ` +
      'Say which candidate is better, or how good the one is.',
    { fields: { kind, gold } },
  );
}
