/**
 * Which rows of a file a mixture takes: "all", "first:N", "end:N" or "random:N", N a number of rows or a share such as "10%"
 * (rounded up, as LLaVA's and UnifiedReward's data lists do it). A number above the size of the file is an error.
 */
import { z } from 'zod';
import { GavelError, expected } from '../errors.js';
import { permutation } from './shuffle-permutation.js';

const pattern = /^(first|end|random):(\d+|\d+(?:\.\d+)?%)$/;

export const samplingSchema = z
  .string()
  .refine((text) => text === 'all' || pattern.test(text), {
    error: 'Expected "all", "first:N", "end:N" or "random:N", N a whole number or a share such as "10%".',
  })
  .describe('Rows to take: all, first:N, end:N or random:N; N is a number of rows or a share such as 10%.');

/** Indices taken of `size` rows, ascending: a start and a count where they are a run, else a list. */
export type Sample = { start: number; count: number } | { indices: Int32Array };

/** Errors: 'invalid_argument' for no rows, more than there are, or a text of another form; `name` is of the data set. */
export function sampleOf(text: string, name: string, size: number, seed = 0): Sample {
  if (text === 'all') return { start: 0, count: size };
  const [, how, amount] = pattern.exec(text) ?? [];
  if (how === undefined || amount === undefined) {
    throw expected('invalid_argument', 'sampling', 'all, first:N, end:N or random:N', text);
  }
  const count = amount.endsWith('%') ? Math.ceil((Number(amount.slice(0, -1)) / 100) * size) : Number(amount);
  if (count < 1 || count > size) {
    throw new GavelError(
      'invalid_argument',
      `Expected 1 to ${size} rows (the size of "${name}") for \`sampling\` but received "${text}", which is ${count}. ` +
        'Take fewer, or "all".',
      { fields: { name: 'sampling', dataset: name, size, count } },
    );
  }
  if (how === 'first') return { start: 0, count };
  if (how === 'end') return { start: size - count, count };
  return { indices: randomIndices(count, size, seed) };
}

/** `count` distinct indices below `size`, chosen by the seed, ascending so that blocks of a file stay together. */
export function randomIndices(count: number, size: number, seed: number): Int32Array {
  const at = permutation(size, seed);
  return Int32Array.from({ length: count }, (_, position) => at(position)).sort();
}

export const sampleSize = (sample: Sample): number => ('indices' in sample ? sample.indices.length : sample.count);

/** The row of the source at a position of the sample. */
export const sampledIndex = (sample: Sample, position: number): number =>
  'indices' in sample ? sample.indices[position]! : sample.start + position;
