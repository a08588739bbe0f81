/** Seeded damage to valid files, and what a parser of outside bytes may answer: success, or an error that names the file. */
import fc from 'fast-check';
import { expect } from 'vitest';
import { GavelError } from '../../src/errors.js';

/** 0..1, all alike: doubles of fast-check are mostly tiny, and would hit the first byte again and again. */
const share = fc.integer({ min: 0, max: 2 ** 20 - 1 }).map((value) => value / 2 ** 20);

interface Damage {
  kind: 'flip' | 'number' | 'cut' | 'drop' | 'repeat' | 'insert';
  /** 0..1 of the file. */
  at: number;
  size: number;
  value: bigint;
}

const odd = [0n, 1n, 0x7fn, 0x80n, 0xffn, 0xffffn, 0x7fffffffn, 0x80000000n, 0xffffffffn, 1n << 40n, (1n << 63n) - 1n];
const damage: fc.Arbitrary<Damage> = fc.record({
  kind: fc.constantFrom('flip', 'flip', 'number', 'number', 'cut', 'drop', 'repeat', 'insert'),
  at: share,
  size: fc.integer({ min: 1, max: 64 }),
  value: fc.oneof(fc.constantFrom(...odd), fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
});

/** A few damages to a file; most lie in its first `header` bytes. */
export const damages = fc.array(damage, { minLength: 1, maxLength: 4 });

function applyOne(bytes: Buffer, { kind, at, size, value }: Damage, header: number): Buffer {
  const place = Math.floor(at * Math.min(bytes.length, header));
  if (kind === 'cut') return bytes.subarray(0, place);
  if (kind === 'drop') return Buffer.concat([bytes.subarray(0, place), bytes.subarray(place + size)]);
  const part = bytes.subarray(place, place + size);
  if (kind === 'repeat') return Buffer.concat([bytes.subarray(0, place), part, bytes.subarray(place)]);
  const number = Buffer.alloc(8);
  number.writeBigUInt64LE(value);
  if (kind === 'insert') return Buffer.concat([bytes.subarray(0, place), number, bytes.subarray(place)]);
  const changed = Buffer.from(bytes);
  if (kind === 'number') number.copy(changed, place);
  else if (place < changed.length) changed[place] = Number(value & 0xffn);
  return changed;
}

export const mutate = (bytes: Buffer, list: readonly Damage[], header = Infinity): Buffer =>
  list.reduce((so, one) => applyOne(so, one, header), bytes);

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** Values that no writer meant. */
export const oddValues: readonly Json[] = [
  ...[null, true, '', 'x', 'constructor', '__proto__', '(a+)+$', '[', [], {}, [[]], [null]],
  ...[0, 1, -1, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 32, 2 ** 53, 1e15, 4096],
];

/** Replacements inside a JSON value: which place (0..1 of all), and by what. */
export const jsonChanges = fc.array(
  fc.record({
    at: share,
    value: fc.oneof(fc.constantFrom(...oddValues), fc.integer() as fc.Arbitrary<Json>),
    how: fc.constantFrom('replace', 'replace', 'replace', 'remove', 'rename'),
  }),
  { minLength: 1, maxLength: 3 },
);

interface Place {
  parent: Record<string, Json> | Json[];
  key: string;
}

function places(value: Json, found: Place[]): Place[] {
  if (typeof value !== 'object' || value === null) return found;
  const parent = value as Record<string, Json>;
  // Long lists (a vocabulary) have their first entries changed, so that the other parts get their share.
  for (const key of Object.keys(parent).slice(0, 40)) {
    found.push({ parent, key });
    places(parent[key]!, found);
  }
  return found;
}

export function mutateJson(text: string, changes: readonly { at: number; value: Json; how: string }[]): string {
  const root = { root: JSON.parse(text) as Json };
  for (const { at, value, how } of changes) {
    const all = places(root, []);
    if (all.length === 0) break;
    const { parent, key } = all[Math.min(all.length - 1, Math.floor(at * all.length))]!;
    const object = parent as Record<string, Json>;
    if (how === 'rename' && !Array.isArray(parent)) object[`${key}x`] = object[key]!;
    if (how === 'replace') object[key] = value;
    else if (Array.isArray(parent)) parent.splice(Number(key), 1);
    else delete object[key];
  }
  return JSON.stringify(root.root ?? null);
}

/** Fails on anything but success or a GavelError that names one of `names`, and on what takes too long or too much. */
export async function checkOutcome(work: () => unknown, names: readonly string[]): Promise<'ok' | 'refused'> {
  const startedMs = performance.now();
  const before = process.memoryUsage.rss();
  let outcome: 'ok' | 'refused' = 'ok';
  try {
    await work();
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    expect(['internal'], error.message).not.toContain(error.code);
    const said = `${error.message} ${Object.values(error.fields).join(' ')}`;
    expect(
      names.some((name) => said.includes(name)),
      `names none of ${names.join(', ')}: ${said}`,
    ).toBe(true);
    outcome = 'refused';
  }
  expect(performance.now() - startedMs).toBeLessThan(5000);
  expect(process.memoryUsage.rss() - before).toBeLessThan(600e6);
  return outcome;
}
