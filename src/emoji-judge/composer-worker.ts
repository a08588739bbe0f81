/** The body of the composing thread, started by Composer only: answers requests with rows, in order. */
import { parentPort, workerData } from 'node:worker_threads';
import type { Row } from '../data/rows.js';
import { yieldToMainThread } from '../data/thread-priority.js';
import { bankOf, makeRows, type GlyphTable, type RowRequest } from './row-maker.js';

export interface ComposerData {
  table: GlyphTable;
  seed: number;
}

export interface ComposerRequest {
  id: number;
  requests: RowRequest[];
}

export interface ComposerReply {
  id: number;
  /** The rows of each request. */
  rows: Row[][];
}

/** Pictures are handed over, not copied; rows of one item share theirs. */
function buffersOf(rows: readonly Row[]): ArrayBuffer[] {
  const views = rows.flatMap(({ images }) => images.flatMap((image) => ('rgb' in image ? [image.rgb] : [])));
  return [...new Set(views.map(({ buffer }) => buffer as ArrayBuffer))];
}

if (parentPort !== null) {
  const port = parentPort;
  const { table, seed } = workerData as ComposerData;
  const bank = bankOf(table);
  yieldToMainThread();
  port.on('message', ({ id, requests }: ComposerRequest) => {
    const rows = requests.map((request) => makeRows(bank, seed, request));
    port.postMessage({ id, rows } satisfies ComposerReply, buffersOf(rows.flat()));
  });
}
