/**
 * Several data sets as one: each sampled and weighted, in order, with ids that stay distinct. Everything depends on the
 * sources, their order and their seeds alone, so cursors resume. Rows and pairs alike: the source says how one is read.
 */
import { createHash } from 'node:crypto';
import { GavelError } from '../errors.js';
import { checkIndex, checkNotEmpty } from './dataset.js';
import { freeBlockRows, indexIn, type Locality } from './local-order.js';
import { randomIndices, sampledIndex, sampleOf, sampleSize, type Sample } from './sampling.js';

/** A data set that can be part of a mixture. `read` gives its row or pair with ids changed as `rename` says. */
export interface MixtureSource<T> {
  name: string;
  size: number;
  fingerprint: string;
  locality?: Locality | undefined;
  /** One number for each id, to see whether sources have ids in common. */
  idHashes: ArrayLike<number>;
  read: (index: number, rename: (id: string) => string) => Promise<T>;
}

/** How much of a source is taken. */
export interface MixturePart<T> {
  source: MixtureSource<T>;
  /** As samplingSchema says; "all" by default. */
  sampling?: string;
  /** How often each row comes in an epoch, 1 by default; of 0.5 a seeded half, of 2.5 all twice and a half once more. */
  weight?: number;
  /** Key of random samples and of the rows that the fraction of a weight takes; 0 by default. */
  seed?: number;
}

/** One pass over a sample of a source: a weight of 2.5 makes three of them. */
interface Run {
  source: MixtureSource<unknown>;
  sample: Sample;
  /** Positions in the sample; all of them where it is undefined. */
  chosen: Int32Array | undefined;
  /** Which pass it is, from 0. */
  copy: number;
  prefix: string;
}

/** The mixture by index. */
export interface Mixture<T> {
  size: number;
  fingerprint: string;
  locality: Locality | undefined;
  read: (index: number) => Promise<T>;
}

/**
 * Mixes sources. Ids: a source that has an id in common with another one gets its name as a prefix ("name/id"), numbered where
 * names are equal; a row that comes again gets "#2", "#3". Errors: 'invalid_argument' for samples and weights that cannot be.
 */
export function mixture<T>(name: string, parts: readonly MixturePart<T>[]): Mixture<T> {
  const prefixes = prefixesOf(parts.map(({ source }) => source));
  const runs = parts.flatMap((part, index) => runsOf(part, prefixes[index]!));
  const sizes = runs.map(runSize);
  const starts = [0];
  for (const size of sizes) starts.push(starts.at(-1)! + size);
  const size = starts.at(-1)!;
  checkNotEmpty(name, size);
  const described = parts.map(({ source, sampling = 'all', weight = 1, seed = 0 }, index) => {
    const keyed = sampling.startsWith('random') || weight % 1 !== 0;
    return [source.fingerprint, source.size, sampling, weight, keyed ? seed : 0, prefixes[index]!];
  });
  const isPlain =
    parts.length === 1 && sampleSize(runs[0]!.sample) === parts[0]!.source.size && (parts[0]!.weight ?? 1) === 1;
  return {
    size,
    // One whole file is itself: a run may gain a second file, and lose it again.
    fingerprint: isPlain
      ? parts[0]!.source.fingerprint
      : createHash('sha256').update(JSON.stringify(described)).digest('hex').slice(0, 32),
    locality: localityOf(runs),
    read: async (index) => {
      checkIndex(name, index, size);
      const at = indexIn(starts, index);
      const { source, sample, chosen, copy, prefix } = runs[at]!;
      const position = index - starts[at]!;
      const suffix = copy === 0 ? '' : `#${copy + 1}`;
      const row = sampledIndex(sample, chosen?.[position] ?? position);
      return (source as MixtureSource<T>).read(row, (id) => `${prefix}${id}${suffix}`);
    },
  };
}

function runsOf<T>({ source, sampling = 'all', weight = 1, seed = 0 }: MixturePart<T>, prefix: string): Run[] {
  const sample = sampleOf(sampling, source.name, source.size, seed);
  const count = sampleSize(sample);
  const whole = Math.floor(weight);
  const rest = Math.round((weight - whole) * count);
  if (!(weight > 0) || !Number.isFinite(weight) || whole * count + rest < 1) {
    throw new GavelError(
      'invalid_argument',
      `Expected a number above 0 for \`weight\` that takes at least one of ${count} rows of "${source.name}" but received ` +
        `${weight}. Raise it, or leave the source out.`,
      { fields: { name: 'weight', dataset: source.name, size: count } },
    );
  }
  const runs = Array.from({ length: whole }, (_, copy): Run => ({ source, sample, chosen: undefined, copy, prefix }));
  // The seed is moved, so that the rows of a random sample and those of its fraction are chosen apart.
  if (rest > 0) runs.push({ source, sample, chosen: randomIndices(rest, count, seed + 1), copy: whole, prefix });
  return runs;
}

const runSize = ({ sample, chosen }: Run): number => chosen?.length ?? sampleSize(sample);

function prefixesOf(sources: readonly MixtureSource<unknown>[]): string[] {
  const owner = new Map<number, number>();
  const clashes = new Set<number>();
  for (const [index, { idHashes }] of sources.entries()) {
    for (let at = 0; at < idHashes.length; at++) {
      const hash = idHashes[at]!;
      const other = owner.get(hash);
      if (other === undefined) owner.set(hash, index);
      else if (other !== index) clashes.add(other).add(index);
    }
  }
  const counts = new Map<string, number>();
  return sources.map(({ name }, index) => {
    if (!clashes.has(index)) return '';
    const base = name.replace(/\.(jsonl?|parquet)$/, '');
    const count = (counts.get(base) ?? 0) + 1;
    counts.set(base, count);
    return count === 1 ? `${base}/` : `${base}-${count}/`;
  });
}

/** Blocks of all runs; sources that are cheap to read anywhere are cut into blocks of a like number of rows. */
function localityOf(runs: readonly Run[]): Locality | undefined {
  const blocked = runs.filter(({ source }) => source.locality !== undefined);
  if (blocked.length === 0) return undefined;
  const lists = runs.map((run) =>
    run.source.locality === undefined ? undefined : sampledBlocks(run, run.source.locality),
  );
  const counts = lists.flatMap((list) => list?.rows ?? []);
  const typical = Math.max(1, Math.round(counts.reduce((sum, rows) => sum + rows, 0) / Math.max(1, counts.length)));
  const rows: number[] = [];
  const bytes: number[] = [];
  for (const [index, list] of lists.entries()) {
    const blocks = list ?? freeBlocks(runSize(runs[index]!), Math.min(typical, freeBlockRows));
    for (const [block, count] of blocks.rows.entries()) {
      rows.push(count);
      bytes.push(blocks.bytes[block]!);
    }
  }
  return { rows, bytes };
}

function sampledBlocks(run: Run, { rows, bytes }: Locality): { rows: number[]; bytes: number[] } {
  const starts = [0];
  for (const count of rows) starts.push(starts.at(-1)! + count);
  const counts = new Map<number, number>();
  const size = runSize(run);
  for (let position = 0; position < size; position++) {
    const block = indexIn(starts, sampledIndex(run.sample, run.chosen?.[position] ?? position));
    counts.set(block, (counts.get(block) ?? 0) + 1);
  }
  return { rows: [...counts.values()], bytes: [...counts.keys()].map((block) => bytes[block]!) };
}

function freeBlocks(size: number, rows: number): { rows: number[]; bytes: number[] } {
  const count = Math.ceil(size / rows);
  return {
    rows: Array.from({ length: count }, (_, block) => Math.min(rows, size - block * rows)),
    bytes: Array.from({ length: count }, () => 0),
  };
}
