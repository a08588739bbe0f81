/**
 * The forms of data files, told apart by their fields: a record has a form when it has all its fields. Where one form's
 * fields contain another's, the larger wins; two others at once are ambiguous and the user names the form.
 */
import { importLlava, importR3v, speaksLikeR3v } from './import-conversations.js';
import { importMessages } from './import-messages.js';
import {
  importEditReward,
  importOwnPair,
  importSharegptPreference,
  importTrlPreference,
} from './import-preferences.js';
import { importChartQa, importClevrMath, importProblem, importQuestion, importTabMwp } from './import-questions.js';
import {
  flatten,
  optionalId,
  optionalVideos,
  type ImportedPair,
  type ImportedRow,
  type ImportResult,
  type PairImportResult,
} from './imported-row.js';
import { fileRowSchema } from './rows.js';

/** The names of all forms. */
export const dataFormats = [
  'gavel',
  'llava',
  'r3v',
  'messages',
  'problem',
  'chartqa',
  'clevr-math',
  'tabmwp',
  'question',
  'gavel-pairs',
  'trl-preference',
  'sharegpt-preference',
  'editreward',
] as const;
export type DataFormat = (typeof dataFormats)[number];

type Fields = Record<string, unknown>;

interface FormatDefinition {
  /** All of one of these lists must be there. */
  fields: readonly (readonly string[])[];
  when?: (value: Fields) => boolean;
  gives: 'row' | 'pair';
  read: (value: object) => ImportResult | PairImportResult;
}

const definitions: Readonly<Record<DataFormat, FormatDefinition>> = {
  gavel: { fields: [['prompt']], gives: 'row', read: importOwn },
  llava: { fields: [['conversations']], when: (value) => !speaksLikeR3v(value), gives: 'row', read: importLlava },
  r3v: { fields: [['conversations']], when: speaksLikeR3v, gives: 'row', read: importR3v },
  messages: { fields: [['messages']], gives: 'row', read: importMessages },
  problem: { fields: [['problem']], gives: 'row', read: importProblem },
  chartqa: { fields: [['query', 'label']], gives: 'row', read: importChartQa },
  'clevr-math': {
    fields: [
      ['filename', 'question', 'answer'],
      ['image', 'question', 'label'],
    ],
    gives: 'row',
    read: importClevrMath,
  },
  tabmwp: { fields: [['question', 'answer', 'choices', 'unit']], gives: 'row', read: importTabMwp },
  question: { fields: [['question', 'answer']], gives: 'row', read: importQuestion },
  'gavel-pairs': { fields: [['first', 'second', 'preference']], gives: 'pair', read: importOwnPair },
  'trl-preference': {
    fields: [
      ['chosen', 'rejected'],
      ['prompt', 'chosen', 'rejected'],
    ],
    gives: 'pair',
    read: importTrlPreference,
  },
  'sharegpt-preference': {
    fields: [['conversations', 'chosen', 'rejected']],
    gives: 'pair',
    read: importSharegptPreference,
  },
  editreward: { fields: [['prompt', 'path_src', 'path1', 'path2']], gives: 'pair', read: importEditReward },
};

/** What a form gives: rows, or preference pairs. */
export const givenBy = (format: DataFormat): 'row' | 'pair' => definitions[format].gives;

/** The forms a record may have: one, none (then it is read as the project's own), or several that the user must choose from. */
export function formatsOf(value: Fields): readonly DataFormat[] {
  // Rows of a file mostly have the same fields, so the last answer mostly is the next one; only speakers are looked at anew.
  const fields = Object.keys(value).join('\0');
  const speakers = Object.hasOwn(value, 'conversations') && speaksLikeR3v(value);
  if (last.fields !== fields || last.speakers !== speakers) last = { fields, speakers, formats: decide(value) };
  return last.formats;
}

let last: { fields: string; speakers: boolean; formats: readonly DataFormat[] } = {
  fields: '',
  speakers: false,
  formats: [],
};

function decide(value: Fields): DataFormat[] {
  const found = dataFormats.flatMap((format) => {
    const { fields, when } = definitions[format];
    if (when !== undefined && !when(value)) return [];
    const has = fields.filter((list) => list.every((field) => Object.hasOwn(value, field)));
    const most = has.sort((a, b) => b.length - a.length)[0];
    return most === undefined ? [] : [{ format, fields: most }];
  });
  const within = (small: readonly string[], large: readonly string[]): boolean =>
    small.length < large.length && small.every((field) => large.includes(field));
  return found.filter(({ fields }) => !found.some((other) => within(fields, other.fields))).map(({ format }) => format);
}

/** A record that was read, with the form it has; or why it cannot be used. */
export type RecordResult =
  | { format: DataFormat; row: ImportedRow }
  | { format: DataFormat; pair: ImportedPair }
  | { reason: string; formats?: readonly DataFormat[] };

/** Reads one parsed value; `format` names its form, else its fields decide. Marks are not counted here. */
export function importRecord(value: unknown, format?: DataFormat): RecordResult {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return { reason: 'not a JSON object' };
  const formats = format === undefined ? formatsOf(value as Fields) : [format];
  if (formats.length > 1) {
    return { reason: `the fields of ${formats.join(' and ')} at once: name the form by \`format\``, formats };
  }
  const name = formats[0] ?? 'gavel';
  const result = definitions[name].read(value);
  return 'reason' in result ? result : { format: name, ...result };
}

function importOwn(value: object): ImportResult {
  const parsed = fileRowSchema.safeParse(value);
  if (!parsed.success) return { reason: flatten(parsed.error, value) };
  const { id, images = [], videos, ...rest } = parsed.data;
  return { row: { ...rest, images, ...optionalVideos(videos ?? []), ...optionalId(id) } };
}
