/** The DPO recipe over the real engine: what it learns, its reference, ties, being killed, and what it refuses. */
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  generatedPairs,
  pairsFromRows,
  type PairDataset,
  type PairRow,
  type Preference,
} from '../../src/data/pairs.js';
import type { StepEnd } from '../../src/recipes/events.js';
import { dpo, type DpoOptions, type DpoResult } from '../../src/recipes/dpo.js';
import { train } from '../../src/recipes/job.js';
import { RunFolder } from '../../src/runs/run-folder.js';
import { atStep, collect, JudgeFixture, killedAt, stepsOf, weightsOf, type JudgeModel } from './judge-fixture.js';
import { temporaryFolder } from './model-fixture.js';

const fixture = JudgeFixture.ofThisFile();
const base: DpoOptions = { steps: 4, batchSize: 3, learningRate: 3e-3, schedule: { kind: 'constant', warmupSteps: 0 } };

/** Two answers to a question about two pictures; whoever prefers is fond of the first picture. */
function pairs(
  size: number,
  preferenceOf: (index: number) => Preference = (i) => (i % 2 === 0 ? 'first' : 'second'),
): PairDataset {
  const rows = fixture.data.pool(size);
  return generatedPairs({
    name: 'pairs',
    size,
    key: 'test',
    make: async (index) => {
      const row = await rows.row(index);
      const preference = preferenceOf(index);
      const [better, worse] = ['<answer>Image 1 is better</answer>', '<answer>Image 2 is better</answer>'] as const;
      return {
        id: `pair-${index}`,
        first: { ...row, id: `${row.id}/1`, completion: preference === 'second' ? worse : better },
        second: { ...row, id: `${row.id}/2`, completion: preference === 'second' ? better : worse },
        preference,
      };
    },
  });
}

interface Outcome {
  value: DpoResult;
  steps: StepEnd[];
  weights: number[];
}

const outcome = (data: PairDataset, options: DpoOptions = {}, model: JudgeModel = {}): Promise<Outcome> =>
  fixture.withPolicy(async (policy, made) => {
    const job = train(policy, dpo({ data, options: { ...base, ...options } }));
    const steps = stepsOf(await collect(job));
    const { value } = await job.result;
    return { value: value!, steps, weights: await weightsOf(made) };
  }, model);

describe('training', () => {
  it.each<[string, DpoOptions, JudgeModel, number]>([
    ['sigmoid', {}, {}, Math.log(2)],
    ['label smoothing', { labelSmoothing: 0.2 }, {}, Math.log(2)],
    ['ipo', { loss: 'ipo', beta: 0.2 }, {}, 6.25],
    ['an adapter', { learningRate: 3e-2 }, { lora: { rank: 4 } }, Math.log(2)],
  ])('%s: margins are exactly 0 at the start, and grow', async (_, options, model, loss) => {
    const { value, steps } = await outcome(pairs(6), { ...options, steps: 12 }, model);
    expect(steps[0]!.loss).toBeCloseTo(loss, 6);
    for (const name of ['rewards/chosen', 'rewards/rejected', 'rewards/margins']) {
      expect(steps[0]!.metrics[name], name).toBe(0);
    }
    expect(steps[0]!.metrics).toMatchObject({ pairs: 3, ties: 0, pairs_scored: 3 });
    // Six epochs of six pairs: the reference scored each once.
    expect(steps.at(-1)!.metrics).toMatchObject({ pairs_scored: 6 });
    expect(steps[0]!.metrics['logps/chosen']).toBeLessThan(0);
    expect(steps.at(-1)!.loss).toBeLessThan(steps[0]!.loss);
    expect(steps.at(-1)!.metrics['rewards/margins']).toBeGreaterThan(0);
    expect(value).toMatchObject({ steps: 12, accuracy: 1, ties: 0, validation: null, loss: steps.at(-1)!.loss });
  });

  it('the preference decides, not the order: exchanged candidates train the same weights', async () => {
    const one = pairs(4, () => 'first');
    const exchanged: PairDataset = {
      ...one,
      pair: async (index) => {
        const { first, second, ...rest } = await one.pair(index);
        return { ...rest, first: second, second: first, preference: 'second' };
      },
    };
    expect((await outcome(exchanged)).weights).toEqual((await outcome(one)).weights);
  });

  it('validates on the way and at the end', async () => {
    await fixture.withPolicy(async (policy) => {
      const job = train(
        policy,
        dpo({ data: pairs(4), validation: fixture.validation(2), options: { ...base, steps: 3, evaluateEvery: 2 } }),
      );
      const events = await collect(job);
      expect(events.flatMap((event) => (event.type === 'evaluation-end' ? [event.step] : []))).toEqual([2, 3]);
      expect((await job.result).value!.validation).toMatchObject({ count: 2 });
    });
  });
});

describe('ties', () => {
  const data = (): PairDataset => pairs(4, (i) => (i === 2 ? 'tie' : 'first'));

  it('end the run, naming the pair, unless they are to be skipped', async () => {
    const failing = outcome(data(), { batchSize: 4 });
    await expect(failing).rejects.toMatchObject({ code: 'bad_data', fields: { id: 'pair-2' } });
  });

  it('that are skipped are counted; a step of nothing else leaves the weights', async () => {
    const { value, steps } = await outcome(data(), { ties: 'skip', batchSize: 4, steps: 2 });
    expect(value.ties).toBe(2);
    expect(steps.map(({ metrics }) => [metrics['pairs'], metrics['ties']])).toEqual([
      [3, 1],
      [3, 1],
    ]);
    const untouched = await fixture.withPolicy((_policy, model) => weightsOf(model));
    const none = await outcome(
      pairs(2, () => 'tie'),
      { ties: 'skip', batchSize: 2, steps: 1 },
    );
    expect(none.weights).toEqual(untouched);
    expect(none.value).toMatchObject({ loss: null, accuracy: null, ties: 2 });
  });
});

describe('killed', () => {
  it.each<[string, JudgeModel]>([
    ['a whole model', {}],
    ['an adapter', { lora: { rank: 4 } }],
  ])('%s ends with the same weights, bit for bit: the reference is still that of the start', async (_, model) => {
    const config = { recipe: 'dpo' };
    const made = (): ReturnType<typeof dpo> =>
      dpo({ data: pairs(5), options: { ...base, steps: 6, batchSize: 2, checkpointEvery: 2 } });
    const whole = await outcome(pairs(5), { steps: 6, batchSize: 2 }, model);
    const folder = join(await temporaryFolder(), 'run');
    await fixture.withPolicy(async (policy) => {
      await using run = await RunFolder.open(folder, config);
      await killedAt((signal) => train(policy, made(), { run, signal }), atStep(5));
    }, model);
    await fixture.withPolicy(async (policy, resumed) => {
      await using run = await RunFolder.open(folder, config, { resume: true });
      const job = train(policy, made(), { run });
      const steps = stepsOf(await collect(job));
      await job.result;
      expect(steps.map(({ step }) => step)).toEqual([5, 6]);
      expect(steps.map(({ loss }) => loss)).toEqual(whole.steps.slice(4).map(({ loss }) => loss));
      expect(await weightsOf(resumed)).toEqual(whole.weights);
    }, model);
  });
});

describe('what is refused', () => {
  const row = (id: string, more: Partial<PairRow['first']> = {}): PairRow['first'] => ({
    ...{ id, prompt: 'Which is better?', images: [], completion: 'yes' },
    ...more,
  });
  const pair = (first: PairRow['first'], second: PairRow['first']): PairDataset =>
    pairsFromRows('bad', [{ id: 'p', first, second, preference: 'first' }]);

  it.each<[string, () => PairDataset, RegExp]>([
    ['prompts that differ', () => pair(row('a'), row('b', { prompt: 'Other?' })), /equal prompt of both/],
    [
      'pictures that differ',
      () => {
        const picture = (value: number) => ({ width: 1, height: 1, rgb: Uint8Array.of(value, 0, 0) });
        const prompt = '<image> Which?';
        return pair(row('a', { prompt, images: [picture(1)] }), row('b', { prompt, images: [picture(2)] }));
      },
      /equal images of both/,
    ],
    [
      'a missing completion',
      () => {
        const { completion: _completion, ...bare } = row('b');
        return pair(row('a'), bare);
      },
      /a completion in `second`/,
    ],
  ])('%s, naming the pair', async (_, data, message) => {
    await expect(outcome(data())).rejects.toMatchObject({
      code: 'bad_data',
      fields: { id: 'p' },
      message: expect.stringMatching(message) as string,
    });
  });

  it.each<[string, DpoOptions]>([
    ['options.labelSmoothing', { loss: 'ipo', labelSmoothing: 0.1 }],
    ['options.labelSmoothing', { labelSmoothing: 0.5 }],
    ['options.beta', { beta: 0 }],
    ['options.batchSize', { batchSize: 0 }],
  ])('%s in %j, before anything runs', (name, options) => {
    expect(() => dpo({ data: pairs(2), options })).toThrow(
      expect.objectContaining({ code: 'invalid_argument', fields: expect.objectContaining({ name }) as object }),
    );
  });
});
