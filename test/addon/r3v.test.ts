/** R3V over the real engine, on a judge too small to learn: what its loop promises about items, resuming and weights. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadEmojiBank } from '../../src/emoji-judge/bank.js';
import { QuickstartData } from '../../src/emoji-judge/quickstart-data.js';
import { writeJudgeFolder } from '../../src/emoji-judge/vocabulary.js';
import { createEngine, type Engine, type Model } from '../../src/engine/index.js';
import { train } from '../../src/recipes/job.js';
import type { Judge } from '../../src/recipes/judge.js';
import { markSamples } from '../../src/recipes/mark-samples.js';
import { pipeline } from '../../src/recipes/pipeline.js';
import { Policy } from '../../src/recipes/policy.js';
import { questionSet } from '../../src/recipes/question-set.js';
import { dpoPairs } from '../../src/recipes/r3v-pairs.js';
import type { R3vPrompts } from '../../src/recipes/r3v-prompts.js';
import { r3v, type R3vParts, type R3vResult } from '../../src/recipes/r3v.js';
import { selectEvaluation, type SelectEvaluationParts } from '../../src/recipes/select-evaluation.js';
import type { MarkedSample } from '../../src/runs/sample-pool.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { temporaryFolder } from './model-fixture.js';

const shape = {
  hiddenSize: 32,
  intermediateSize: 48,
  numLayers: 1,
  numHeads: 2,
  numKvHeads: 2,
  ropeTheta: 100,
  mropeSection: [2, 3, 3],
  visionHiddenSize: 32,
  visionIntermediateSize: 48,
  visionDepth: 1,
  visionNumHeads: 2,
  initializerRange: 0.05,
} as const;

/** Right or wrong by the text alone, so that a tiny model has both; every text is its own answer. */
const judge: Judge = {
  rewards: [],
  verifier: (text) => ({ correct: [...text].length % 3 !== 0, answer: text }),
  hasFormat: () => true,
};
const prompts: R3vPrompts = {
  direct: ({ completion: _, ...row }) => ({ ...row, prompt: (row.prompt as string).replace('judge', 'answer') }),
  rationale: ({ completion: _, ...row }) => row,
  refine: ({ completion: _, ...row }, solution) => ({ ...row, prompt: `${row.prompt as string} no ${solution}` }),
  select: ({ completion: _, ...row }, candidates) => ({
    ...row,
    prompt: `${row.prompt as string} | ${candidates.join(' | ')}`,
  }),
  answer: (answer) => answer,
};
/** The candidates of every select prompt, as asked. */
function spiedPrompts(): { prompted: string[][]; spying: R3vPrompts } {
  const prompted: string[][] = [];
  const select: R3vPrompts['select'] = (question, candidates) => {
    prompted.push([...candidates]);
    return prompts.select(question, candidates);
  };
  return { prompted, spying: { ...prompts, select } };
}

const training = {
  steps: 2,
  batchSize: 4,
  learningRate: 1e-2,
  checkpointEvery: 1,
  schedule: { kind: 'constant', warmupSteps: 0 },
} as const;

let engine: Engine;
let data: QuickstartData;
beforeAll(async () => {
  engine = await createEngine({ device: 'cpu', threads: 2 });
  data = new QuickstartData(await loadEmojiBank(), 3);
});
afterAll(async () => {
  await data[Symbol.asyncDispose]();
  await engine.dispose();
});

async function withPolicy<T>(use: (policy: Policy, model: Model) => Promise<T>): Promise<T> {
  const folder = join(await temporaryFolder(), 'model');
  await writeJudgeFolder(folder, data.words, shape);
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;
  await using model = await engine.createModel(config, { seed: 5, companions: folder });
  await using policy = await Policy.open(model, folder, { threads: 1 });
  return await use(policy, model);
}

const small = { iterations: 2, maxNewTokens: 6, chunkItems: 2, sft: training };
const parts = (options: R3vParts['options'] = {}): R3vParts => ({
  data: data.pool(5),
  judge,
  prompts,
  options: { ...small, ...options },
});
const validation = (): R3vParts['validation'] => ({
  set: questionSet(data.pool(3), { prompts }),
  judge,
  options: { maxNewTokens: 6 },
});

async function weightsOf(model: Model): Promise<number[]> {
  const names = model.tensors().map(({ name }) => name);
  const all = await Promise.all(names.map((name) => model.readTensor(name)));
  return all.flatMap((tensor) => [...tensor]);
}

async function poolOf(run: RunFolder): Promise<MarkedSample[]> {
  const text = await readFile(join(run.path, 'samples', 'pool.jsonl'), 'utf8');
  return text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as MarkedSample);
}

/** Without what the clock decides. */
const timeless = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (key, inner: unknown) =>
      key === 'seconds' || key === 'tokensPerSecond' ? undefined : inner,
    ),
  );

/** Runs a recipe in a folder of its own and looks at what it left. */
async function ran<T>(
  options: Partial<R3vParts>,
  look: (result: R3vResult, model: Model, run: RunFolder) => Promise<T>,
): Promise<T> {
  const folder = await temporaryFolder();
  return withPolicy(async (policy, model) => {
    await using run = await RunFolder.open(join(folder, 'run'), {});
    const result = await train(policy, r3v({ ...parts(), ...options }), { run }).result;
    return await look(result.value!, model, run);
  });
}

describe('a whole run', () => {
  it('draws, marks and makes the items that the pool says', async () => {
    await ran({ warmUp: data.rationales(4, 0), validation: validation()! }, async (result, _, run) => {
      const pool = await poolOf(run);
      expect(pool).toHaveLength(5 * 3 * 2);
      expect(new Set(pool.map(({ item, recency, sample }) => `${item} ${recency} ${sample}`)).size).toBe(30);
      expect(result.iterations.map(({ iteration }) => iteration)).toEqual([0, 1, 2]);
      expect(result.iterations[0]).toMatchObject({ bootstrap: null, items: { direct: 5, warmUp: 4, selfCot: 0 } });
      for (const { iteration, bootstrap, items, training: trained } of result.iterations.slice(1)) {
        const newest = pool.filter(({ recency }) => recency === iteration);
        expect(new Set(newest.map(({ checkpoint }) => checkpoint))).toEqual(new Set([bootstrap!.weights]));
        expect(bootstrap!.accuracy).toBeCloseTo(newest.filter(({ correct }) => correct).length / 15);
        const expected = { direct: 5, warmUp: 4, selfCot: 0, refine: 0, selectA: 0, selectB: 0 };
        for (const item of new Set(pool.map((sample) => sample.item))) {
          const samples = pool.filter((sample) => sample.item === item && sample.recency <= iteration);
          const right = samples.filter(({ correct }) => correct).length;
          const wrong = samples.length - right;
          expected.selfCot += Number(right >= 1);
          expected.refine += Number(right >= 1 && wrong >= 1);
          expected.selectA += Number(right >= 2 && wrong >= 1);
          expected.selectB += Number(right >= 1 && wrong >= 2);
        }
        expect(items).toEqual(expected);
        expect(Math.min(...Object.values(expected))).toBeGreaterThan(0);
        expect(trained!.steps).toBe(2);
      }
      const [, first, second] = result.iterations;
      expect(first!.bootstrap!.weights).not.toBe(second!.bootstrap!.weights);
      const accuracies = result.iterations.map(({ accuracy }) => accuracy!);
      expect(result.kept).toBe(accuracies.indexOf(Math.max(...accuracies)));
      const pairs = await dpoPairs({
        pool: run.samples,
        data: data.pool(5),
        weights: [first!.bootstrap!.weights, second!.bootstrap!.weights],
        prompts,
      });
      expect(pairs).toHaveLength(second!.items!.refine);
      for (const { first: right, second: wrong, preference } of pairs) {
        expect(preference).toBe('first');
        expect(right.prompt).toEqual(wrong.prompt);
        expect([judge.verifier(right.completion!, '').correct, judge.verifier(wrong.completion!, '').correct]).toEqual([
          true,
          false,
        ]);
      }
    });
  });
});

describe('resuming', () => {
  it('after an abort in warm-up, bootstrap and training ends as an undisturbed run, and samples nothing twice', async () => {
    const folder = await temporaryFolder();
    const recipe = () => r3v({ ...parts(), warmUp: data.rationales(4, 0), validation: validation()! });
    const whole = await withPolicy(async (policy, model) => {
      await using run = await RunFolder.open(join(folder, 'whole'), {});
      const { value } = await train(policy, recipe(), { run }).result;
      return { value: timeless(value), weights: await weightsOf(model), pool: await poolOf(run) };
    });
    // Where each process dies: the stage, and how many of its steps or chunks were done.
    const deaths: [stage: string, done: number][] = [
      ['r3v/warm-up', 1],
      ['r3v/bootstrap-1', 2],
      ['r3v/train-1', 1],
      ['r3v/bootstrap-2', 4],
      ['r3v/train-2', 2],
    ];
    for (const [process, death] of [...deaths, undefined].entries()) {
      await withPolicy(async (policy, model) => {
        await using run = await RunFolder.open(join(folder, 'parts'), {}, { resume: process > 0 });
        const before = process === 0 ? [] : await poolOf(run).catch(() => []);
        const drawn: string[] = [];
        const draw = policy.draw.bind(policy);
        policy.draw = (rows, options, onCompletion) => {
          drawn.push(...(options.temperature === 0 ? [] : rows.map(({ id }) => `${options.seed} ${id}`)));
          return draw(rows, options, onCompletion);
        };
        const controller = new AbortController();
        const job = train(policy, recipe(), { run, signal: controller.signal });
        const died = async (): Promise<void> => {
          for await (const event of job) {
            const done = event.type === 'step-end' ? event.step : event.type === 'sampling-progress' ? event.done : 0;
            if (death !== undefined && done === death[1] && (event as { stage?: string }).stage === death[0])
              controller.abort(new Error('killed'));
          }
        };
        if (death === undefined) await died();
        else await expect(died()).rejects.toThrow('killed');
        const held = new Set(before.map(({ seed, item }) => `${seed} ${item}`));
        expect(drawn.filter((key) => held.has(key))).toEqual([]);
        if (death !== undefined) return;
        expect(timeless((await job.result).value)).toEqual(whole.value);
        expect(await weightsOf(model)).toEqual(whole.weights);
        const key = ({ item, checkpoint, sample, text }: MarkedSample): string =>
          `${item} ${checkpoint} ${sample} ${text}`;
        expect((await poolOf(run)).map(key).sort()).toEqual(whole.pool.map(key).sort());
      });
    }
  });
});

describe('where an iteration starts', () => {
  /** Steps too small to move a weight that is not 0, so that where training began shows. */
  const still = { ...training, learningRate: 1e-30 };
  const settled = async (model: Model): Promise<number[]> =>
    (await weightsOf(model)).map((weight) => (Math.abs(weight) < 1e-20 ? 0 : weight));

  it('is the base by default, whatever the warm-up did, and the iteration before on demand', async () => {
    const base = await withPolicy((_, model) => settled(model));
    const parts = { warmUp: data.rationales(4, 0) };
    const options = { iterations: 1, maxNewTokens: 6, sft: still, warmUp: training };
    const reset = await ran({ ...parts, options }, (_, model) => settled(model));
    expect(reset).toEqual(base);
    const continued = await ran({ ...parts, options: { ...options, start: 'previous' } }, (_, model) => settled(model));
    const distilled = await ran({ ...parts, options: { ...options, iterations: 0 } }, (_, model) => settled(model));
    expect(continued).toEqual(distilled);
    expect(continued).not.toEqual(base);
  });

  it('needs a run folder to go back', async () => {
    await withPolicy(async (policy) => {
      await expect(train(policy, r3v(parts())).result).rejects.toMatchObject({ code: 'invalid_config' });
      const free = parts({ start: 'previous', iterations: 1 });
      expect((await train(policy, r3v(free)).result).value).toMatchObject({ kept: 1 });
    });
  });
});

describe('baselines and stopping', () => {
  it('STaR trains on self-CoT alone, and ablations leave their kind out', async () => {
    const star = { ...small, iterations: 1, refine: false, select: false, direct: false };
    await ran({ options: star }, async ({ iterations }) => {
      expect(iterations[1]!.items).toMatchObject({ direct: 0, warmUp: 0, refine: 0, selectA: 0, selectB: 0 });
      expect(iterations[1]!.items!.selfCot).toBeGreaterThan(0);
    });
  });

  it('without iterating, one iteration draws all samples', async () => {
    await ran({ options: { ...small, iterate: false } }, async ({ iterations }, _, run) => {
      expect(iterations).toHaveLength(2);
      const pool = await poolOf(run);
      expect(pool).toHaveLength(5 * 6);
      expect(new Set(pool.map(({ checkpoint }) => checkpoint)).size).toBe(1);
    });
  });

  it('stops where validation does not rise, and keeps the best weights', async () => {
    const base = await withPolicy((_, model) => weightsOf(model));
    const never: Judge = { ...judge, verifier: () => ({ correct: false, answer: null }) };
    const flat = { ...validation()!, judge: never };
    await ran({ validation: flat, options: { ...small, iterations: 5, patience: 2 } }, async (result, model) => {
      expect(result).toMatchObject({ kept: 0, plateaued: true });
      expect(result.iterations).toHaveLength(3);
      expect(await weightsOf(model)).toEqual(base);
    });
    expect(() => r3v({ ...parts(), options: { patience: 1 } })).toThrow(
      expect.objectContaining({ code: 'invalid_config' }),
    );
  });

  it('trains nothing when nothing is right and nothing else is there', async () => {
    const never: Judge = { ...judge, verifier: () => ({ correct: false, answer: null }) };
    await ran({ judge: never, options: { ...small, iterations: 1, direct: false } }, async ({ iterations }) => {
      expect(iterations[1]).toMatchObject({ training: null, accuracy: null, items: { selfCot: 0 } });
    });
  });
});

describe('selection at test time', () => {
  const evaluation = (options: SelectEvaluationParts['options'] = {}): SelectEvaluationParts => ({
    data: data.pool(4),
    judge,
    prompts,
    options: { sizes: [1, 3, 5], maxNewTokens: 6, chunkItems: 3, ...options },
  });

  it('compares select, majority and pass@1 over the same samples, item by item', async () => {
    const folder = await temporaryFolder();
    await withPolicy(async (policy) => {
      await using run = await RunFolder.open(join(folder, 'run'), {});
      const job = train(policy, selectEvaluation(evaluation()), { run });
      const told: unknown[] = [];
      for await (const event of job) if (event.type === 'selection-end') told.push(event.result);
      const value = (await job.result).value!;
      const { marks: _, ...rates } = value;
      expect(told).toEqual([rates]);
      const pool = await poolOf(run);
      const ids = [...new Set(pool.map(({ item }) => item).filter((id) => !/ (select@\d|refine)$/.test(id)))];
      expect(pool).toHaveLength(4 * (5 + 2 + 1));
      expect(value).toMatchObject({ count: 4, unparsedRate: 0, selectUnparsedRate: 0 });
      const mean = (marks: number[]): number => marks.reduce((sum, mark) => sum + mark, 0) / marks.length;
      for (const { size, passAt1, majority, select, passAtN } of value.atSize) {
        const drawn = ids.map((id) => pool.filter(({ item, sample }) => item === id && sample < size));
        const right = drawn.map((samples) => mean(samples.map(({ correct }) => Number(correct))));
        expect(passAt1.value).toBeCloseTo(mean(right));
        expect(passAtN.value).toBe(mean(right.map((share) => Number(share > 0))));
        expect(Object.keys(value.marks[`select@${size}`]!).sort()).toEqual([...ids].sort());
        if (size === 1) expect([majority.value, select!.value]).toEqual([passAt1.value, passAt1.value]);
        else {
          const asked = pool.filter(({ item }) => item.endsWith(` select@${size}`));
          expect(asked.every(({ temperature }) => temperature === 0)).toBe(true);
          expect(select!.value).toBe(mean(asked.map(({ correct }) => Number(correct))));
        }
      }
      const { before, after, gain } = value.refine!;
      expect(gain).toBeCloseTo(after.value - before.value);
      expect(before.value).toBe(mean(Object.values(value.marks['passAt1@1']!)));
    });
  });

  it('puts the first N samples into the prompt, in their order, and continues where it was cut', async () => {
    const folder = await temporaryFolder();
    const { prompted, spying } = spiedPrompts();
    let whole: unknown;
    for (const process of [0, 1, 2]) {
      await withPolicy(async (policy) => {
        const path = join(folder, process === 0 ? 'whole' : 'parts');
        await using run = await RunFolder.open(path, {}, { resume: process === 2 });
        const before = process === 2 ? run.samples.size : 0;
        const job = train(policy, selectEvaluation({ ...evaluation(), prompts: spying }), { run });
        for await (const event of job) {
          if (process === 1 && event.type === 'sampling-progress' && event.purpose.endsWith('select@3'))
            void job.stop();
        }
        const { stopped, value } = await job.result;
        expect(stopped).toBe(process === 1);
        if (process === 0) {
          whole = value;
          const pool = await poolOf(run);
          const [first] = Object.keys(value!.marks['select@3']!);
          const texts = pool
            .filter(({ item }) => item === first)
            .sort((a, b) => a.sample - b.sample)
            .map(({ text }) => text);
          expect(prompted.map(({ length }) => length)).toEqual([3, 3, 3, 3, 5, 5, 5, 5]);
          // Prompts are made as items finish, in any order.
          expect(prompted.slice(0, 4)).toContainEqual(texts.slice(0, 3));
        }
        if (process === 2) {
          expect(value).toEqual(whole);
          expect(before).toBeGreaterThanOrEqual(4 * 5);
        }
      });
    }
  });

  it('chooses in rounds where a prompt takes fewer: the chosen candidate meets the next ones', async () => {
    const folder = await temporaryFolder();
    const { prompted, spying } = spiedPrompts();
    const parityOf = (text: string): string => String([...text].length % 2);
    const parity: Judge = { ...judge, verifier: (text) => ({ correct: text.includes('o'), answer: parityOf(text) }) };
    await withPolicy(async (policy) => {
      await using run = await RunFolder.open(join(folder, 'run'), {});
      const parts = { ...evaluation({ sizes: [3, 4, 5], candidates: 3 }), prompts: spying, judge: parity };
      const { value } = await train(policy, selectEvaluation(parts), { run }).result;
      expect(prompted.map(({ length }) => length)).toEqual([3, 3, 3, 3, 2, 2, 2, 2, 3, 3, 3, 3]);
      const pool = await poolOf(run);
      // Prompts of a round come in the order in which their completions finished.
      const rounds = [prompted.slice(0, 4), prompted.slice(4, 8), prompted.slice(8)];
      const ids = Object.keys(value!.marks['select@5']!);
      let chosenLater = 0;
      ids.forEach((id) => {
        const drawn = pool.filter(({ item }) => item === id).sort((a, b) => a.sample - b.sample);
        const texts = drawn.map(({ text }) => text);
        const answer = parityOf(pool.find(({ item }) => item === `${id} select@3`)!.text);
        const first = texts.slice(0, 3);
        const even = first.filter((text) => parityOf(text) === '0');
        const most = even.length > 1 ? '0' : '1';
        const chosen =
          first.find((text) => parityOf(text) === answer) ?? first.find((text) => parityOf(text) === most)!;
        chosenLater += Number(chosen !== first[0]);
        expect(rounds[0]).toContainEqual(first);
        expect(rounds[1]).toContainEqual([chosen, texts[3]]);
        expect(rounds[2]).toContainEqual([chosen, texts[3], texts[4]]);
        const last = pool.find(({ item }) => item === `${id} select@5`)!;
        expect(value!.marks['select@5']![id]).toBe(Number(last.correct));
      });
      expect(chosenLater).toBeGreaterThan(0);
    });
  });

  it('leaves out what is not asked, and refuses sizes that are none', async () => {
    await withPolicy(async (policy) => {
      const recipe = selectEvaluation(evaluation({ sizes: [2], select: false, refine: false }));
      const { value } = await train(policy, recipe).result;
      expect(value).toMatchObject({ atSize: [{ size: 2, select: null }], refine: null, selectUnparsedRate: null });
    });
    for (const sizes of [[], [0], [1.5]]) {
      expect(() => selectEvaluation(evaluation({ sizes }))).toThrow(
        expect.objectContaining({ code: 'invalid_argument' }),
      );
    }
  });
});

describe('the marked pool', () => {
  it('refuses samples of the same weights that were drawn another way', async () => {
    const folder = await temporaryFolder();
    await withPolicy(async (policy) => {
      await using run = await RunFolder.open(join(folder, 'run'), {});
      const twice = pipeline([
        {
          name: 'twice',
          make: () => ({
            kind: 'twice',
            config: {},
            run: async (context) => {
              const options = { data: data.pool(2), judge, pool: run.samples, weights: 'w', seed: 1, temperature: 1 };
              const draw = { ...options, samples: 2, maxNewTokens: 4, chunkItems: 2 };
              await markSamples(context, draw);
              const more = await markSamples(context, { ...draw, samples: 5 });
              await markSamples(context, { ...draw, temperature: 0.5 });
              return more;
            },
          }),
        },
      ]);
      await expect(train(policy, twice, { run }).result).rejects.toMatchObject({ code: 'invalid_config' });
      const pool = await poolOf(run);
      expect(pool.map(({ sample }) => sample)).toEqual([0, 1, 0, 1, 2, 3, 4, 2, 3, 4]);
    });
  });
});
