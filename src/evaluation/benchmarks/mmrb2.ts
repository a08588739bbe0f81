/**
 * MMRB2, Multimodal RewardBench 2 (Hu et al. 2025, arXiv 2512.16899): t2i.json, edit.json, interleaved.json and
 * reasoning.json as its repository builds them, or the rows of rl-research/multimodal-rewardbench-2. The authors' accuracy
 * counts every judgement of both orders once and leaves unparsed ones out of the count; "overall" pools the four tasks.
 */
import { basename, dirname, extname } from 'node:path';
import { GavelError } from '../../errors.js';
import { meanOf } from '../interval.js';
import type { Judgement } from '../judgement.js';
import { observed } from '../resample-units.js';
import type { Benchmark, BenchmarkPair, HeadlineParts } from './benchmark.js';
import type { CandidatePair, Piece } from './judge-prompt.js';
import type { SourceRow } from './row-source.js';

const tasks = ['t2i', 'edit', 'interleaved', 'reasoning'] as const;
type Task = (typeof tasks)[number];

/** The task is the name of the file ("t2i.json") or of its folder ("t2i/test-00000-of-00001.parquet"). */
function taskOf(path: string): Task | undefined {
  const names = [basename(path, extname(path)), basename(dirname(path))];
  return tasks.find((task) => names.includes(task));
}

export const mmrb2: Benchmark = {
  name: 'mmrb2',
  title: 'MMRB2, Multimodal RewardBench 2 (Hu et al. 2025)',
  hasTies: false,
  listKey: 'pairs',
  ownsFile: (path) => taskOf(path) !== undefined,
  pairsOf: (row, path) => {
    const task = taskOf(path);
    if (task === undefined) {
      throw new GavelError(
        'bad_data',
        `Expected a file of MMRB2 named ${tasks.join('.json, ')}.json, or in a folder of such a name, but received ${path}. Its name tells the task.`,
        { fields: { path } },
      );
    }
    return [row.has('prompt_content') || row.has('response_a') ? builtPair(row, task) : hubPair(row, task)];
  },
  headlines: (judgements) => [
    ...tasks.map((task) =>
      parsedAccuracy(
        task,
        judgements.filter(({ subsets }) => subsets['task'] === task),
      ),
    ),
    parsedAccuracy('overall', judgements),
  ],
};

function parsedAccuracy(name: string, judgements: readonly Judgement[]): HeadlineParts {
  const parsed = observed(
    judgements.filter(({ answer }) => answer !== null),
    ({ correct }) => correct,
  );
  return { name, value: meanOf(parsed.map(({ value }) => value)), parts: [parsed] };
}

function pairOf(row: SourceRow, task: Task, id: string, parts: Omit<CandidatePair, 'noun'>): BenchmarkPair {
  const chosen = row.text('chosen').toUpperCase();
  if (chosen !== 'A' && chosen !== 'B') throw row.wrong('chosen', 'A or B', chosen);
  const source = row.has('prompt_source') ? { source: row.text('prompt_source') } : {};
  return {
    id: `${task} ${id}`,
    noun: 'Answer',
    ...parts,
    gold: chosen === 'A' ? 'first' : 'second',
    subsets: { task, ...source },
  };
}

/** Content as [["text", "..."], ["image", "images/x.png"]]. */
function builtPair(row: SourceRow, task: Task): BenchmarkPair {
  const content = (column: string, list: unknown): Piece[] => {
    if (!Array.isArray(list)) throw row.wrong(column, 'a list of [kind, content]', list);
    return list.map((entry: unknown): Piece => {
      const [kind, value] = Array.isArray(entry) ? (entry as unknown[]) : [];
      if (kind === 'text' && typeof value === 'string') return { text: value };
      if (kind === 'image') return { image: row.imageOf(column, value) };
      throw row.wrong(column, '["text", ...] or ["image", ...]', entry);
    });
  };
  const response = (column: string): Piece[] =>
    content(`${column}.response_content`, row.record(column)['response_content']);
  // The README says `pair_id`; the files and the authors' scorer have `id`.
  return pairOf(row, task, row.id(row.has('id') ? 'id' : 'pair_id'), {
    context: content('prompt_content', row.list('prompt_content')),
    first: response('response_a'),
    second: response('response_b'),
  });
}

/** Texts with the places <image_0>, <image_1>, ... and a list of pictures; without places the pictures come last. */
function hubPair(row: SourceRow, task: Task): BenchmarkPair {
  const content = (name: string): Piece[] => {
    const text = row.has(`${name}_text`) ? row.text(`${name}_text`) : '';
    const images = row.has(`${name}_images`) ? row.list(`${name}_images`) : [];
    const places = text.split(/<image_\d+>/);
    // As in the authors' conversion, places take the pictures in order, whatever their number.
    if (places.length > 1 && places.length - 1 !== images.length)
      throw row.wrong(`${name}_images`, `${places.length - 1} pictures`, `${images.length} pictures`);
    const pictures = images.map((image): Piece => ({ image: row.imageOf(`${name}_images`, image) }));
    if (places.length === 1) return [...(text === '' ? [] : [{ text }]), ...pictures];
    return places.flatMap((part, i): Piece[] => [
      ...(part.trim() === '' ? [] : [{ text: part.trim() }]),
      ...pictures.slice(i, i + 1),
    ]);
  };
  return pairOf(row, task, row.id('pair_id'), {
    context: content('prompt'),
    first: content('response_a'),
    second: content('response_b'),
  });
}
