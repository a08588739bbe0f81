/**
 * Decoded Parquet values to what JSON would have given: missing instead of null, numbers for 64-bit integers, names for
 * class labels, and a token for every picture, whose bytes lie beside the record (embedded.ts).
 */
import { embeddedToken } from './embedded.js';

/** A record and the pictures inside it, in the order of their tokens. */
export interface PlainRecord {
  value: Record<string, unknown>;
  embedded: Uint8Array[];
}

/** A feature as `datasets` describes it in the file's metadata under the key "huggingface". */
export type Feature = { readonly [key: string]: unknown } | readonly unknown[] | undefined;

/**
 * `features` describes the columns; `hidden` names the columns whose picture bytes were not read: each of their pictures gives
 * an empty array.
 */
export function plainRecord(
  record: Readonly<Record<string, unknown>>,
  features: Readonly<Record<string, Feature>> = {},
  hidden: ReadonlySet<string> = new Set(),
): PlainRecord {
  const embedded: Uint8Array[] = [];
  const value: Record<string, unknown> = {};
  const embed = (bytes: Uint8Array): string => embeddedToken(embedded.push(bytes) - 1);
  for (const [column, content] of Object.entries(record)) {
    const plain = plainValue(content, features[column], hidden.has(column), embed);
    if (plain !== undefined) define(value, column, plain);
  }
  return { value, embedded };
}

function plainValue(value: unknown, feature: Feature, hidden: boolean, embed: (bytes: Uint8Array) => string): unknown {
  if (value === null || value === undefined) return undefined;
  if (value instanceof Uint8Array) return embed(value);
  if (typeof value === 'bigint' || typeof value === 'number') return plainNumber(value, feature);
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? undefined : value.toISOString();
  if (ArrayBuffer.isView(value))
    return plainValue([...(value as unknown as Iterable<unknown>)], feature, hidden, embed);
  if (Array.isArray(value)) {
    return value.map((item: unknown) => plainValue(item, itemFeature(feature), hidden, embed) ?? null);
  }
  if (typeof value !== 'object') return value;
  const fields = value as Record<string, unknown>;
  const picture = pictureOf(fields, hidden);
  if (picture instanceof Uint8Array) return embed(picture);
  if (picture !== undefined) return picture.path;
  const rows = listOfFields(fields, feature);
  if (rows !== undefined) return plainValue(rows, feature, hidden, embed);
  const plain: Record<string, unknown> = {};
  for (const [name, content] of Object.entries(fields)) {
    const inner = plainValue(content, fieldFeature(feature, name), hidden, embed);
    if (inner !== undefined) define(plain, name, inner);
  }
  return plain;
}

function define(target: Record<string, unknown>, name: string, value: unknown): void {
  // A column may be called so.
  if (name !== '__proto__') target[name] = value;
  else Object.defineProperty(target, name, { value, enumerable: true, configurable: true, writable: true });
}

/** Integers stay exact: one that a number cannot hold becomes its digits. */
function plainNumber(value: bigint | number, feature: Feature): unknown {
  const exact = typeof value === 'number' || Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
  if (typeof exact === 'string' || !isClassLabel(feature)) return exact;
  return feature.names[exact] ?? exact;
}

function isClassLabel(feature: Feature): feature is { names: readonly string[] } {
  return isRecord(feature) && feature['_type'] === 'ClassLabel' && Array.isArray(feature['names']);
}

/** struct<bytes, path>: the bytes where there are any, else the path; undefined for any other struct. */
function pictureOf(fields: Record<string, unknown>, hidden: boolean): Uint8Array | { path: unknown } | undefined {
  const names = Object.keys(fields);
  if (hidden && names.length === 1 && names[0] === 'path') return new Uint8Array(0);
  if (names.length !== 2 || !names.includes('bytes') || !names.includes('path')) return undefined;
  const { bytes, path } = fields;
  if (bytes instanceof Uint8Array) return bytes;
  return bytes === null || bytes === undefined ? { path: path ?? undefined } : undefined;
}

/** A sequence of structs may be stored as a struct of lists; `datasets` says so in its features. */
function listOfFields(fields: Record<string, unknown>, feature: Feature): Record<string, unknown>[] | undefined {
  if (!isRecord(feature) || feature['_type'] !== 'Sequence') return undefined;
  const lists = Object.entries(fields).filter((entry): entry is [string, unknown[]] => Array.isArray(entry[1]));
  const length = Math.max(0, ...lists.map(([, list]) => list.length));
  return Array.from({ length }, (_, index) => Object.fromEntries(lists.map(([name, list]) => [name, list[index]])));
}

function itemFeature(feature: Feature): Feature {
  if (Array.isArray(feature)) return feature[0] as Feature;
  return isRecord(feature) ? (feature['feature'] as Feature) : undefined;
}

const fieldFeature = (feature: Feature, name: string): Feature =>
  isRecord(feature) && Object.hasOwn(feature, name) ? (feature[name] as Feature) : undefined;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** The features in a file's metadata; none where it has none or they are no JSON. */
export function featuresOf(metadata: readonly { key: string; value?: string }[] = []): Record<string, Feature> {
  const text = metadata.find(({ key }) => key === 'huggingface')?.value;
  if (text === undefined) return {};
  try {
    const parsed = JSON.parse(text) as { info?: { features?: unknown } } | null;
    const features = parsed?.info?.features;
    return isRecord(features) ? (features as Record<string, Feature>) : {};
  } catch {
    return {};
  }
}
