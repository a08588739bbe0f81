/** Options checked by their zod schema; what is wrong becomes one typed error that names the option. */
import type { z } from 'zod';
import { GavelError } from '../errors.js';
import { knownKeys } from '../schema/known-keys.js';
import { nearestName } from '../schema/nearest.js';

function show(value: unknown): string {
  if (value === undefined) return 'undefined';
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'number' || typeof value === 'bigint') return String(value);
  if (typeof value === 'symbol') return 'a symbol';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const at = (value: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>((place, key) => (place as Record<PropertyKey, unknown> | undefined)?.[key], value);

const dotted = (path: readonly PropertyKey[]): string =>
  path.map((key) => (typeof key === 'number' ? `[${key}]` : `.${String(key)}`)).join('');

/**
 * `value` as the schema resolves it, defaults filled in. `name` is what the caller calls it, e.g. 'options'.
 * Errors: 'invalid_argument' with the first problem as fields and every problem in the message.
 */
export function parseOptions<T extends z.ZodType>(schema: T, value: unknown, name: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const keysAt = knownKeys(schema);
  const sentences = parsed.error.issues.flatMap((issue) => {
    const place = `${name}${dotted(issue.path)}`;
    if (issue.code !== 'unrecognized_keys') {
      const why = issue.message.replace(/\.$/, '');
      return [`Expected a valid \`${place}\` but received ${show(at(value, issue.path))}: ${why}.`];
    }
    const known = keysAt(issue.path, value);
    return issue.keys.map((key) => {
      const nearest = nearestName(key, known);
      const hint =
        nearest === undefined
          ? known.length > 0
            ? ` Known: ${known.join(', ')}.`
            : ''
          : ` Did you mean \`${nearest}\`?`;
      return `Expected a known option but received \`${place}.${key}\`.${hint}`;
    });
  });
  const first = parsed.error.issues[0];
  throw new GavelError('invalid_argument', sentences.join('\n'), {
    fields: { name: `${name}${dotted(first?.path ?? [])}`, received: show(at(value, first?.path ?? [])) },
    cause: parsed.error,
  });
}
