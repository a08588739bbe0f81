// Weights that are not numbers: every verb and command says so, and none prints a result.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { createEngine, type Model } from '../../src/engine/index.js';
import { editTensors, failureOfCommand, brokenCopy } from './bad-input.js';
import { temporaryFolder, textFolder, textGroup } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
afterAll(() => engine.dispose());

const nonFinite = {
  code: 'non_finite',
  message: expect.stringMatching(/^Expected finite l.*The weights are damaged/) as string,
};

async function spoil(model: Model, name: string, value: number): Promise<void> {
  const values = await model.readTensor(name);
  values[3] = value;
  await model.writeTensor(name, 'value', values);
}

describe('a weight that is not finite', () => {
  it.each([
    ['a NaN in the last norm', 'model.norm.weight', NaN],
    ['a NaN in one row of the embedding and head', 'model.embed_tokens.weight', NaN],
    ['an infinite weight', 'model.layers.0.mlp.down_proj.weight', Infinity],
  ])('%s is told by sample, logprobs and logits', async (_, name, value) => {
    await using model = await engine.loadModel(textFolder);
    await spoil(model, name, value);
    await expect(model.logprobs([textGroup()])).rejects.toMatchObject(nonFinite);
    await expect(model.logprobs([textGroup()], { entropy: true })).rejects.toMatchObject(nonFinite);
    await expect(model.logits(textGroup())).rejects.toMatchObject(nonFinite);
    const run = model.sample([{ id: 1, promptTokens: textGroup().promptTokens }], { maxNewTokens: 2 });
    await expect(run).rejects.toMatchObject(nonFinite);
    await expect(model.forwardBackward([textGroup()], [{ kind: 'nll' }])).rejects.toMatchObject({ code: 'non_finite' });
  });

  it('names the completion token', async () => {
    await using model = await engine.loadModel(textFolder);
    await spoil(model, 'model.norm.weight', NaN);
    await expect(model.logprobs([textGroup()])).rejects.toThrow('received nan for completion token 0 of this call');
  });

  it('ends the commands with it and prints nothing', async () => {
    const folder = await brokenCopy(textFolder, (copy) =>
      editTensors(copy, (tensors, data) => {
        const [begin] = tensors['model.norm.weight']!.data_offsets;
        data.writeFloatLE(NaN, begin);
      }),
    );
    const input = join(await temporaryFolder(), 'rows.jsonl');
    await writeFile(input, JSON.stringify({ id: 'a', prompt: 'which one', completion: 'this one' }));
    for (const args of [
      ['logprobs', '--model', folder, '--input', input],
      ['sample', '--model', folder, '--prompt', 'which one'],
      ['judge', '--model', folder, '--prompt', 'which one'],
    ]) {
      expect(failureOfCommand(args)).toMatchObject({ code: 'non_finite', exitCode: 1 });
    }
  });
});
