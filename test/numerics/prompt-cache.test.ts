// Reuse changes no bit: any sequence of calls, with weights that change and adapters switched in between, gives the same
// numbers whether pictures and prompts are kept, kept in too little room, or never kept.
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import type {
  NativeCompletion,
  NativeEngine,
  NativeGroup,
  NativeImage,
  NativeModel,
  NativeReuse,
} from '../../src/binding/contract.js';
import { job, makeEngine } from './checkpoint.js';
import { random } from './random.js';
import { firstWord, imageToken, smallFamilies, videoToken, vocabulary, type SmallFamily } from './small-families.js';

const rewardToken = 65;
const budgetsIn = {
  bf16: { never: 0, scarce: 60_000, ample: 2 ** 26 },
  fp32: { never: 0, scarce: 120_000, ample: 2 ** 26 },
};

interface Prompt {
  promptTokens: Int32Array;
  images: NativeImage[];
}

/** Prompts of every length around a page, which share pictures; half of them end with the reward token. */
function makePrompts(family: SmallFamily): Prompt[] {
  const next = random(5);
  const words = (count: number): number[] =>
    Array.from({ length: count }, () => firstWord + 2 + Math.floor(next() * (vocabulary - firstWord - 2)));
  const media = [
    { rows: 2, cols: 3, frames: null },
    { rows: 3, cols: 2, frames: null },
    { rows: 1, cols: 2, frames: 2 },
  ];
  const pictures = media.map((one) => family.media?.(one, next));
  return [3, 63, 64, 65, 130, 20].map((length, i) => {
    const used = [pictures[i % 3], i % 2 === 0 ? undefined : pictures[0]].filter((one) => one !== undefined);
    const tokens = [...words(length), ...used.flatMap((one) => [...one.tokens, ...words(1)])];
    if (i % 2 === 0) tokens[tokens.length - 1] = rewardToken;
    return { promptTokens: Int32Array.from(tokens), images: used.map(({ image }) => image) };
  });
}

type Step = {
  kind: 'sample' | 'logprobs' | 'score' | 'train' | 'write';
  prompts: number[];
  off: boolean;
  count: number;
};

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('sample', 'sample', 'logprobs', 'logprobs', 'score', 'train', 'write'),
  prompts: fc.uniqueArray(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 5 }),
  off: fc.boolean(),
  count: fc.integer({ min: 1, max: 3 }),
});

const bits = (values: Float32Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');
const cut = { maxTokensPerMicroBatch: 260, activationCheckpointing: false };

interface Subject {
  model: NativeModel;
  drawn: Map<number, NativeCompletion[]>;
  reused: NativeReuse;
}

/** Does a step and says everything that came of it. */
async function perform(
  subject: Subject,
  all: readonly Prompt[],
  { kind, prompts, off, count }: Step,
): Promise<unknown> {
  const { model, drawn } = subject;
  const adapter = off ? 'off' : 'on';
  const add = ({ promptTokens, images }: NativeReuse): void => {
    subject.reused.promptTokens += promptTokens;
    subject.reused.images += images;
  };
  const groups = prompts.map((index): NativeGroup => ({
    ...all[index]!,
    completions: (drawn.get(index) ?? []).map(({ tokens }) => ({ tokens })),
  }));
  const withCompletions = groups.filter(({ completions }) => completions.length > 0);
  switch (kind) {
    case 'sample': {
      const found: NativeCompletion[] = [];
      const requests = prompts.map((id) => ({
        id,
        ...all[id]!,
        count,
        maxNewTokens: 1 + 23 * ((id + count) % 4),
        seed: count,
        temperature: 1,
        stopTokens: Int32Array.of(100),
      }));
      const options = { maxRows: 4, bannedTokens: Int32Array.of(imageToken, videoToken), adapter } as const;
      const { reused } = await model.sample(requests, options, (some) => found.push(...some), job());
      add(reused);
      found.sort((a, b) => a.request - b.request || a.sample - b.sample);
      for (const [at, index] of prompts.entries())
        drawn.set(
          index,
          found.filter(({ request }) => request === at),
        );
      return found.map(({ tokens, logprobs }) => [[...tokens], bits(logprobs)]);
    }
    case 'logprobs': {
      if (withCompletions.length === 0) return undefined;
      const { logprobs, entropies, reused } = await model.logprobs(
        withCompletions,
        { ...cut, entropy: true, adapter },
        job(),
      );
      add(reused);
      return [bits(logprobs), bits(entropies)];
    }
    case 'score': {
      const scored = groups.filter(({ promptTokens }) => promptTokens.at(-1) === rewardToken);
      if (scored.length === 0) return undefined;
      const ending = { tokens: Int32Array.of(firstWord + 9, rewardToken) };
      const more = scored.map((group) => ({ ...group, completions: [...group.completions, ending] }));
      const { mu, states, reused } = await model.score([...scored, ...more], { ...cut, states: true, adapter }, job());
      add(reused);
      return [bits(mu), bits(states)];
    }
    case 'train': {
      if (withCompletions.length === 0) return undefined;
      const result = await model.forwardBackward(
        withCompletions,
        [{ kind: 'nll', weight: 1, normalization: 'tokens' }],
        { ...cut, activationCheckpointing: off },
        job(),
      );
      add(result.reused);
      const { gradNorm } = await model.optimizerStep({
        learningRate: 1e-3,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-8,
        weightDecay: 0,
        decayParameters: 'matrices',
        maxGradNorm: 1,
      });
      return [bits(result.logprobs), gradNorm];
    }
    case 'write': {
      const { name } = model.tensors().find((tensor) => !tensor.adapter && !tensor.rewardHead)!;
      const values = await model.readTensor(name, 'value');
      await model.writeTensor(
        name,
        'value',
        values.map((value) => value * (1 + count / 8)),
      );
      return undefined;
    }
  }
}

const isTower = (name: string): boolean => /visual|vision|projector|newline/.test(name);

/** What trains: everything, everything but the tower, or adapters on the decoder alone or on the tower too. */
const forms = ['whole', 'frozen tower', 'adapter', 'adapter with tower'] as const;

const dtypeOf = (form: (typeof forms)[number]): 'bf16' | 'fp32' =>
  form === 'adapter' || form === 'whole' ? 'bf16' : 'fp32';

async function makeModel(
  engine: NativeEngine,
  family: SmallFamily,
  form: (typeof forms)[number],
  promptCacheBytes: number,
): Promise<NativeModel> {
  const model = await engine.createModel({ ...family.spec, dtype: dtypeOf(form), promptCacheBytes });
  await model.initialize(7, 0.15);
  const matrices = model.tensors().filter(({ kind }) => kind === 'matrix');
  if (form === 'adapter' || form === 'adapter with tower') {
    const targets = matrices
      .filter(({ name }) => /q_proj|down_proj|attn\.qkv|fc1/.test(name) && (form !== 'adapter' || !isTower(name)))
      .map(({ name }) => ({ name, rank: 2, scale: 0.5 }));
    await model.attachAdapter({ targets, dropout: 0, seed: 3, trainableTokens: new Int32Array(0) });
  } else if (form === 'frozen tower') {
    model.setTrainable(model.tensors().flatMap(({ name }) => (isTower(name) ? [] : [name])));
  }
  await model.attachRewardHead({ heads: 2, token: rewardToken, hiddenSizes: [6], seed: 2 });
  return model;
}

const cases = smallFamilies
  .filter(({ name }) => name !== 'qwen2' && name !== 'qwen3')
  .flatMap((family) => forms.map((form) => ({ family, form, name: family.name })));

describe.each(cases)('$name, $form', ({ family, form }) => {
  const engines = [makeEngine(1), makeEngine(2)];
  afterAll(() => Promise.all(engines.map((engine) => engine.dispose())));
  const prompts = makePrompts(family);
  const budgets = budgetsIn[dtypeOf(form)];

  it('gives the same bits with ample, scarce and no room for what is kept', async () => {
    const total = { ample: 0, scarce: 0, images: 0 };
    let largest = 0;
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 9 }), async (steps) => {
        const entries = await Promise.all(
          Object.entries(budgets).map(async ([name, budget], i): Promise<[string, Subject]> => [
            name,
            {
              model: await makeModel(engines[i % 2]!, family, form, budget),
              drawn: new Map<number, NativeCompletion[]>(),
              reused: { promptTokens: 0, images: 0 },
            },
          ]),
        );
        const { never, scarce, ample } = Object.fromEntries(entries) as Record<keyof typeof budgets, Subject>;
        for (const one of steps) {
          const want = await perform(never, prompts, one);
          for (const subject of [scarce, ample]) expect(await perform(subject, prompts, one)).toEqual(want);
          expect(scarce.model.memory().promptCacheBytes).toBeLessThanOrEqual(budgets.scarce);
          largest = Math.max(largest, ample.model.memory().promptCacheBytes);
        }
        expect(never.reused).toEqual({ promptTokens: 0, images: 0 });
        expect(never.model.memory().promptCacheBytes).toBe(0);
        total.ample += ample.reused.promptTokens;
        total.scarce += scarce.reused.promptTokens;
        total.images += ample.reused.images;
        await Promise.all([never, scarce, ample].map(({ model }) => model.dispose()));
      }),
      { numRuns: 4, seed: 20260711 },
    );
    // The comparison was of something: entries were used, and put out where room was scarce.
    expect(total.ample).toBeGreaterThan(300);
    expect(total.scarce).toBeGreaterThan(0);
    expect(total.scarce).toBeLessThan(total.ample);
    expect(largest).toBeGreaterThan(budgets.scarce);
    if (family.media !== null) expect(total.images).toBeGreaterThan(5);
  }, 120_000);
});
