/**
 * One parsed record of a file to a checked row or pair: its form, its marks, its paths, its ids. The same function reads a
 * record when the file is opened and whenever it is asked for, so what passed once passes again.
 */
import { GavelError } from '../errors.js';
import { holdsToken } from './embedded.js';
import { givenBy, importRecord, type DataFormat } from './formats.js';
import { marksRefusal, type ImportedPair, type ImportedRow, type Refusal } from './imported-row.js';
import type { MediaFolder } from './media-folder.js';

/** What a file is opened for: rows, pairs, or (to look into it) either. */
export type RecordKind = 'row' | 'pair' | 'any';

export interface ReadOptions {
  /** The form of every record; by default the fields of each decide. */
  format?: DataFormat;
  kind: RecordKind;
  /** Text put below every prompt: how to answer, for sets whose questions do not say it. */
  instruction?: string;
}

/** A row or pair whose ids are known. */
export type CheckedRecord =
  | { format: DataFormat; row: ImportedRow & { id: string } }
  | { format: DataFormat; pair: ImportedPair & { id: string; first: { id: string }; second: { id: string } } };

/**
 * Reads a record; `defaultId` is used where it has none. Gives the reason where the record is bad. Throws 'bad_data' where no
 * record of the file can be right: an ambiguous form, or pairs where rows are asked for.
 */
export function readRecord(
  value: unknown,
  defaultId: string,
  media: MediaFolder,
  options: ReadOptions,
  numEmbedded = 0,
): CheckedRecord | Refusal {
  const result = importRecord(value, options.format);
  if ('reason' in result) {
    if (result.formats !== undefined) throw ambiguous(result.formats, defaultId);
    return { reason: result.reason };
  }
  if (options.kind !== 'any' && givenBy(result.format) !== options.kind) throw wrongKind(result.format, defaultId);
  if ('row' in result) {
    const row = instructed(result.row, options.instruction);
    return refusalOf(row, media, numEmbedded) ?? { format: result.format, row: { ...row, id: row.id ?? defaultId } };
  }
  const id = result.pair.id ?? defaultId;
  const first = instructed(result.pair.first, options.instruction);
  const second = instructed(result.pair.second, options.instruction);
  for (const [name, row] of [
    ['first', first],
    ['second', second],
  ] as const) {
    const refusal = refusalOf(row, media, numEmbedded);
    if (refusal !== undefined) return { ...refusal, reason: `${name}: ${refusal.reason}` };
  }
  const ids = { first: first.id ?? `${id}/1`, second: second.id ?? `${id}/2` };
  if (ids.first === ids.second) return { reason: `both candidates have the id "${ids.first}"` };
  return {
    format: result.format,
    pair: { ...result.pair, id, first: { ...first, id: ids.first }, second: { ...second, id: ids.second } },
  };
}

function refusalOf(row: ImportedRow, media: MediaFolder, numEmbedded: number): Refusal | undefined {
  if (numEmbedded > 0 && holdsToken([row.id, row.prompt, row.completion, row.solution]))
    return { reason: 'bytes that are no UTF-8 text, where text belongs' };
  const reason = media.check(row, numEmbedded);
  return marksRefusal(row) ?? (reason === undefined ? undefined : { reason });
}

/** The text below the last question; a row whose prompt has none is left as it is. */
function instructed(row: ImportedRow, instruction: string | undefined): ImportedRow {
  if (instruction === undefined) return row;
  if (typeof row.prompt === 'string') return { ...row, prompt: `${row.prompt}\n${instruction}` };
  const at = row.prompt.findLastIndex(({ role }) => role === 'user');
  return {
    ...row,
    prompt: row.prompt.map((message, index) => {
      if (index !== at) return message;
      const { role, content } = message;
      return typeof content === 'string'
        ? { role, content: `${content}\n${instruction}` }
        : { role, content: [...content, { type: 'text' as const, text: `\n${instruction}` }] };
    }),
  };
}

function ambiguous(formats: readonly DataFormat[], where: string): GavelError {
  return new GavelError(
    'bad_data',
    `Expected the fields of one form at ${where} but received those of ${formats.join(' and ')}. ` +
      'Name the form by `format`.',
    { fields: { where, formats: formats.join(', ') } },
  );
}

function wrongKind(format: DataFormat, where: string): GavelError {
  const [wanted, received, opener] =
    givenBy(format) === 'pair'
      ? (['rows', 'preference pairs', 'openPairs'] as const)
      : (['preference pairs', 'rows', 'openData'] as const);
  return new GavelError(
    'bad_data',
    `Expected ${wanted} at ${where} but received ${received} (${format}). Open the file by \`${opener}\`.`,
    { fields: { where, format, wanted, received } },
  );
}
