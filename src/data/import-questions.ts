/**
 * Rows that are a question and its gold answer: UnifiedReward's and EasyR1's GRPO files, and the sets R3V trains on
 * (ChartQA, CLEVR-Math, TabMWP, M3CoT, GeoQA). Without a mark the picture stands before the text; choices are lettered below
 * it, as R3V's public code writes them, and the gold answer is then the letter.
 */
import { z } from 'zod';
import { mediaFields } from './import-media.js';
import {
  flatten,
  listOf,
  mediaFirst,
  optionalId,
  optionalMeta,
  optionalVideos,
  type ImportResult,
  type ImportedRow,
} from './imported-row.js';

const answer = z.union([z.string().min(1), z.number(), z.boolean()]);
const { id, image, images } = mediaFields;

/** `{id?, problem, solution | answer, image(s)?, video(s)?}`. Other keys go to meta. */
export const problemRowSchema = z
  .looseObject({
    ...mediaFields,
    problem: z.string().min(1).describe('The prompt.'),
    solution: answer.optional().describe('The gold answer, bare or inside <answer> tags.'),
    answer: answer.optional().describe('The gold answer, where the file calls it so.'),
  })
  .describe('A row of a GRPO file.');

/** ChartQA: `{imgname | image, query, label}`; the published Parquet files hold the label as a list of one. */
export const chartQaRowSchema = z
  .looseObject({
    imgname: z.string().min(1).optional().describe('File name of the chart.'),
    image,
    query: z.string().min(1).describe('The question.'),
    label: z.union([answer, z.array(answer).length(1)]).describe('The gold answer.'),
  })
  .describe('A row of ChartQA.');

/** CLEVR-Math: `{filename | image, question, answer | label}`. */
export const clevrMathRowSchema = z
  .looseObject({
    id,
    filename: z.string().min(1).optional().describe('File name of the picture.'),
    image,
    question: z.string().min(1).describe('The question.'),
    answer: answer.optional().describe('The gold answer, a whole number.'),
    label: answer.optional().describe('The gold answer in the published Parquet files.'),
  })
  .describe('A row of CLEVR-Math.');

const choices = z.array(z.union([z.string().min(1), z.number()]));

/** TabMWP: `{id, question, choices, answer, unit, ...}`; the published files are one object keyed by id. */
export const tabMwpRowSchema = z
  .looseObject({
    id: z.union([z.string().min(1), z.number()]).describe('Number of the problem; its table is "tables/<id>.png".'),
    question: z.string().min(1).describe('The question.'),
    choices: choices.nullable().describe('Choices, or null.'),
    answer: answer.describe('The gold answer; with choices, the text of one.'),
    unit: z.string().nullable().describe('Unit of the answer, or null.'),
  })
  .describe('A row of TabMWP.');

/** M3CoT, GeoQA and their like: `{id?, question, answer, choices?, context?, image(s)?}`. */
export const questionRowSchema = z
  .looseObject({
    id,
    image,
    images,
    question: z.string().min(1).describe('The question.'),
    context: z.string().nullish().describe('Text before the question.'),
    choices: choices.nullish().describe('Choices; the answer is then a letter, the text of one, or its number from 0.'),
    answer: answer.describe('The gold answer.'),
  })
  .describe('A question with its answer.');

const tagged = /^\s*<answer>([\s\S]*)<\/answer>\s*$/;

export function importProblem(value: object): ImportResult {
  const parsed = problemRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, video, videos, problem, solution, answer, ...meta } = parsed.data;
  if (solution !== undefined && answer !== undefined && solution !== answer) {
    return { reason: 'solution: both "solution" and "answer", and they differ' };
  }
  const gold = solution ?? answer;
  if (gold === undefined) return { reason: 'solution: missing' };
  const paths = listOf(image, images);
  const films = listOf(video, videos);
  const prompt = mediaFirst(problem, paths.length, films.length);
  const text = String(gold);
  const row: ImportedRow = { prompt, images: paths, solution: (tagged.exec(text)?.[1] ?? text).trim() };
  return { row: { ...row, ...optionalVideos(films), ...optionalId(id), ...optionalMeta(meta) } };
}

export function importChartQa(value: object): ImportResult {
  const parsed = chartQaRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { imgname, image, query, label, ...meta } = parsed.data;
  return asked(query, listOf(image, imgname), listOf(label)[0], undefined, meta);
}

export function importClevrMath(value: object): ImportResult {
  const parsed = clevrMathRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, filename, image, question, answer, label, ...meta } = parsed.data;
  return asked(question, listOf(image, filename), answer ?? label, id, meta);
}

export function importTabMwp(value: object): ImportResult {
  const parsed = tabMwpRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, question, choices, answer, unit, ...meta } = parsed.data;
  const text = unit === null || unit === '' ? question : `${question} (Unit: ${unit})`;
  return chosen(text, choices ?? [], answer, [`tables/${id}.png`], id, { ...meta, unit, choices });
}

export function importQuestion(value: object): ImportResult {
  const parsed = questionRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, image, images, question, context, choices: given, answer, ...meta } = parsed.data;
  const choices = given ?? [];
  const text =
    context === undefined || context === null || context.trim() === '' ? question : `${context}\n${question}`;
  return chosen(text, choices, answer, listOf(image, images), id, choices.length > 0 ? { ...meta, choices } : meta);
}

type Answer = z.infer<typeof answer>;

const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

function chosen(
  question: string,
  choices: readonly (string | number)[],
  answer: Answer,
  paths: string[],
  id: string | number | undefined,
  meta: Record<string, unknown>,
): ImportResult {
  if (choices.length === 0) return asked(question, paths, answer, id, meta);
  if (choices.length > letters.length) return { reason: `choices: more than ${letters.length}` };
  const options = choices.map((choice, index) => `(${letters[index]!}) ${choice}`).join('\n');
  const letter = letterOf(choices.map(String), answer);
  if (letter === undefined) return { reason: `answer: "${String(answer).slice(0, 100)}" is none of the choices` };
  return asked(`${question}\nOptions:\n${options}`, paths, letter, id, meta);
}

/** The text of one choice comes first: among the choices "B", "A", the answer "A" is the second. */
function letterOf(choices: readonly string[], answer: Answer): string | undefined {
  const text = String(answer).trim();
  const equal = choices.flatMap((choice, index) => (choice.trim() === text ? [index] : []));
  if (equal.length === 1) return letters[equal[0]!];
  if (equal.length > 1) return undefined;
  const letter = /^\(?([A-Za-z])\)?\.?$/.exec(text)?.[1]?.toUpperCase();
  if (letter !== undefined) return letters.indexOf(letter) < choices.length ? letter : undefined;
  return typeof answer === 'number' && Number.isInteger(answer) && answer >= 0 && answer < choices.length
    ? letters[answer]
    : undefined;
}

function asked(
  question: string,
  paths: string[],
  answer: Answer | undefined,
  id: string | number | undefined,
  meta: Record<string, unknown>,
): ImportResult {
  if (answer === undefined) return { reason: 'answer: missing' };
  const prompt = mediaFirst(question, paths.length);
  return {
    row: { prompt, images: paths, solution: String(answer).trim(), ...optionalId(id), ...optionalMeta(meta) },
  };
}
