// estimateMemory() against what real work took: text and vision-language, fp32 and bf16, checkpointing, adapters, states.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  createEngine,
  estimateMemory,
  type CreateModelOptions,
  type EstimateMemoryOptions,
  type Group,
  type ImageInput,
  type Memory,
} from '../../src/engine/index.js';
import type { GavelError } from '../../src/errors.js';
import { textFolder, visionFolder } from './model-fixture.js';

const threads = 2;
const placeholder = 508;

const textConfig = {
  model_type: 'qwen2',
  vocab_size: 3000,
  hidden_size: 128,
  intermediate_size: 320,
  num_hidden_layers: 5,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  tie_word_embeddings: false,
};
const configOf = async (folder: string): Promise<Record<string, unknown>> =>
  JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>;

interface Case {
  config: () => Promise<Record<string, unknown>>;
  options: EstimateMemoryOptions & { promptTokens: number; prompts: number };
}

const training = { completions: 4, completionTokens: 60, maxTokensPerMicroBatch: 700 };
const sampling = { completions: 4, maxNewTokens: 50, maxRows: 6 };
const text = (): Promise<Record<string, unknown>> => Promise.resolve(textConfig);
const cases: Record<string, Case> = {
  'text, fp32': { config: text, options: { dtype: 'fp32', promptTokens: 130, prompts: 5, training, sampling } },
  'text, bf16, recomputed': {
    config: text,
    options: {
      dtype: 'bf16',
      promptTokens: 130,
      prompts: 5,
      training: { ...training, activationCheckpointing: true },
    },
  },
  'text, bf16, 8-bit moments, no masters': {
    config: text,
    options: {
      dtype: 'bf16',
      optimizer: { states: 'int8', weights: 'stochastic' },
      promptTokens: 300,
      prompts: 2,
      training: { ...training, completions: 2 },
    },
  },
  'text, fp32, an adapter and its reference': {
    config: text,
    options: {
      dtype: 'fp32',
      lora: { rank: 8, trainableTokens: [7, 9] },
      promptTokens: 130,
      prompts: 3,
      training: { ...training, reference: true },
      sampling,
    },
  },
  'text, bf16, layers frozen, a reference model': {
    config: text,
    options: {
      dtype: 'bf16',
      freeze: ['layers.0', 'embed_tokens'],
      promptTokens: 64,
      prompts: 6,
      training: { ...training, reference: true },
    },
  },
  'text, golden config, long completions': {
    config: () => configOf(textFolder),
    options: {
      promptTokens: 20,
      prompts: 1,
      training: { completions: 2, completionTokens: 500 },
      sampling: { completions: 3, maxNewTokens: 400, maxRows: 2 },
    },
  },
  ...Object.fromEntries(
    (['fp32', 'bf16'] as const).flatMap((dtype) =>
      [false, true].map((activationCheckpointing): [string, Case] => [
        `vision-language, ${dtype}${activationCheckpointing ? ', recomputed' : ''}`,
        {
          config: () => configOf(visionFolder),
          options: {
            dtype,
            promptTokens: 120,
            images: [{ grid: [1, 8, 12] }, { grid: [1, 6, 6] }],
            prompts: 3,
            training: { ...training, activationCheckpointing },
            sampling,
          },
        },
      ]),
    ),
  ),
};

function groupOf({ promptTokens, images = [], training: step }: Case['options']): Group {
  const pictures = images.map(({ grid: [t, h, w] }): ImageInput => {
    return { grid: [t, h, w], pixels: Float32Array.from({ length: t * h * w * 1176 }, (_, i) => Math.sin(i)) };
  });
  const marks = pictures.flatMap(({ grid: [t, h, w] }) => [6, ...Array<number>((t * h * w) / 4).fill(placeholder)]);
  const rest = Array.from({ length: promptTokens - marks.length }, (_, i) => 5 + (i % 90));
  const completions = Array.from({ length: step?.completions ?? 0 }, (_, g) => ({
    tokens: Int32Array.from({ length: step?.completionTokens ?? 512 }, (_, i) => 3 + ((i * 7 + g) % 400)),
    advantage: g % 2 === 0 ? 1 : -1,
  }));
  return { promptTokens: Int32Array.from([...marks, ...rest]), images: pictures, completions };
}

/** Does the work for real. */
async function measure({ config, options }: Case): Promise<{ memory: Memory; referenceBytes: number }> {
  const { training: step, sampling: draw, prompts } = options;
  const { dtype, optimizer, lora, freeze } = options;
  await using engine = await createEngine({ threads });
  const given = Object.fromEntries(
    Object.entries({ dtype, optimizer, lora, freeze }).filter(([, value]) => value !== undefined),
  ) as CreateModelOptions;
  const model = await engine.createModel(await config(), { std: 0.02, promptCacheBytes: 0, ...given });
  const groups = Array.from({ length: prompts }, () => groupOf(options));
  if (draw !== undefined) {
    const requests = groups.map(({ promptTokens, images }, id) => ({ id, promptTokens, images }));
    const { completions: count, ...rest } = draw;
    await model.sample(requests, { count: count ?? 1, ...rest, stopTokens: [] });
  }
  let referenceBytes = 0;
  if (step !== undefined) {
    const { completions: _count, completionTokens: _length, reference, ...stepOptions } = step;
    if (reference === true && lora !== undefined) await model.logprobs(groups, { ...stepOptions, adapter: 'off' });
    else if (reference === true) {
      const frozen = await model.freeze();
      await frozen.logprobs(groups, stepOptions);
      const { weightBytes, activationBytes } = frozen.memory();
      referenceBytes = weightBytes + activationBytes;
      await frozen.dispose();
    }
    await model.forwardBackward(groups, [{ kind: 'grpo' }], stepOptions);
    expect((await model.optimizerStep({ learningRate: 1e-6 })).applied).toBe(true);
  }
  return { memory: model.memory(), referenceBytes };
}

describe('estimateMemory', () => {
  it.each(Object.entries(cases))('says what the work takes: %s', async (_name, one) => {
    const estimate = await estimateMemory(await one.config(), { ...one.options, promptCacheBytes: 0, threads });
    const { memory, referenceBytes } = await measure(one);
    const { totalBytes, ...parts } = estimate;
    // What the engine holds by construction is exact; kernels' buffers may find another plan of the same work.
    const exact = ({ scratchBytes: _scratch, ...rest }: Memory): object => rest;
    expect(exact(parts)).toEqual({ ...exact(memory), referenceBytes });
    const { activationBytes, kvBytes, samplingBytes, ...held } = memory;
    const turns = Math.max(activationBytes, kvBytes + samplingBytes);
    const taken = Object.values(held).reduce((sum: number, bytes: number) => sum + bytes, turns + referenceBytes);
    expect(Math.abs(totalBytes - taken) / taken).toBeLessThan(0.1);
    expect(Math.abs(estimate.scratchBytes - memory.scratchBytes) / memory.scratchBytes).toBeLessThan(0.1);
  });

  it('counts what is kept of different prompts and pictures, up to the bound', async () => {
    const { config, options } = cases['vision-language, bf16']!;
    const { training: _training, ...work } = options;
    await using engine = await createEngine({ threads });
    const model = await engine.createModel(await config(), { dtype: 'bf16' });
    const requests = Array.from({ length: work.prompts }, (_, id) => {
      const { promptTokens, images } = groupOf(options);
      for (const image of images) image.pixels[0] = id;
      promptTokens[promptTokens.length - 1] = 5 + id;
      return { id, promptTokens, images };
    });
    const { completions: count, ...draw } = work.sampling!;
    await model.sample(requests, { count: count ?? 1, ...draw, stopTokens: [] });
    const estimate = await estimateMemory(await config(), { ...work, threads });
    expect(estimate.promptCacheBytes).toBe(model.memory().promptCacheBytes);
    expect(estimate.promptCacheBytes).toBeGreaterThan(10_000);
    const bounded = await estimateMemory(await config(), { ...work, promptCacheBytes: 5000, threads });
    expect(bounded.promptCacheBytes).toBe(5000);
  });

  it.skipIf(process.platform !== 'linux')('is what the process grows by', async () => {
    const resident = async (): Promise<number> => {
      const status = await readFile('/proc/self/status', 'utf8');
      return Number(/RssAnon:\s+(\d+)/.exec(status)![1]) * 1024;
    };
    const config = {
      ...textConfig,
      vocab_size: 16_000,
      hidden_size: 256,
      intermediate_size: 704,
      num_hidden_layers: 6,
    };
    const step = { completions: 4, completionTokens: 200, maxTokensPerMicroBatch: 4096 };
    const options = { dtype: 'bf16', promptTokens: 200, prompts: 4, training: step } as const;
    const estimate = await estimateMemory(config, { ...options, threads });
    const before = await resident();
    await using engine = await createEngine({ threads });
    const model = await engine.createModel(config, { dtype: 'bf16' });
    const groups = Array.from({ length: 4 }, () => groupOf(options));
    await model.forwardBackward(groups, [{ kind: 'grpo' }], { maxTokensPerMicroBatch: 4096 });
    await model.optimizerStep();
    const grown = (await resident()) - before;
    expect(grown / estimate.totalBytes).toBeGreaterThan(0.9);
    expect(grown / estimate.totalBytes).toBeLessThan(1.1);
  });

  it('takes nothing itself: a model far larger than this machine', async () => {
    const huge = {
      ...textConfig,
      vocab_size: 150_000,
      hidden_size: 16_384,
      intermediate_size: 53_248,
      num_hidden_layers: 126,
      num_attention_heads: 128,
      num_key_value_heads: 8,
    };
    const before = process.memoryUsage.rss();
    const estimate = await estimateMemory(huge, {
      dtype: 'bf16',
      threads,
      promptTokens: 2048,
      training: { completions: 8, completionTokens: 512, activationCheckpointing: true },
    });
    // 405 billion weights in bf16 with fp32 masters, gradients and two moments.
    expect(estimate.weightBytes + estimate.gradientBytes + estimate.optimizerBytes).toBeGreaterThan(405e9 * 18);
    expect(estimate.totalBytes).toBeLessThan(405e9 * 18.3);
    expect(process.memoryUsage.rss() - before).toBeLessThan(400e6);
  });

  it('is what a refusal for want of memory asks to look at', async () => {
    await using engine = await createEngine({ threads });
    const large = {
      num_attention_heads: 256,
      num_key_value_heads: 256,
      hidden_size: 16_384,
      intermediate_size: 1_000_000,
    };
    const refusal = engine.createModel({ ...textConfig, ...large, num_hidden_layers: 200 }, { dtype: 'fp32' });
    await expect(refusal).rejects.toMatchObject({ code: 'out_of_memory' });
    await expect(refusal).rejects.toThrow(/Expected \d+ bytes for weights .* but \d+ are available\. .*estimateMemory/);
    const { fields } = (await refusal.catch((error: unknown) => error)) as GavelError;
    expect(Number(fields['requestedBytes'])).toBeGreaterThan(Number(fields['availableBytes']));
    expect(Number(fields['availableBytes'])).toBeGreaterThan(1e6);
    await (await engine.createModel(textConfig)).dispose();
  });

  it('without work is the weights, and refuses what cannot be', async () => {
    const weights = await estimateMemory(textConfig, { dtype: 'bf16', threads });
    expect(weights.totalBytes).toBe(weights.weightBytes);
    await expect(estimateMemory({ model_type: 'nothing' }, { threads })).rejects.toMatchObject({ code: 'unsupported' });
    await expect(
      estimateMemory(await configOf(visionFolder), {
        threads,
        promptTokens: 20,
        images: [{ grid: [1, 8, 12] }],
        training: {},
      }),
    ).rejects.toThrow(/Expected more than the 25 tokens of the pictures for `promptTokens` but received 20/);
  });
});
