/**
 * Placeholders of pictures and videos in a rendered prompt: found in the text, replaced by what the family's processor puts
 * there, repeated to their number of tokens once the text has become ids.
 */
import { GavelError } from '../errors.js';
import type { Tokenizer } from './tokenizer.js';
import type { VisionPlan, VisionProcessor } from './vision-processor.js';

/** A rendered prompt cut at its placeholders: one more piece of text than there are kinds. */
export interface Placeholders {
  pieces: string[];
  kinds: ('image' | 'video')[];
}

/** Throws 'image_count_mismatch', naming the row, unless the text has one placeholder for each picture and video. */
export function findPlaceholders(
  text: string,
  tokens: Pick<VisionProcessor, 'imageToken' | 'videoToken'>,
  row: { id: string; images: number; videos: number },
): Placeholders {
  const found: Placeholders = { pieces: [''], kinds: [] };
  const counts = { image: 0, video: 0 };
  for (const piece of text.split(new RegExp(`(${escape(tokens.imageToken)}|${escape(tokens.videoToken)})`))) {
    const kind = piece === tokens.imageToken ? 'image' : piece === tokens.videoToken ? 'video' : undefined;
    if (kind === undefined) {
      found.pieces[found.kinds.length] += piece;
      continue;
    }
    counts[kind]++;
    found.kinds.push(kind);
    found.pieces.push('');
  }
  for (const kind of ['image', 'video'] as const) {
    const wanted = row[`${kind}s`];
    if (counts[kind] === wanted) continue;
    throw new GavelError(
      'image_count_mismatch',
      `Expected ${wanted} ${kind} placeholders in the rendered prompt of row "${row.id}" but received ${counts[kind]}. ` +
        `Keep placeholder tokens out of the text, and use a chat template that renders ${kind}s.`,
      { fields: { id: row.id, placeholders: counts[kind], [`${kind}s`]: wanted } },
    );
  }
  return found;
}

/**
 * The ids of the whole prompt. `ids` are those of the placeholder tokens. Throws 'tokenizer_mismatch', naming the row, where
 * a placeholder is not one token of the vocabulary.
 */
export function expandPlaceholders(
  tokenizer: Tokenizer,
  { pieces, kinds }: Placeholders,
  plans: readonly VisionPlan[],
  ids: readonly (number | undefined)[],
  row: string,
): Int32Array {
  if (kinds.length === 0) return Int32Array.from(tokenizer.encode(pieces[0]!));
  const runs: number[] = [];
  let text = pieces[0]!;
  for (const [index, kind] of kinds.entries()) {
    const id = ids[kind === 'image' ? 0 : 1];
    if (id === undefined) throw notOneToken(row, kind);
    const token = tokenizer.decode([id], { skipSpecial: false });
    for (const part of plans[index]!.prompt) {
      if (typeof part === 'number') runs.push(part);
      text += typeof part === 'number' ? token : part;
    }
    text += pieces[index + 1]!;
  }
  const tokens = tokenizer.encode(text);
  const placeholders = tokens.filter((id) => ids.includes(id)).length;
  if (placeholders !== runs.length) throw notOneToken(row, kinds[0]!);
  const out = new Int32Array(tokens.length - runs.length + runs.reduce((sum, run) => sum + run, 0));
  let to = 0;
  let next = 0;
  for (const id of tokens) {
    const repeat = ids.includes(id) ? runs[next++]! : 1;
    out.fill(id, to, to + repeat);
    to += repeat;
  }
  return out;
}

function notOneToken(row: string, kind: string): GavelError {
  return new GavelError(
    'tokenizer_mismatch',
    `Expected the placeholder of ${kind}s in row "${row}" to be one token but received a tokenizer without it. ` +
      'Use the tokenizer the model was made with.',
    { fields: { id: row, kind } },
  );
}

function escape(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
}
