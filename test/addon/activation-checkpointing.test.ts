// Recomputing blocks in the backward pass changes memory and time, never a bit: text and vision-language, fp32 and bf16.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Group, type Model } from '../../src/engine/index.js';
import { sameBits, textFolder, visionFolder, visionGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

async function deepModel(folder: string, dtype: 'fp32' | 'bf16'): Promise<Model> {
  const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')) as Record<string, object>;
  const vision = config['vision_config'];
  const deeper = {
    ...config,
    num_hidden_layers: 8,
    layer_types: undefined,
    ...(vision === undefined ? {} : { vision_config: { ...vision, depth: 8 } }),
  };
  const text = config['text_config'];
  if (text !== undefined) {
    Object.assign(deeper, { text_config: { ...text, num_hidden_layers: 8, layer_types: undefined } });
  }
  return engine.createModel(JSON.parse(JSON.stringify(deeper)) as Record<string, unknown>, { dtype, seed: 1 });
}

const longText = (): Group => ({
  promptTokens: Int32Array.from({ length: 100 }, (_, i) => 5 + ((i * 7) % 400)),
  images: [],
  completions: [1, 2, 3].map((seed) => ({
    tokens: Int32Array.from({ length: 40 }, (_, i) => 5 + ((i * 11 + seed * 31) % 400)),
    advantage: seed - 2,
  })),
});

/** The tiny picture, larger: 8x8 patches, sixteen merged tokens. */
function longVision(): Group {
  const { promptTokens: tiny, completions } = visionGroup();
  const pixels = Float32Array.from({ length: 64 * 1176 }, (_, i) => Math.sin(i / 70));
  const placeholder = [...tiny].indexOf(508);
  const promptTokens = Int32Array.from([
    ...tiny.slice(0, placeholder),
    ...Array<number>(16).fill(508),
    ...tiny.slice(placeholder + 1),
  ]);
  return { promptTokens, images: [{ pixels, grid: [1, 8, 8] }], completions };
}

describe.each([
  ['text', textFolder, longText],
  ['vision-language', visionFolder, longVision],
] as const)('activation checkpointing: %s', (_name, folder, group) => {
  it.each(['fp32', 'bf16'] as const)('has the same bits and takes less memory: %s', async (dtype) => {
    const [kept, recomputed] = [await deepModel(folder, dtype), await deepModel(folder, dtype)];
    const objectives = [{ kind: 'grpo' as const }];
    const expected = await kept.forwardBackward([group()], objectives);
    const actual = await recomputed.forwardBackward([group()], objectives, { activationCheckpointing: true });
    expect(actual.loss).toBe(expected.loss);
    expect(sameBits(actual.logprobs, expected.logprobs)).toBe(true);
    let largest = 0;
    for (const { name } of kept.tensors()) {
      const gradient = await kept.readTensor(name, 'gradient');
      largest = gradient.reduce((most, value) => Math.max(most, Math.abs(value)), largest);
      expect(sameBits(await recomputed.readTensor(name, 'gradient'), gradient), name).toBe(true);
    }
    expect(largest).toBeGreaterThan(0);
    const [before, after] = [kept.memory().activationBytes, recomputed.memory().activationBytes];
    expect(after).toBeLessThan(0.45 * before);
    await kept.dispose();
    await recomputed.dispose();
  });
});
