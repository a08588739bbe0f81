/** The quickstart's data sets and evaluators. */
import type { Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import type { EvaluationItem, EvaluationSet, Evaluator } from '../recipes/evaluate.js';
import type { EmojiBank } from './bank.js';
import { makePair, type JudgePair, type PairOptions, type Verdict } from './pair.js';
import type { RowForm, RowRequest } from './row-maker.js';
import { RowSource } from './row-source.js';
import type { CellWords } from './scene.js';
import { markTrace, parseTrace } from './traces.js';

/** Every data set of one seed. */
export class QuickstartData implements AsyncDisposable {
  readonly #bank: EmojiBank;
  readonly #seed: number;
  readonly #poolArtists: readonly string[];
  readonly #source: RowSource;

  /** `poolArtists`: whose pictures the labelled pool shows; default: all, those without rationales too. */
  constructor(bank: EmojiBank, seed: number, poolArtists = bank.artists) {
    this.#bank = bank;
    this.#seed = seed;
    this.#poolArtists = poolArtists;
    this.#source = new RowSource(bank, seed);
  }

  /** Ends the composing thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source[Symbol.asyncDispose]();
  }

  get words(): readonly string[] {
    return this.#bank.words;
  }

  /** Single pictures of the seen artists with their words. */
  looks(size: number): Dataset {
    return this.#source.dataset('look', size, (index) => this.#seen('look', index, 'look'));
  }

  /**
   * Gold rationales of the seen artists, and every `directEvery`-th item also asked without chain of thought (0: none).
   */
  rationales(items: number, directEvery: number): Dataset {
    const direct = directEvery === 0 ? 0 : Math.floor(items / directEvery);
    return this.#source.dataset('cold-start', items + direct, (index) =>
      index < items
        ? this.#seen('cold-start', index, 'rationale')
        : this.#seen('cold-start', (index - items) * directEvery, 'direct'),
    );
  }

  /** Labelled pairs without rationales. */
  pool(size: number): Dataset {
    return this.#source.dataset('pool', size, (index) => this.#ofPool(index, 'judge'));
  }

  /** Direct rows of pool items, to keep the answer without chain of thought alive. */
  async poolDirect(indices: readonly number[], every: number): Promise<Row[]> {
    if (every === 0) return [];
    const asked = indices.filter((_, position) => position % every === 0);
    const made = await Promise.all(asked.map((index) => this.#source.compose(this.#ofPool(index, 'direct'))));
    return made.flat();
  }

  /** Validation of the judge: seen artists, one order, rationale only. */
  validation(size: number): Evaluator {
    const rows = this.#source.kept((index) => this.#seen('validation', index, 'judge'));
    const item = async (index: number): Promise<EvaluationItem> => {
      const [row] = await rows(index);
      return { row: row!, unseen: false };
    };
    return this.#judging({ name: 'validation', size, item });
  }

  /** The test: new compositions of seen artists, then of the unseen one; both orders, and without chain of thought. */
  test(seen: number, unseen: number): Evaluator {
    const rows = this.#source.kept((index) => this.#ofTest(index, seen, 'judge', 'swapped', 'direct'));
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
    const rows = this.#source.kept((index) =>
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
    return this.#request('pool', index, this.#poolArtists, form);
  }

  #ofTest(index: number, seen: number, ...forms: RowForm[]): RowRequest {
    return index < seen
      ? this.#request('test', index, this.#bank.seenArtists, ...forms)
      : this.#request('test-unseen', index - seen, this.#bank.unseenArtists, ...forms);
  }
}
