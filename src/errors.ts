/**
 * The one error family of the package. Codes are closed and equal to the native enum (a test compares them);
 * messages follow "Expected X for `name` but received Y. What to do."
 */
export const errorCodes = [
  'invalid_argument',
  'invalid_config',
  'bad_data',
  'prompt_too_long',
  'image_unreadable',
  'image_count_mismatch',
  'corrupt_checkpoint',
  'tokenizer_mismatch',
  'io',
  'disk_full',
  'permission_denied',
  'out_of_memory',
  'non_finite',
  'unsupported',
  'device_unavailable',
  'binary_missing',
  'gate_refused',
  'aborted',
  'disposed',
  'internal',
] as const;

export type ErrorCode = (typeof errorCodes)[number];
export type ErrorFields = Readonly<Record<string, string | number | boolean | null>>;

const marker = Symbol.for('gavel-rl.error');

/** Every error this package throws on purpose. `fields` holds the data of the message; `cause` what led to it. */
export class GavelError extends Error {
  readonly code: ErrorCode;
  readonly fields: ErrorFields;
  readonly [marker] = true;

  constructor(code: ErrorCode, message: string, options: { fields?: ErrorFields; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'GavelError';
    this.code = code;
    this.fields = options.fields ?? {};
  }

  /** True for an error of this family, also when it comes from another copy of the package or another realm. */
  static is(value: unknown): value is GavelError {
    return typeof value === 'object' && value !== null && (value as Record<symbol, unknown>)[marker] === true;
  }
}

/** "Expected `expected` for `name` but received `received`. `advice`", with the three parts kept as fields. */
export function expected(
  code: ErrorCode,
  name: string,
  what: string,
  received: unknown,
  advice = '',
  fields: ErrorFields = {},
): GavelError {
  const shown = typeof received === 'string' ? JSON.stringify(received) : String(received);
  const message = `Expected ${what} for \`${name}\` but received ${shown}.${advice ? ` ${advice}` : ''}`;
  return new GavelError(code, message, { fields: { name, expected: what, received: shown, ...fields } });
}
