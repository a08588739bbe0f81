/**
 * The quickstart's rows, made by index while training asks for them. A thread of its own composes them, and they are kept:
 * composing a pair costs as much as training on it, and stages pass over their items many times.
 */
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import type { EvaluationItem, EvaluationSet, Evaluator } from '../recipes/evaluate.js';
import type { EmojiBank } from './bank.js';
import { Composer } from './composer.js';
import { makePair, type JudgePair, type PairOptions, type Verdict } from './pair.js';
import type { RowForm, RowRequest } from './row-maker.js';
import type { CellWords } from './scene.js';
import { markTrace, parseTrace } from './traces.js';

/** Every data set of one seed. */
export class QuickstartData implements AsyncDisposable {
  readonly #bank: EmojiBank;
  readonly #seed: number;
  readonly #composer: Composer;

  constructor(bank: EmojiBank, seed: number) {
    this.#bank = bank;
    this.#seed = seed;
    this.#composer = new Composer(bank, seed);
  }

  /** Ends the composing thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#composer[Symbol.asyncDispose]();
  }

  get words(): readonly string[] {
    return this.#bank.words;
  }

  /** Single pictures of the seen artists with their words. */
  looks(size: number): Dataset {
    return this.#dataset('look', size, (index) => this.#seen('look', index, 'look'));
  }

  /**
   * Gold rationales of the seen artists, and every `directEvery`-th item also asked without chain of thought (0: none).
   */
  rationales(items: number, directEvery: number): Dataset {
    const direct = directEvery === 0 ? 0 : Math.floor(items / directEvery);
    return this.#dataset('cold-start', items + direct, (index) =>
      index < items
        ? this.#seen('cold-start', index, 'rationale')
        : this.#seen('cold-start', (index - items) * directEvery, 'direct'),
    );
  }

  /** Labelled pairs of all artists, without rationales. */
  pool(size: number): Dataset {
    return this.#dataset('pool', size, (index) => this.#ofPool(index, 'judge'));
  }

  /** Direct rows of pool items, to keep the answer without chain of thought alive. */
  async poolDirect(indices: readonly number[], every: number): Promise<Row[]> {
    if (every === 0) return [];
    const asked = indices.filter((_, position) => position % every === 0);
    const made = await Promise.all(asked.map((index) => this.#composer.compose(this.#ofPool(index, 'direct'))));
    return made.flat();
  }

  /** Validation of the judge: seen artists, one order, rationale only. */
  validation(size: number): Evaluator {
    const rows = this.#kept((index) => this.#seen('validation', index, 'judge'));
    const item = async (index: number): Promise<EvaluationItem> => {
      const [row] = await rows(index);
      return { row: row!, unseen: false };
    };
    return this.#judging({ name: 'validation', size, item });
  }

  /** The test: new compositions of seen artists, then of the unseen one; both orders, and without chain of thought. */
  test(seen: number, unseen: number): Evaluator {
    const rows = this.#kept((index) => this.#ofTest(index, seen, 'judge', 'swapped', 'direct'));
    const item = async (index: number): Promise<EvaluationItem> => {
      const [row, swapped, direct] = await rows(index);
      return { row: row!, swapped: swapped!, direct: direct!, unseen: index >= seen };
    };
    return this.#judging({ name: 'test', size: seen + unseen, item });
  }

  /** Item `index` of `test`. */
  testPair(index: number, seen: number): JudgePair {
    const { forms: _forms, ...request } = this.#ofTest(index, seen);
    const options: PairOptions = { ...request, seed: this.#seed, difficulty: 'hard' };
    return makePair(this.#bank, options, request.index);
  }

  /** What single pictures show: every word right, and the share of right words as `perception`. */
  lookTest(seen: number, unseen: number): Evaluator {
    const rows = this.#kept((index) =>
      index < seen
        ? this.#seen('look-test', index, 'look')
        : this.#request('look-test-unseen', index - seen, this.#bank.unseenArtists, 'look'),
    );
    const item = async (index: number): Promise<EvaluationItem> => {
      const [row] = await rows(index);
      return { row: { ...row!, solution: (row!.meta!['cells'] as CellWords).join(' ') }, unseen: index >= seen };
    };
    const wordsOf = (text: string): string[] => text.trim().split(/\s+/);
    return {
      set: { name: 'pictures', size: seen + unseen, item },
      judge: {
        rewards: [],
        verifier: (text, gold) => ({ correct: wordsOf(text).join(' ') === gold, answer: text.trim() || null }),
        hasFormat: (text) => wordsOf(text).length === 4,
      },
      inspect: (text, row) => {
        const said = wordsOf(text);
        const cells = row.meta?.['cells'] as CellWords;
        const perception = cells.filter((word, i) => said[i] === word).length / cells.length;
        return (row.meta?.['artist'] as string) === this.#bank.unseenArtists[0]
          ? { unseenPerception: perception }
          : { perception };
      },
    };
  }

  /** Marks a rationale of a judging row. */
  readonly inspect = (text: string, row: Row): Record<string, number | null> => {
    const { caption, cells } = row.meta as { caption: CellWords; cells: readonly [CellWords, CellWords] };
    const marks = markTrace(text, { caption, cells, verdict: row.solution as Verdict }, this.#bank.words);
    const { perception, cellConsistency, scoreConsistency, verdictConsistency } = marks;
    return { perception, cellConsistency, scoreConsistency, verdictConsistency };
  };

  /** A rationale that follows from itself: marks from words and caption, scores from marks, verdict from scores. */
  readonly isSound = (text: string, row: Row): boolean => {
    const marks = this.inspect(text, row);
    return marks['cellConsistency'] === 1 && marks['scoreConsistency'] === 1 && marks['verdictConsistency'] === 1;
  };

  #judging(set: EvaluationSet): Evaluator {
    const readTotals = (text: string): readonly [number, number] | null => {
      const pictures = parseTrace(text, this.#bank.words)?.pictures;
      return pictures === undefined ? null : [pictures[0].score, pictures[1].score];
    };
    return { set, inspect: this.inspect, readTotals };
  }

  #request(split: string, index: number, artists: readonly string[], ...forms: RowForm[]): RowRequest {
    return { split, index, artists, forms };
  }

  #seen(split: string, index: number, form: RowForm): RowRequest {
    return this.#request(split, index, this.#bank.seenArtists, form);
  }

  #ofPool(index: number, form: RowForm): RowRequest {
    return this.#request('pool', index, this.#bank.artists, form);
  }

  #ofTest(index: number, seen: number, ...forms: RowForm[]): RowRequest {
    return index < seen
      ? this.#request('test', index, this.#bank.seenArtists, ...forms)
      : this.#request('test-unseen', index - seen, this.#bank.unseenArtists, ...forms);
  }

  /** Composes on the first call for an index; the promise itself is kept, so that nothing is composed twice. */
  #kept(requestOf: (index: number) => RowRequest): (index: number) => Promise<Row[]> {
    const made = new Map<number, Promise<Row[]>>();
    return (index) => {
      const known = made.get(index);
      if (known !== undefined) return known;
      const rows = this.#composer.compose(requestOf(index));
      made.set(index, rows);
      return rows;
    };
  }

  #dataset(name: string, size: number, requestOf: (index: number) => RowRequest): Dataset {
    const rows = this.#kept(requestOf);
    const make = async (index: number): Promise<Row> => (await rows(index))[0]!;
    return generatedDataset({ name, size, key: `emoji-judge 1 ${this.#seed}`, make });
  }
}
