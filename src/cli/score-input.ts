/** What `gavel score` is given, in batches: the rows or pairs of a file, of standard input, or one candidate. */
import type { Readable } from 'node:stream';
import { openRecords } from '../data/open-records.js';
import type { PairRow } from '../data/pairs.js';
import { streamRecords } from '../data/record-stream.js';
import { countMarks, type ChatMessage, type Row } from '../data/rows.js';
import { promptRow } from './row-files.js';

/** Rows, or pairs, in order. `total` is known of files only. */
export type ScoreBatch = ({ rows: Row[] } | { pairs: PairRow[] }) & { total?: number };

/** A file or folder, `batch` candidates at a time: a pair is two. */
export async function* fileBatches(
  path: string,
  batch: number,
  signal: AbortSignal,
  imageFolder?: string,
): AsyncGenerator<ScoreBatch, void, undefined> {
  await using opened = await openRecords(path, {
    canSkip: false,
    signal,
    ...(imageFolder !== undefined && { imageFolder }),
  });
  const total = opened.size;
  const step = 'pair' in opened ? pairsOf(batch) : batch;
  for (let done = 0; done < total; done += step) {
    const indices = Array.from({ length: Math.min(step, total - done) }, (_, i) => done + i);
    if ('pair' in opened) yield { pairs: await Promise.all(indices.map((index) => opened.pair(index))), total };
    else yield { rows: await Promise.all(indices.map((index) => opened.row(index))), total };
  }
}

/** What arrives on a stream, as it arrives; a batch is not waited for. Pictures lie below `folder`. */
export async function* streamBatches(
  stream: Readable,
  batch: number,
  signal: AbortSignal,
  folder = process.cwd(),
): AsyncGenerator<ScoreBatch, void, undefined> {
  const end = (): void => void stream.destroy(signal.reason as Error);
  signal.throwIfAborted();
  signal.addEventListener('abort', end, { once: true });
  try {
    for await (const { rows, pairs } of streamRecords(stream, { name: 'stdin', folder })) {
      for (let done = 0; done < rows.length; done += batch) yield { rows: rows.slice(done, done + batch) };
      const step = pairsOf(batch);
      for (let done = 0; done < pairs.length; done += step) yield { pairs: pairs.slice(done, done + step) };
    }
  } finally {
    signal.removeEventListener('abort', end);
  }
}

const pairsOf = (batch: number): number => Math.max(1, batch >> 1);

export interface CandidateOptions {
  prompt: string;
  answer: string | undefined;
  image: readonly string[];
  video: readonly string[];
}

/** One candidate. Its answer is a turn of the conversation that the reward token ends, taken literally. */
export async function* oneCandidate({
  prompt,
  answer,
  image,
  video,
}: CandidateOptions): AsyncGenerator<ScoreBatch, void, undefined> {
  const row = promptRow(prompt, image, video);
  if (answer === undefined) return yield { rows: [row] };
  const marks = countMarks(answer);
  const content = marks.images + marks.videos === 0 ? answer : [{ type: 'text' as const, text: answer }];
  const turns: ChatMessage[] = [
    { role: 'user', content: row.prompt as string },
    { role: 'assistant', content },
  ];
  yield { rows: [{ ...row, prompt: turns }] };
}
