/**
 * What one iteration of R3V trains on: direct answers, warm-up rationales and the items of the pool, as one data set whose
 * item counts are the weights of its parts. Texts stay in the pool until a batch asks for them.
 */
import { createHash } from 'node:crypto';
import { generatedDataset, type Dataset } from '../data/dataset.js';
import { localityOfParts } from '../data/local-order.js';
import type { Row } from '../data/rows.js';
import { GavelError } from '../errors.js';
import { goldAnswer } from '../rewards/accuracy.js';
import type { SampleEntry, SamplePool } from '../runs/sample-pool.js';
import { Pace } from '../pace.js';
import { chosenAnswer, itemsOf, type R3vItem, type R3vItemKind, type R3vItemOptions } from './r3v-items.js';
import type { R3vPrompts } from './r3v-prompts.js';
import { nameKey, seededUnit } from '../seeded.js';

export const mixtureKinds = ['direct', 'warmUp', 'selfCot', 'refine', 'selectA', 'selectB'] as const;

export type MixtureKind = (typeof mixtureKinds)[number];

/** Rows of each kind in a mixture. */
export type MixtureCounts = Record<MixtureKind, number>;

export interface MixtureParts extends R3vItemOptions {
  name: string;
  /** Questions with gold answers. */
  data: Dataset;
  /** Questions with a rationale as completion. */
  warmUp: Dataset | undefined;
  /** Ask every question for its answer alone as well. */
  direct: boolean;
  prompts: R3vPrompts;
  pool: SamplePool;
  /** Names of the weights whose samples count: those of every iteration so far. */
  weights: readonly string[];
  /** What a select item is trained to say: the gold answer, or the answer of its chosen correct sample. */
  selectTarget: 'gold' | 'sample';
  /** Times that each kind stands in the mixture; a fraction takes that share of its items, chosen by seed. */
  kindWeights: Readonly<MixtureCounts>;
  signal: AbortSignal;
}

type Item<K extends R3vItemKind> = { kind: K; item: Extract<R3vItem<SampleEntry>, { kind: K }> };

/** What an entry is: a question asked for its answer, a warm-up row, or an item of the pool. */
type Content = { kind: 'direct' | 'warmUp' } | { [K in R3vItemKind]: Item<K> }[R3vItemKind];

type Entry = Content & { index: number; copy: number };

/** The mixture and its counts; no data set when there is nothing to train on. */
export async function r3vMixture(parts: MixtureParts): Promise<{ data: Dataset | undefined; counts: MixtureCounts }> {
  const { name, data, warmUp, pool, weights } = parts;
  const counts = Object.fromEntries(mixtureKinds.map((kind) => [kind, 0])) as MixtureCounts;
  const entries: Entry[] = [];
  const add = (index: number, id: string, content: Content): void => {
    const copies = copiesOf(parts, content.kind, id);
    for (let copy = 0; copy < copies; copy++) entries.push({ ...content, index, copy });
    counts[content.kind] += copies;
  };
  const pace = new Pace();
  for (let index = 0; index < (warmUp?.size ?? 0); index++) {
    parts.signal.throwIfAborted();
    add(index, (await warmUp!.row(index)).id, { kind: 'warmUp' });
    await pace.breathe();
  }
  for (let index = 0; (parts.direct || weights.length > 0) && index < data.size; index++) {
    parts.signal.throwIfAborted();
    const { id } = await data.row(index);
    if (parts.direct) add(index, id, { kind: 'direct' });
    const samples = weights.flatMap((checkpoint) => pool.entries(checkpoint, id));
    for (const item of itemsOf(id, samples, parts)) add(index, id, { kind: item.kind, item } as Content);
    await pace.breathe();
  }
  if (entries.length === 0) return { data: undefined, counts };
  const make = (position: number): Promise<Row> => rowOf(parts, entries[position]!);
  const key = createHash('sha256').update(JSON.stringify([data.fingerprint, warmUp?.fingerprint, weights]));
  for (const entry of entries) key.update(JSON.stringify(entry));
  // Those of the warm-up come first.
  const indicesOf = (isWarmUp: boolean): number[] =>
    entries.flatMap(({ kind, index }) => ((kind === 'warmUp') === isWarmUp ? [index] : []));
  const locality = localityOfParts([
    { locality: warmUp?.locality, indices: indicesOf(true) },
    { locality: data.locality, indices: indicesOf(false) },
  ]);
  return { data: generatedDataset({ name, size: entries.length, key: key.digest('hex'), locality, make }), counts };
}

function copiesOf({ kindWeights, seed }: MixtureParts, kind: MixtureKind, id: string): number {
  const weight = kindWeights[kind];
  const whole = Math.floor(weight);
  return whole + Number(seededUnit(seed, nameKey(kind), nameKey(id)) < weight - whole);
}

async function rowOf(parts: MixtureParts, entry: Entry): Promise<Row> {
  const question = await (entry.kind === 'warmUp' ? parts.warmUp! : parts.data).row(entry.index);
  const row = await trainingRow(parts, entry, question);
  const copy = entry.copy === 0 ? '' : ` ${entry.copy + 1}`;
  return { ...row, id: `${question.id} ${entry.kind}${copy}` };
}

async function trainingRow(parts: MixtureParts, entry: Entry, question: Row): Promise<Row> {
  const { prompts, pool } = parts;
  const text = async (sample: SampleEntry): Promise<string> => (await pool.read(sample)).text;
  switch (entry.kind) {
    case 'warmUp':
      return { ...prompts.rationale(question), completion: distilled(question) };
    case 'direct':
      return { ...prompts.direct(question), completion: prompts.answer(goldAnswer(question)) };
    case 'selfCot':
      return { ...prompts.rationale(question), completion: await text(entry.item.correct) };
    case 'refine': {
      const { correct, wrong } = entry.item;
      return { ...prompts.refine(question, await text(wrong)), completion: await text(correct) };
    }
    default: {
      const candidates = await Promise.all(entry.item.candidates.map(text));
      const completion = prompts.answer(await selectTarget(parts, entry.item.correct, question));
      return { ...prompts.select(question, candidates), completion };
    }
  }
}

function distilled({ id, completion }: Row): string {
  if (completion !== undefined) return completion;
  throw new GavelError(
    'bad_data',
    `Expected a rationale as \`completion\` in warm-up row "${id}" but received none. Add it or leave the row out.`,
    { fields: { id } },
  );
}

/** The answer that a select item is trained to give. Errors: 'bad_data' when a correct sample was marked without an answer. */
async function selectTarget(parts: MixtureParts, correct: readonly SampleEntry[], question: Row): Promise<string> {
  const gold = goldAnswer(question);
  if (parts.selectTarget === 'gold') return gold;
  const answers = await Promise.all(correct.map(async (sample) => (await parts.pool.read(sample)).answer));
  const missing = answers.includes(null);
  if (!missing) return chosenAnswer(answers as string[], gold);
  throw new GavelError(
    'bad_data',
    `Expected an answer with each correct sample of item "${question.id}" but received none. ` +
      "Let the verifier return the answer it read, or set `selectTarget` to 'gold'.",
    { fields: { id: question.id } },
  );
}
