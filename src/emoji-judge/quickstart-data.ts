/**
 * The quickstart's rows, made by index while training asks for them. Composing pictures is plain JavaScript, so makers
 * take turns with the event loop.
 */
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import type { EvaluationSet, Evaluator } from '../recipes/evaluate.js';
import { Pace } from '../recipes/pace.js';
import type { EmojiBank } from './bank.js';
import { directRow, judgeRow, lookRow } from './items.js';
import { makePair, swapOrder, type JudgePair, type PairOptions, type Verdict } from './pair.js';
import { makeLook } from './perception.js';
import type { CellWords } from './scene.js';
import { markTrace } from './traces.js';

/**
 * `make` one after the other, with a turn of the event loop whenever 5 ms have passed. What was made is kept: composing a
 * pair costs as much as training on it, and stages pass over their items many times.
 */
export function paced<T>(make: (index: number) => T): (index: number) => Promise<T> {
  const pace = new Pace();
  const made = new Map<number, T>();
  let last: Promise<unknown> = Promise.resolve();
  return (index) => {
    const mine = last.then(async () => {
      const known = made.get(index);
      if (known !== undefined) return known;
      await pace.breathe();
      const row = make(index);
      made.set(index, row);
      return row;
    });
    last = mine.catch(() => undefined);
    return mine;
  };
}

/** Every data set of one seed. */
export class QuickstartData {
  readonly #bank: EmojiBank;
  readonly #seed: number;

  constructor(bank: EmojiBank, seed: number) {
    this.#bank = bank;
    this.#seed = seed;
  }

  get words(): readonly string[] {
    return this.#bank.words;
  }

  /** A hard pair of a split; `artists` are the seen ones unless said otherwise. */
  pair(split: string, index: number, artists: readonly string[] = this.#bank.seenArtists): JudgePair {
    const options: PairOptions = { seed: this.#seed, split, artists, difficulty: 'hard' };
    return makePair(this.#bank, options, index);
  }

  /** Single pictures of the seen artists with their words. */
  looks(size: number): Dataset {
    const options = { seed: this.#seed, split: 'look', artists: this.#bank.seenArtists };
    return this.#dataset('look', size, (index) => lookRow(makeLook(this.#bank, options, index)));
  }

  /**
   * Gold rationales of the seen artists, and every `directEvery`-th item also asked without chain of thought (0: none).
   */
  rationales(items: number, directEvery: number): Dataset {
    const direct = directEvery === 0 ? 0 : Math.floor(items / directEvery);
    return this.#dataset('cold-start', items + direct, (index) =>
      index < items
        ? judgeRow(this.pair('cold-start', index), true)
        : directRow(this.pair('cold-start', (index - items) * directEvery)),
    );
  }

  /** Labelled pairs of all artists, without rationales. */
  pool(size: number): Dataset {
    return this.#dataset('pool', size, (index) => judgeRow(this.#poolPair(index), false));
  }

  /** Direct rows of pool items, to keep the answer without chain of thought alive. */
  async poolDirect(indices: readonly number[], every: number): Promise<Row[]> {
    if (every === 0) return [];
    const make = paced((index: number) => directRow(this.#poolPair(index)));
    return Promise.all(indices.filter((_, position) => position % every === 0).map(make));
  }

  /** Validation of the judge: seen artists, one order, rationale only. */
  validation(size: number): Evaluator {
    const item = paced((index: number) => ({ row: judgeRow(this.pair('validation', index), false), unseen: false }));
    return this.#judging({ name: 'validation', size, item });
  }

  /** The test: new compositions of seen artists, then of the unseen one; both orders, and without chain of thought. */
  test(seen: number, unseen: number): Evaluator {
    const item = paced((index: number) => {
      const pair = this.testPair(index, seen);
      return {
        row: judgeRow(pair, false),
        swapped: judgeRow(swapOrder(pair), false),
        direct: directRow(pair),
        unseen: index >= seen,
      };
    });
    return this.#judging({ name: 'test', size: seen + unseen, item });
  }

  /** Item `index` of `test`. */
  testPair(index: number, seen: number): JudgePair {
    return index < seen ? this.pair('test', index) : this.pair('test-unseen', index - seen, this.#bank.unseenArtists);
  }

  /** What single pictures show: every word right, and the share of right words as `perception`. */
  lookTest(seen: number, unseen: number): Evaluator {
    const item = paced((index: number) => {
      const isUnseen = index >= seen;
      const artists = isUnseen ? this.#bank.unseenArtists : this.#bank.seenArtists;
      const options = { seed: this.#seed, split: isUnseen ? 'look-test-unseen' : 'look-test', artists };
      const look = makeLook(this.#bank, options, isUnseen ? index - seen : index);
      return { row: { ...lookRow(look), solution: look.cells.join(' ') }, unseen: isUnseen };
    });
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
    return { set, inspect: this.inspect };
  }

  #poolPair(index: number): JudgePair {
    return this.pair('pool', index, this.#bank.artists);
  }

  #dataset(name: string, size: number, make: (index: number) => Row): Dataset {
    return generatedDataset({ name, size, key: `emoji-judge 1 ${this.#seed}`, make: paced(make) });
  }
}
