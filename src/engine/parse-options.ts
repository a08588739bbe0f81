/** Options checked by their zod schema; what is wrong becomes one typed error that names the option. */
import type { z } from 'zod';
import { expected, GavelError } from '../errors.js';
import { knownKeys } from '../schema/known-keys.js';
import { nearestName } from '../schema/nearest.js';
import { issueClause, readIssue, showValue, valueAt } from '../schema/read-issue.js';

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
      const { path, text } = readIssue(issue);
      return [
        `Expected a valid \`${name}${dotted(path)}\` but received ${showValue(valueAt(value, path))}: ${issueClause(text)}.`,
      ];
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
    fields: { name: `${name}${dotted(first?.path ?? [])}`, received: showValue(valueAt(value, first?.path ?? [])) },
    cause: parsed.error,
  });
}

/** `signal`, which is an AbortSignal where it is given. Errors: 'invalid_argument'. */
export function checkSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw expected('invalid_argument', 'options.signal', 'an AbortSignal', signal);
}

/** What a call was given, apart: its options as the schema resolves them, and its signal. Errors: as parseOptions. */
export function parseCall<T extends z.ZodType>(
  schema: T,
  options: unknown,
): { signal: AbortSignal | undefined; resolved: z.output<T> } {
  const isObject = typeof options === 'object' && options !== null;
  const { signal, ...given } = isObject ? (options as Record<string, unknown>) : {};
  return { signal: checkSignal(signal), resolved: parseOptions(schema, isObject ? given : options, 'options') };
}
