import { afterAll, describe, expect, it } from 'vitest';
import type { NativeObjective } from '../../src/binding/contract-objectives.js';
import { group, job, loadGoldenModel, makeEngine, stepOptions } from './checkpoint.js';
import { Golden, maxAbsolute, relativeL2 } from './golden.js';

const nll: NativeObjective = { kind: 'nll', weight: 1, normalization: 'tokens' };

describe('goldens of our own (scripts/goldens/extra.py)', () => {
  const engine = makeEngine();
  afterAll(() => engine.dispose());

  it('NLL over shared prompts: loss, log-probs and every gradient equal those of separate sequences', async () => {
    const golden = await Golden.open('extra');
    const model = await loadGoldenModel(engine, 'micro-text');
    const groups = (golden.json.nll.groups as { prompt: number[]; completions: number[][] }[]).map((one) =>
      group(
        one.prompt,
        one.completions.map((tokens) => ({ tokens: Int32Array.from(tokens) })),
      ),
    );
    const result = await model.forwardBackward(groups, [nll], stepOptions, job());
    expect(Math.abs(result.loss - golden.json.nll.loss)).toBeLessThan(3e-6);
    expect(maxAbsolute(result.logprobs, (await golden.tensor('nll.logps')).data)).toBeLessThan(1.5e-5);
    const names = golden.names('nll.grad.');
    expect(names).toHaveLength(26);
    for (const name of names) {
      const got = await model.readTensor(name.slice('nll.grad.'.length), 'gradient');
      expect(relativeL2(got, (await golden.tensor(name)).data), name).toBeLessThan(1e-5);
    }
  });

  it('window attention over whole and cut windows: log-probs and every vision gradient', async () => {
    const golden = await Golden.open('extra');
    const model = await loadGoldenModel(engine, 'micro-vl');
    const { grid, prompt, completion, loss } = golden.json.windows;
    const pixels = Float32Array.from((await golden.tensor('windows.pixels')).data);
    const one = group(prompt, [{ tokens: Int32Array.from(completion as number[]) }], [{ pixels, grid }]);
    const result = await model.forwardBackward([one], [nll], stepOptions, job());
    expect(Math.abs(result.loss - loss)).toBeLessThan(5e-6);
    expect(maxAbsolute(result.logprobs, (await golden.tensor('windows.logps')).data)).toBeLessThan(2e-5);
    const names = golden.names('windows.grad.');
    expect(names.length).toBeGreaterThan(30);
    for (const name of names) {
      const got = await model.readTensor(name.slice('windows.grad.'.length), 'gradient');
      expect(relativeL2(got, (await golden.tensor(name)).data), name).toBeLessThan(3e-5);
    }
  });
});
