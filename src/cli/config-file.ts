/**
 * Reads a YAML configuration strictly: an unknown key is an error that names the nearest valid one and its line; `--set`
 * overrides travel through the same check.
 */
import { readFile } from 'node:fs/promises';
import { isMap, isPair, isScalar, isSeq, LineCounter, parse, parseDocument, type Document } from 'yaml';
import type { z } from 'zod';
import { expected, GavelError } from '../errors.js';
import { guarded } from '../runs/file-errors.js';
import { knownKeys } from '../schema/known-keys.js';
import { nearestName } from '../schema/nearest.js';
import { issueClause, readIssue, showValue, valueAt } from '../schema/read-issue.js';

type Path = readonly (string | number)[];

/** Reads and checks `path`. Errors: 'io', 'permission_denied', 'invalid_config' with key, line and the nearest name. */
export async function readConfigFile<T extends z.ZodType>(
  path: string,
  schema: T,
  overrides: readonly string[] = [],
): Promise<z.output<T>> {
  const text = await guarded('read', path, () => readFile(path, 'utf8'));
  return parseConfig(text, schema, { origin: path, overrides });
}

/** As `readConfigFile`, for a text. `overrides` are "dotted.key=value". */
export function parseConfig<T extends z.ZodType>(
  text: string,
  schema: T,
  options: { origin?: string; overrides?: readonly string[] } = {},
): z.output<T> {
  const { origin = 'the configuration', overrides = [] } = options;
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [broken] = document.errors;
  if (broken !== undefined) {
    const line = lines.linePos(broken.pos[0]).line;
    throw new GavelError('invalid_config', `Expected YAML in ${origin} but line ${line} is not: ${broken.message}`, {
      fields: { origin, line },
      cause: broken,
    });
  }
  const value: unknown = document.toJS() ?? {};
  for (const override of overrides) applyOverride(value, override);
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw describeIssues(parsed.error, value, schema, (path) => lineOf(document, lines, path), origin);
}

/** Sets "stages.0.options.learningRate=1e-5" in a plain value; the right side is a YAML scalar, list or map. */
export function applyOverride(target: unknown, override: string): void {
  const at = override.indexOf('=');
  if (at < 1)
    throw expected('invalid_config', '--set', 'key=value', override, 'For example --set stages.0.options.seed=1.');
  const keys = override.slice(0, at).split('.');
  const inherited = keys.find((key) => key in Object.prototype);
  if (inherited !== undefined) throw expected('invalid_config', '--set', 'keys of the file', inherited);
  let place = target as Record<string, unknown>;
  for (const [depth, key] of keys.slice(0, -1).entries()) {
    const next = place[key] ?? (place[key] = {});
    if (typeof next !== 'object') {
      throw expected('invalid_config', '--set', `a map at ${keys.slice(0, depth + 1).join('.')}`, next);
    }
    checkIndex(next, keys.slice(0, depth + 2));
    place = next as Record<string, unknown>;
  }
  place[keys.at(-1)!] = parse(override.slice(at + 1)) as unknown;
}

// A list has numbered items without gaps; any other key of it would be set and never read.
function checkIndex(list: unknown, keys: readonly string[]): void {
  const key = keys.at(-1)!;
  if (!Array.isArray(list) || (/^\d+$/.test(key) && Number(key) <= list.length)) return;
  const last =
    list.length === 0 ? 'only 0: the list is empty' : `0 to ${list.length - 1}, or ${list.length} for one more`;
  throw expected('invalid_config', '--set', `an item of the list ${keys.slice(0, -1).join('.')} (${last})`, key);
}

function lineOf(document: Document.Parsed, lines: LineCounter, path: Path): number | undefined {
  let node: unknown = document.contents;
  let line: number | undefined;
  for (const key of path) {
    let position: number | undefined;
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(key),
      );
      if (pair === undefined) return line;
      position = isScalar(pair.key) ? pair.key.range?.[0] : undefined;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[Number(key)];
      position = (node as { range?: [number] | null } | undefined)?.range?.[0];
    } else return line;
    if (position !== undefined) line = lines.linePos(position).line;
  }
  return line;
}

function describeIssues(
  error: z.ZodError,
  value: unknown,
  schema: z.ZodType,
  lineAt: (path: Path) => number | undefined,
  origin: string,
): GavelError {
  const keysAt = knownKeys(schema);
  const sentences: string[] = [];
  let first: { key: string; line: number | undefined; nearest: string | undefined } | undefined;
  for (const issue of error.issues) {
    const path = issue.path as Path;
    const unknown = issue.code === 'unrecognized_keys' ? issue.keys : [undefined];
    for (const key of unknown) {
      const read = readIssue(issue);
      const full = key === undefined ? (read.path as Path) : [...path, key];
      const line = lineAt(full);
      const nearest = key === undefined ? undefined : nearestName(key, keysAt(path, value));
      first ??= { key: full.join('.'), line, nearest };
      const where = line === undefined ? '' : ` (line ${line})`;
      sentences.push(
        key === undefined
          ? `Expected a valid \`${full.join('.') || 'configuration'}\`${where} but received ${showValue(valueAt(value, full))}: ${issueClause(read.text)}.`
          : `Expected a known key but received \`${full.join('.')}\`${where}.` +
              (nearest === undefined ? ` Known: ${keysAt(path, value).join(', ')}.` : ` Did you mean \`${nearest}\`?`),
      );
    }
  }
  return new GavelError('invalid_config', `${origin}: ${sentences.join('\n')}`, {
    fields: { origin, key: first?.key ?? '', line: first?.line ?? null, nearest: first?.nearest ?? null },
    cause: error,
  });
}
