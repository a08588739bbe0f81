// Saving, loading and optimizer steps under an AbortSignal: ended with its reason, and nothing half made is left.
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine } from '../../src/engine/index.js';
import { sameBits, temporaryFolder, textFolder, textGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const large = {
  model_type: 'qwen2',
  vocab_size: 30_000,
  hidden_size: 512,
  intermediate_size: 1024,
  num_hidden_layers: 4,
  num_attention_heads: 8,
  num_key_value_heads: 2,
  tie_word_embeddings: true,
};
const reason = new Error('enough');

describe('an abort', () => {
  it('ends save() and leaves no folder, then load() and loadModel()', async () => {
    const parent = await temporaryFolder();
    const model = await engine.createModel(large, { seed: 1 });
    const controller = new AbortController();
    const saving = model.save(join(parent, 'model'), { signal: controller.signal });
    controller.abort(reason);
    await expect(saving).rejects.toBe(reason);
    expect(await readdir(parent)).toEqual([]);
    await model.save(join(parent, 'model'));
    const { signal } = controller;
    await expect(model.load(join(parent, 'model'), { signal })).rejects.toBe(reason);
    await expect(engine.loadModel(join(parent, 'model'), { signal })).rejects.toBe(reason);
    await expect(model.exportHf(join(parent, 'export'), { signal })).rejects.toBe(reason);
    expect(await readdir(parent)).toEqual(['model']);
    await model.load(join(parent, 'model'), { signal: new AbortController().signal });
    await model.dispose();
  });

  it('keeps a step that waits from beginning', async () => {
    const model = await engine.loadModel(textFolder);
    const before = await model.readTensor('model.norm.weight');
    await model.forwardBackward([textGroup()], [{ kind: 'nll' }]);
    const controller = new AbortController();
    // Long enough that the step still waits when this thread comes to the abort, on a busy machine too.
    const running = model.logprobs(Array.from({ length: 1000 }, (_, i) => textGroup(i % 40)));
    const step = model.optimizerStep({ learningRate: 0.1, signal: controller.signal });
    controller.abort(reason);
    await expect(step).rejects.toBe(reason);
    await running;
    expect(model.optimizerSteps).toBe(0);
    expect(sameBits(await model.readTensor('model.norm.weight'), before)).toBe(true);
    expect((await model.optimizerStep({ learningRate: 0.1, signal: new AbortController().signal })).step).toBe(1);
    await model.dispose();
  });
});
