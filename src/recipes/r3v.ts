/**
 * R3V (Cheng et al. 2024, "Vision-Language Models Can Self-Improve Reasoning via Reflection"): sample solutions, mark them by
 * their answers, and train on the right ones, on refining the wrong ones and on selecting among both; again and again, from
 * the base weights. Every step is a stage of its own, so a run killed anywhere continues and samples nothing twice.
 */
import type { Dataset } from '../data/dataset.js';
import { parseOptions } from '../engine/parse-options.js';
import { expected } from '../errors.js';
import { SamplePool } from '../runs/sample-pool.js';
import type { RecipeContext } from './context.js';
import { mappedDataset } from './dataset-part.js';
import { evaluate, type EvaluationResult, type Evaluator } from './evaluate.js';
import type { Recipe } from './job.js';
import { defaultJudge, type Judge } from './judge.js';
import { markSamples, type MarkResult } from './mark-samples.js';
import { r3vMixture, type MixtureCounts } from './r3v-mixture.js';
import { r3vOptionsSchema, type R3vOptions, type ResolvedR3vOptions } from './r3v-options.js';
import { r3vPrompts, type R3vPrompts } from './r3v-prompts.js';
import { seededWord } from './seeded.js';
import { sft, type SftResult } from './sft.js';

export interface R3vParts {
  /** Questions with gold answers, without rationales. */
  data: Dataset;
  /** Questions with a distilled rationale as `completion`. Without them there is no warm-up: for a base that reasons. */
  warmUp?: Dataset;
  /** Marks solutions; default: strict tags. */
  judge?: Judge;
  prompts?: R3vPrompts;
  /** After the warm-up (or of the base) and after each iteration. `questionSet` makes one of questions. */
  validation?: Evaluator;
  options?: R3vOptions;
}

/** Samples of one bootstrap, and the weights that drew them. */
export type Bootstrap = MarkResult & { weights: string };

export interface R3vIteration {
  /** 0 is the warm-up, or the base without one. */
  iteration: number;
  /** Drawn with the weights of the iteration before; null for iteration 0. */
  bootstrap: Bootstrap | null;
  /** Rows of each kind in the mixture; null where nothing was trained. */
  items: MixtureCounts | null;
  training: SftResult | null;
  /** Validation accuracy of the iteration's weights. */
  accuracy: number | null;
}

export interface R3vResult {
  iterations: R3vIteration[];
  /** Iteration whose weights were kept. */
  kept: number;
  /** True when validation had stopped rising before the last iteration. */
  plateaued: boolean;
}

type Trained = Pick<R3vIteration, 'items' | 'training' | 'accuracy'>;

export function r3v(parts: R3vParts): Recipe<R3vResult> {
  const options = parseOptions(r3vOptionsSchema, parts.options ?? {}, 'options');
  if (options.patience !== undefined && parts.validation === undefined) {
    throw expected('invalid_config', 'patience', 'a validation set', undefined, 'A plateau is seen in validations.');
  }
  return {
    kind: 'r3v',
    config: { data: parts.data.name, warmUp: parts.warmUp?.name ?? null, ...options },
    budgetSeconds: options.budgetSeconds,
    run: (context) => new R3vRun(context, parts, options).run(),
  };
}

/** The algorithm over one context. */
class R3vRun {
  readonly #context: RecipeContext;
  readonly #parts: R3vParts;
  readonly #options: ResolvedR3vOptions;
  readonly #pool: SamplePool;
  readonly #prompts: R3vPrompts;
  readonly #stage: string;
  readonly #iterations: R3vIteration[] = [];

  constructor(context: RecipeContext, parts: R3vParts, options: ResolvedR3vOptions) {
    this.#context = context;
    this.#parts = parts;
    this.#options = options;
    this.#pool = context.run?.samples ?? SamplePool.inMemory();
    this.#prompts = parts.prompts ?? r3vPrompts();
    this.#stage = context.stage;
  }

  async run(): Promise<R3vResult> {
    const { iterations, iterate, patience = Infinity } = this.#options;
    await this.#keepBase();
    await this.#warmUp();
    const last = iterate ? iterations : Math.min(1, iterations);
    let plateaued = false;
    for (let t = 1; t <= last && !plateaued; t++) {
      const bootstrap = await this.#stageOf(`bootstrap-${t}`, this.#bootstrap(t));
      const trained = await this.#stageOf(`train-${t}`, this.#train(t, bootstrap.weights));
      this.#finish({ iteration: t, bootstrap, ...trained });
      plateaued = t < last && t - this.#best >= patience;
    }
    if (plateaued) this.#context.note('Validation stopped rising; so does training.', { iteration: this.#best });
    const kept = this.#kept;
    if (kept !== this.#iterations.length - 1) await this.#context.loadStep(this.#stepOf(kept));
    return { iterations: this.#iterations, kept, plateaued };
  }

  /** Iteration 0. Without distilled rationales the base itself, which is validated like the others. */
  async #warmUp(): Promise<void> {
    const { warmUp, validation } = this.#parts;
    const unchanged: Trained = { items: null, training: null, accuracy: null };
    if (warmUp !== undefined) {
      this.#finish({ iteration: 0, bootstrap: null, ...(await this.#stageOf('warm-up', this.#train(0))) });
    } else if (validation !== undefined) {
      const accuracy = accuracyOf(await this.#stageOf('base', evaluate(validation)));
      this.#finish({ iteration: 0, bootstrap: null, ...unchanged, accuracy });
    } else {
      this.#finish({ iteration: 0, bootstrap: null, ...unchanged });
    }
  }

  /** Draws and marks solutions of every question with the weights of the iteration before. */
  #bootstrap(t: number): Recipe<Bootstrap> {
    const { iterate, iterations, samplingBudgetSeconds: budgetSeconds } = this.#options;
    const { data, judge = defaultJudge } = this.#parts;
    const asked = mappedDataset(data, data.name, (question) => this.#prompts.rationale(question));
    return {
      kind: 'bootstrap',
      config: {},
      run: async (context) => {
        const { weights } = context.progress<{ weights: string }>() ?? { weights: context.weightsName };
        const marked = await markSamples(context, {
          ...this.#options,
          data: asked,
          judge,
          pool: this.#pool,
          weights,
          samples: this.#options.samples * (iterate ? 1 : iterations),
          // Weights that agree on a question must not therefore draw the same solutions.
          seed: seededWord(this.#options.seed, t),
          recency: t,
          budgetSeconds,
          progress: () => ({ weights }),
        });
        return { weights, ...marked };
      },
    };
  }

  /** Trains on direct answers, warm-up rationales and, from iteration 1 on, the items of all samples so far. */
  #train(t: number, newest?: string): Recipe<Trained> {
    const { sft: training, warmUp = training, weights: kindWeights, start } = this.#options;
    const { data, validation } = this.#parts;
    const options = t === 0 ? warmUp : training;
    const base = this.#context.startStep!;
    const drawn = this.#iterations.flatMap(({ bootstrap }) => (bootstrap === null ? [] : [bootstrap.weights]));
    return {
      kind: 'r3v-train',
      config: {},
      budgetSeconds: options.budgetSeconds,
      run: async (context) => {
        const mixture = await r3vMixture({
          ...this.#options,
          name: `${data.name} iteration ${t}`,
          data,
          warmUp: this.#parts.warmUp,
          prompts: this.#prompts,
          pool: this.#pool,
          weights: newest === undefined ? [] : [...drawn, newest],
          kindWeights,
          signal: context.signal,
        });
        const items = mixture.counts;
        context.note(`The mixture of iteration ${t}: ${describe(items)}.`, { iteration: t, ...items });
        if (mixture.data === undefined) return { items, training: null, accuracy: null };
        // A resumed training stands in its own checkpoint; a new one begins where the paper begins.
        const isNew = context.progress() === undefined;
        if (isNew && t > 0 && start === 'base') await context.loadStep(base);
        const recipe = sft({ data: mixture.data, options, ...(validation === undefined ? {} : { validation }) });
        const result = await recipe.run(context);
        return { items, training: result, accuracy: accuracyOf(result.validation) };
      },
    };
  }

  /** The weights the stage begins with, kept until it ends: every iteration is trained from them. */
  async #keepBase(): Promise<void> {
    const { iterations, start, keep } = this.#options;
    const returns = iterations > 0 && (start === 'base' || (keep === 'best' && this.#parts.validation !== undefined));
    if (returns && this.#context.run === undefined) {
      throw expected(
        'invalid_config',
        'start',
        'a run folder',
        'no run folder',
        "R3V goes back to checkpoints. Give `train` a run, or set start: 'previous' and keep: 'last'.",
      );
    }
    if (this.#context.progress() === undefined) await this.#context.checkpoint(0, {}, { pin: true });
  }

  #stageOf<R>(name: string, recipe: Recipe<R>): Promise<R> {
    return this.#context.runStage(`${this.#stage}/${name}`, recipe);
  }

  #finish(iteration: R3vIteration): void {
    this.#iterations.push(iteration);
    this.#context.keepSteps([this.#context.startStep!, this.#stepOf(this.#best)]);
  }

  /** Run-wide step of the checkpoint that holds an iteration's weights. */
  #stepOf(iteration: number): number {
    const name = iteration === 0 ? 'warm-up' : `train-${iteration}`;
    return this.#context.stageState(`${this.#stage}/${name}`)?.endStep ?? this.#context.startStep!;
  }

  /** Iteration of the best validation, the first of equals; without validation the newest. */
  get #best(): number {
    const accuracies = this.#iterations.map(({ accuracy }) => accuracy ?? -1);
    const highest = Math.max(...accuracies);
    return highest < 0 ? accuracies.length - 1 : accuracies.indexOf(highest);
  }

  get #kept(): number {
    return this.#options.keep === 'best' ? this.#best : this.#iterations.length - 1;
  }
}

const accuracyOf = (result: Pick<EvaluationResult, 'accuracy' | 'unseenAccuracy'> | null): number | null =>
  result === null ? null : (result.accuracy ?? result.unseenAccuracy);

const describe = (counts: MixtureCounts): string =>
  Object.entries(counts)
    .map(([kind, count]) => `${count} ${kind}`)
    .join(', ');
