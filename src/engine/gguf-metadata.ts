/** Values of a GGUF file's metadata by key and type, with errors that name file and key. */
import { GavelError } from '../errors.js';
import { corruptFile } from './checkpoint-files.js';
import type { GgufHeader, GgufValue } from './gguf.js';

/** `key` of the metadata: undefined when absent; another type than `what` throws 'corrupt_checkpoint'. */
function typed<T extends GgufValue>(
  { metadata, path }: GgufHeader,
  key: string,
  what: string,
  is: (value: GgufValue) => value is T,
): T | undefined {
  const value = metadata.get(key);
  if (value === undefined) return undefined;
  if (is(value)) return value;
  throw corruptFile(path, `key "${key}" is not ${what}`);
}

const isCount = (value: GgufValue): value is number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
const isFinite = (value: GgufValue): value is number => typeof value === 'number' && Number.isFinite(value);
const isText = (value: GgufValue): value is string => typeof value === 'string';
const isTexts = (value: GgufValue): value is string[] => Array.isArray(value);
const isBoolean = (value: GgufValue): value is boolean => typeof value === 'boolean';
const isNumbers = (value: GgufValue): value is Exclude<GgufValue, string | number | boolean | string[]> =>
  ArrayBuffer.isView(value);

export const ggufText = (header: GgufHeader, key: string): string | undefined => typed(header, key, 'a string', isText);
export const ggufCount = (header: GgufHeader, key: string): number | undefined =>
  typed(header, key, 'a count', isCount);
export const ggufNumber = (header: GgufHeader, key: string): number | undefined =>
  typed(header, key, 'a finite number', isFinite);
export const ggufBoolean = (header: GgufHeader, key: string): boolean | undefined =>
  typed(header, key, 'a boolean', isBoolean);
export const ggufTexts = (header: GgufHeader, key: string): string[] | undefined =>
  typed(header, key, 'a list of strings', isTexts);
export const ggufNumbers = (header: GgufHeader, key: string): ArrayLike<number> | undefined =>
  typed(header, key, 'a list of numbers', isNumbers);

/** The value, or 'corrupt_checkpoint' for a key that is not there. */
export function required<T>(value: T | undefined, { path }: GgufHeader, key: string): T {
  if (value !== undefined) return value;
  throw corruptFile(path, `key "${key}" is missing`);
}

/** 'unsupported' with file, key and what was found. */
export function unsupportedGguf({ path }: GgufHeader, key: string, what: string, received: unknown): GavelError {
  const text = JSON.stringify(received) ?? 'undefined';
  return new GavelError(
    'unsupported',
    `Expected ${what} for "${key}" of "${path}" but received ${text}. Take a Hugging Face checkpoint of the model instead.`,
    { fields: { path, key, received: text } },
  );
}

/** The shortest decimal that is this float32: 1e-5, where the file's bits read 0.000009999999747378752. */
export function shortDecimal(value: number): number {
  for (let digits = 1; digits <= 9; digits++) {
    const rounded = Number(value.toPrecision(digits));
    if (Math.fround(rounded) === Math.fround(value)) return rounded;
  }
  return value;
}
