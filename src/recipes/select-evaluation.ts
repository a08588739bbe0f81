/**
 * R3V's test time: draw N solutions of a question, put them into the select prompt and take its greedy answer, against pass@1
 * and majority vote over the same samples, and refining the first sample. Everything drawn is in the marked pool, so that an
 * evaluation that is cut short continues.
 */
import { z } from 'zod';
import { generatedDataset, type Dataset } from '../data/dataset.js';
import type { Row } from '../data/rows.js';
import { parseOptions } from '../engine/parse-options.js';
import { SamplePool, type MarkedSample, type SampleEntry } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import { mappedDataset } from './dataset-part.js';
import { wilsonInterval } from '../evaluation/interval.js';
import type { Recipe } from './job.js';
import { defaultJudge, type Judge } from './judge.js';
import { drawSettingsOf, type DrawSettings } from './draw-options.js';
import { markSamples, type MarkOptions } from './mark-samples.js';
import { r3vDrawSchema } from './r3v-options.js';
import { r3vPrompts, type R3vPrompts } from './r3v-prompts.js';
import { majorityOf, sameVote, voteMarks } from './select-votes.js';

export const selectEvaluationOptionsSchema = z
  .strictObject({
    sizes: z
      .array(z.number().int().min(1))
      .min(1)
      .default([1, 3, 5, 7])
      .describe('Numbers of candidates (N) to compare at; each takes the first N samples.'),
    ...r3vDrawSchema.omit({ samples: true }).shape,
    selectTokens: z
      .number()
      .int()
      .min(1)
      .optional()
      .describe('Longest answer to a select prompt. Default: as `maxNewTokens`.'),
    select: z.boolean().default(true).describe('Ask the select prompt.'),
    candidates: z
      .number()
      .int()
      .min(2)
      .optional()
      .describe(
        'Most candidates in one select prompt; of more, the chosen one meets the next ones in further prompts. ' +
          'Default: all in one, as in the paper. For a model that selects badly among more than it was trained on.',
      ),
    refine: z.boolean().default(true).describe('Ask to refine the first sample.'),
    seed: z.number().int().min(0).default(0).describe('Key of the sampling.'),
  })
  .describe('Test-time selection against pass@1 and majority vote.');

export type SelectEvaluationOptions = z.input<typeof selectEvaluationOptionsSchema>;
type ResolvedOptions = z.output<typeof selectEvaluationOptionsSchema>;

export interface SelectEvaluationParts {
  /** Questions with gold answers. */
  data: Dataset;
  judge?: Judge;
  prompts?: R3vPrompts;
  /** What makes two answers one vote. Default: text without case and blanks. */
  canonical?: (answer: string) => string;
  options?: SelectEvaluationOptions;
}

/** A rate with its 95 % Wilson interval over items. */
export interface Rate {
  value: number;
  low: number;
  high: number;
}

export interface SelectEvaluationResult {
  name: string;
  count: number;
  atSize: {
    size: number;
    passAt1: Rate;
    majority: Rate;
    /** Null where select was not asked; at size 1 the sample itself. */
    select: Rate | null;
    /** Share of items with a right sample: what a perfect selector would get. */
    passAtN: Rate;
  }[];
  /** The first sample before and after refining; `fixed` and `broken` are shares of the wrong and of the right ones. */
  refine: { before: Rate; after: Rate; gain: number; fixed: number | null; broken: number | null } | null;
  /** Shares of samples and of answers to select prompts in which no answer was found. */
  unparsedRate: number;
  selectUnparsedRate: number | null;
  /** Marks by system and item id, for paired tests: 'passAt1@3', 'majority@3', 'select@3', 'first', 'refine'. */
  marks: Record<string, Record<string, number>>;
}

/** The evaluation as a recipe; it trains nothing. */
export function selectEvaluation(parts: SelectEvaluationParts): Recipe<SelectEvaluationResult> {
  const options = parseOptions(selectEvaluationOptionsSchema, parts.options ?? {}, 'options');
  return {
    kind: 'select-evaluation',
    config: { data: parts.data.name, ...options },
    run: (context) => new SelectEvaluation(context, parts, options).run(),
  };
}

interface Tally {
  asked: number;
  unparsed: number;
}

class SelectEvaluation {
  readonly #context: RecipeContext;
  readonly #parts: SelectEvaluationParts;
  readonly #options: ResolvedOptions;
  readonly #pool: SamplePool;
  readonly #judge: Judge;
  readonly #prompts: R3vPrompts;
  readonly #weights: string;
  readonly #marks: Record<string, Record<string, number>> = {};
  readonly #answers = new Map<string, (string | null)[]>();

  constructor(context: RecipeContext, parts: SelectEvaluationParts, options: ResolvedOptions) {
    this.#context = context;
    this.#parts = parts;
    this.#options = options;
    this.#pool = context.run?.samples ?? SamplePool.inMemory();
    this.#judge = parts.judge ?? defaultJudge;
    this.#prompts = parts.prompts ?? r3vPrompts();
    this.#weights = context.progress<{ weights: string }>()?.weights ?? context.weightsName;
  }

  async run(): Promise<SelectEvaluationResult> {
    const { data } = this.#parts;
    const sizes = [...new Set(this.#options.sizes)].sort((a, b) => a - b);
    const samples: SampleEntry[][] = [];
    const ids: string[] = [];
    let unparsed = 0;
    const asked = mappedDataset(data, data.name, (question) => this.#prompts.rationale(question));
    const { maxNewTokens } = this.#options;
    const draw = { ...drawSettingsOf(this.#options), samples: sizes.at(-1)!, maxNewTokens };
    await this.#draw(asked, draw, async (id, entries) => {
      ids.push(id);
      samples.push([...entries]);
      const records = await this.#read(entries);
      unparsed += records.filter(({ answer }) => answer === null).length;
      for (const size of sizes) {
        const { passAt1, majority, passAtN } = voteMarks(records.slice(0, size), this.#parts.canonical);
        this.#mark(`passAt1@${size}`, id, passAt1);
        this.#mark(`majority@${size}`, id, majority);
        this.#mark(`passAtN@${size}`, id, passAtN);
        if (size === 1) this.#mark('select@1', id, passAt1);
      }
      this.#mark('first', id, Number(records[0]!.correct));
    });
    const select = { asked: 0, unparsed: 0 };
    for (const size of this.#options.select ? sizes.filter((candidates) => candidates > 1) : []) {
      await this.#select(size, ids, samples, select);
    }
    if (this.#options.refine) {
      const prompt = async (index: number): Promise<Row> => {
        const [first] = await this.#read(samples[index]!.slice(0, 1));
        return this.#prompts.refine(await data.row(index), first!.text);
      };
      await this.#ask('refine', ids, { asked: 0, unparsed: 0 }, prompt);
    }
    const summary = {
      name: data.name,
      count: ids.length,
      atSize: sizes.map((size) => ({
        size,
        passAt1: this.#rate(`passAt1@${size}`)!,
        majority: this.#rate(`majority@${size}`)!,
        select: this.#options.select ? this.#rate(`select@${size}`) : null,
        passAtN: this.#rate(`passAtN@${size}`)!,
      })),
      refine: this.#refined(ids),
      unparsedRate: unparsed / (ids.length * sizes.at(-1)!),
      selectUnparsedRate: select.asked === 0 ? null : select.unparsed / select.asked,
    };
    const { stage } = this.#context;
    const marks = this.#marks;
    this.#context.emit({ type: 'selection-end', stage, name: data.name, step: 0, result: summary, marks });
    return { ...summary, marks };
  }

  /** The answer to the select prompt over the first `size` samples; in rounds where they are more than one prompt takes. */
  async #select(size: number, ids: readonly string[], samples: readonly SampleEntry[][], tally: Tally): Promise<void> {
    const { candidates: most = size } = this.#options;
    const { data, canonical = sameVote } = this.#parts;
    let asked = Math.min(most, size);
    let round = samples.map((entries) => entries.slice(0, asked));
    for (;;) {
      const texts = async (index: number): Promise<string[]> =>
        (await this.#read(round[index]!)).map(({ text }) => text);
      const answers = await this.#ask(`select@${asked}`, ids, tally, async (index) =>
        this.#prompts.select(await data.row(index), await texts(index)),
      );
      if (asked === size) return;
      const next = Math.min(asked + most - 1, size);
      const following: SampleEntry[][] = [];
      for (const [index, entries] of round.entries()) {
        const records = await this.#read(entries);
        const answer = answers[index]!;
        const says = (other: string | null): boolean =>
          other !== null && answer !== null && canonical(other) === canonical(answer);
        // An answer that no candidate gives leaves the choice to the majority.
        const chosen = records.find((record) => says(record.answer)) ?? majorityOf(records, canonical) ?? records[0]!;
        following.push([entries[records.indexOf(chosen)]!, ...samples[index]!.slice(asked, next)]);
      }
      round = following;
      asked = next;
    }
  }

  /** A greedy answer of each item to a prompt made of its samples; null where none was found. What was asked once is kept. */
  async #ask(
    system: string,
    ids: readonly string[],
    tally: Tally,
    prompt: (index: number) => Promise<Row>,
  ): Promise<(string | null)[]> {
    const known = this.#answers.get(system);
    if (known !== undefined) return known;
    const answers: (string | null)[] = [];
    this.#answers.set(system, answers);
    const { data } = this.#parts;
    const { maxNewTokens, selectTokens = maxNewTokens } = this.#options;
    const asked = generatedDataset({
      name: `${data.name} ${system}`,
      size: ids.length,
      key: JSON.stringify([data.fingerprint, this.#weights, system]),
      // Its own name in the pool: the same weights hold the item's samples already.
      make: async (index) => ({ ...(await prompt(index)), id: `${ids[index]!} ${system}` }),
    });
    const draw = { samples: 1, temperature: 0, maxNewTokens: system === 'refine' ? maxNewTokens : selectTokens };
    await this.#draw(asked, draw, async (_, entries) => {
      const [record] = await this.#read(entries);
      tally.asked++;
      tally.unparsed += Number(record!.answer === null);
      this.#mark(system, ids[answers.length]!, Number(record!.correct));
      answers.push(record!.answer);
    });
    return answers;
  }

  async #draw(
    data: Dataset,
    draw: DrawSettings & Pick<MarkOptions, 'samples' | 'maxNewTokens'>,
    visit: (id: string, entries: readonly SampleEntry[]) => Promise<void>,
  ): Promise<void> {
    const { seed, chunkItems } = this.#options;
    const weights = this.#weights;
    const options = { ...draw, data, judge: this.#judge, pool: this.#pool, weights, seed, chunkItems };
    const progress = (): unknown => ({ weights });
    await markSamples(this.#context, { ...options, progress, whole: true }, ({ id, samples }) => visit(id, samples));
  }

  #read(entries: readonly SampleEntry[]): Promise<MarkedSample[]> {
    return Promise.all(entries.map((entry) => this.#pool.read(entry)));
  }

  #mark(system: string, id: string, mark: number): void {
    (this.#marks[system] ??= {})[id] = mark;
  }

  #rate(system: string): Rate | null {
    const marks = Object.values(this.#marks[system] ?? {});
    if (marks.length === 0) return null;
    const sum = marks.reduce((total, mark) => total + mark, 0);
    return { value: sum / marks.length, ...wilsonInterval(sum, marks.length) };
  }

  #refined(ids: readonly string[]): SelectEvaluationResult['refine'] {
    const [before, after] = [this.#rate('first'), this.#rate('refine')];
    if (before === null || after === null) return null;
    const share = (was: number, is: number): number | null => {
      const those = ids.filter((id) => this.#marks['first']![id] === was);
      return those.length === 0 ? null : those.filter((id) => this.#marks['refine']![id] === is).length / those.length;
    };
    return { before, after, gain: after.value - before.value, fixed: share(0, 1), broken: share(1, 0) };
  }
}
