/** What a zod issue says, in this package's words: "must be an integer", "must be >= 1", "must be a string or a list". */
import type { z } from 'zod';

export interface ReadIssue {
  /** Where: deeper than the issue's own when one alternative of a union came closest. */
  path: readonly PropertyKey[];
  text: string;
}

const kinds: Readonly<Record<string, string>> = {
  string: 'a string',
  number: 'a number',
  int: 'an integer',
  boolean: 'true or false',
  array: 'a list',
  tuple: 'a list',
  object: 'an object',
  record: 'an object',
  null: 'null',
  function: 'a function',
};

/** Texts of zod itself; any other is a schema's own and is kept. */
const ofZod = /^(Invalid|Too small|Too big|Unrecognized)\b/;

const shown = (value: unknown): string => (typeof value === 'string' ? JSON.stringify(value) : String(value));

function boundText(origin: string, sign: '>' | '<', bound: number | bigint, inclusive: boolean | undefined): string {
  if (origin === 'number' || origin === 'int' || origin === 'bigint')
    return `must be ${sign}${inclusive === false ? '' : '='} ${bound}`;
  if (sign === '>' && bound === 1) return 'must not be empty';
  return `must have at ${sign === '>' ? 'least' : 'most'} ${bound} ${origin === 'string' ? 'characters' : 'elements'}`;
}

function unionIssue({ path, message, errors }: z.core.$ZodIssueInvalidUnion): ReadIssue {
  // The alternative of the right kind fails further inside.
  const closest = errors.find(([first]) => first !== undefined && first.path.length > 0)?.[0];
  if (closest !== undefined) {
    const inner = readIssue(closest);
    return { path: [...path, ...inner.path], text: inner.text };
  }
  const texts = [...new Set(errors.flatMap(([first]) => (first === undefined ? [] : [readIssue(first).text])))];
  if (texts.length === 0) return { path, text: message };
  if (!texts.every((text) => text.startsWith('must be '))) return { path, text: texts[0]! };
  return { path, text: `must be ${texts.map((text) => text.slice('must be '.length)).join(' or ')}` };
}

/** The issue's place and text. */
export function readIssue(issue: z.core.$ZodIssue): ReadIssue {
  const { path } = issue;
  const text = (said: string): ReadIssue => ({ path, text: said });
  if (issue.code === 'custom' || !ofZod.test(issue.message)) return text(issue.message.replace(/\.$/, ''));
  switch (issue.code) {
    case 'invalid_type':
      return text(`must be ${kinds[issue.expected] ?? `a ${issue.expected}`}`);
    case 'invalid_value':
      return text(`must be ${issue.values.length > 1 ? 'one of ' : ''}${issue.values.map(shown).join(', ')}`);
    case 'too_small':
      return text(boundText(issue.origin, '>', issue.minimum, issue.inclusive));
    case 'too_big':
      return text(boundText(issue.origin, '<', issue.maximum, issue.inclusive));
    case 'not_multiple_of':
      return text(`must be a multiple of ${issue.divisor}`);
    case 'invalid_format':
      return text(issue.pattern === undefined ? `must be of the form ${issue.format}` : `must match ${issue.pattern}`);
    case 'unrecognized_keys':
      return text(`has the unknown ${issue.keys.length > 1 ? 'keys' : 'key'} ${issue.keys.map(shown).join(', ')}`);
    case 'invalid_union':
      return unionIssue(issue);
    default:
      return text(issue.message);
  }
}

/** An issue's text as the end of a sentence: "it must be a string", "expected a divisor of ...", "cispo needs its own". */
export function issueClause(text: string): string {
  if (/^(must|has|is|belongs)\b/.test(text)) return `it ${text}`;
  return text.replace(/^(Expected|It|A)\b/, (word) => word.toLowerCase());
}

/** The value at a path; undefined where there is none. */
export const valueAt = (value: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((place, key) => (place as Record<PropertyKey, unknown> | undefined | null)?.[key], value);

/** A value on one line, short. */
export function showValue(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value === 'symbol') return 'a symbol';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
