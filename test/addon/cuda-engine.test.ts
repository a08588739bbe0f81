// What a user does, on a CUDA engine: its kernels run on the processor where the emulated plugin was built (docs/cuda.md).
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadNative, localBuilds, packageRoot } from '../../src/binding/load.js';
import {
  createEngine,
  estimateMemory,
  type Engine,
  type Group,
  type LoadModelOptions,
  type Model,
} from '../../src/engine/index.js';
import { sameBits, temporaryFolder, tinyImage, visionFolder, visionGroup } from './model-fixture.js';

// Beside the addon under test, whichever that is.
const addon =
  process.env['GAVEL_NATIVE'] ??
  join(packageRoot, localBuilds.find((path) => existsSync(join(packageRoot, path))) ?? '');
const plugin = join(dirname(addon), 'gavel-cuda-emulated.so');
process.env['GAVEL_CUDA_PLUGIN'] = plugin;
process.env['GAVEL_EMULATED_BYTES'] = String(64 * 2 ** 20);
const { cuda } = loadNative().info();
const required = process.env['GAVEL_REQUIRE_CUDA'] !== undefined;

const prompt = { promptTokens: Int32Array.of(5, 9, 506, 508, 507, 7), images: [tinyImage()] };
const bf16 = { dtype: 'bf16' } as const;
const rate = { learningRate: 5e-3 };

const closeTo = (a: Float32Array, b: Float32Array, tolerance: number): void => {
  expect(a.length).toBe(b.length);
  for (const [i, value] of a.entries()) expect(Math.abs(value - b[i]!)).toBeLessThan(tolerance);
};

describe.skipIf(!cuda.available && !required)(
  `device 'cuda'${cuda.available ? '' : `, skipped: ${cuda.reason}`}`,
  () => {
    let device: Engine;
    let processor: Engine;
    beforeAll(async () => {
      device = await createEngine({ device: 'cuda', threads: 1 });
      processor = await createEngine({ threads: 1 });
    });
    afterAll(() => Promise.all([device.dispose(), processor.dispose()]));
    const both = (options: LoadModelOptions): Promise<[Model, Model]> =>
      Promise.all([device.loadModel(visionFolder, options), processor.loadModel(visionFolder, options)]);

    it('is what it says, and one that is not there is refused with the reason', async () => {
      expect(device.device).toBe('cuda:0');
      expect(device.isa).toBe('cuda');
      await expect(createEngine({ device: 'cuda:3' })).rejects.toMatchObject({
        code: 'device_unavailable',
        fields: { device: 'cuda:3', reason: 'This machine has 1 CUDA devices.' },
      });
    });

    it('samples and trains with the same bits, and with the processor’s losses', async () => {
      const [model, other] = await both(bf16);
      const drawn = await model.sample([{ id: 1, ...prompt, count: 2 }], { maxNewTokens: 4, seed: 3 }).completions();
      drawn.sort((a, b) => a.sample - b.sample);
      const group: Group = {
        ...prompt,
        completions: drawn.map(({ tokens, logprobs }, i) => ({
          tokens,
          oldLogprobs: logprobs,
          advantage: i === 0 ? 1 : -1,
        })),
      };
      const sampled = Float32Array.from(drawn.flatMap(({ logprobs }) => [...logprobs]));
      const scored = await model.logprobs([group]);
      // The prompt's pages came back from what sampling kept.
      expect(scored.reused.promptTokens).toBe(prompt.promptTokens.length);
      expect(sameBits(scored.logprobs, sampled)).toBe(true);
      closeTo((await other.logprobs([group])).logprobs, sampled, 0.05);
      for (const activationCheckpointing of [false, true]) {
        const step = await model.forwardBackward([group], [{ kind: 'grpo' }], {
          activationCheckpointing,
        });
        expect(sameBits(step.logprobs, sampled)).toBe(true);
        const same = await other.forwardBackward([group], [{ kind: 'grpo' }], {
          activationCheckpointing,
        });
        expect(step.loss).toBeCloseTo(same.loss, 2);
      }
      const [step, same] = [await model.optimizerStep(rate), await other.optimizerStep(rate)];
      expect(step.applied).toBe(true);
      expect(Math.abs(step.gradNorm / same.gradNorm - 1)).toBeLessThan(0.05);
      const losses = [];
      for (let i = 0; i < 2; i++) {
        losses.push((await model.forwardBackward([visionGroup()], [{ kind: 'nll' }])).loss);
        await model.optimizerStep(rate);
      }
      expect(losses[1]).toBeLessThan(losses[0]!);
      await Promise.all([model.dispose(), other.dispose()]);
    });

    it('in its fastest mode samples and trains with log-probs that agree within rounding, and plans for it', async () => {
      expect(device.exactness).toBe('bitwise');
      await using fastest = await createEngine({ device: 'cuda', threads: 1, exactness: 'fastest' });
      expect(fastest.exactness).toBe('fastest');
      const model = await fastest.loadModel(visionFolder, bf16);
      const drawn = await model.sample([{ id: 1, ...prompt, count: 2 }], { maxNewTokens: 4, seed: 3 }).completions();
      drawn.sort((a, b) => a.sample - b.sample);
      const group: Group = { ...prompt, completions: drawn.map(({ tokens }) => ({ tokens, advantage: 1 })) };
      const sampled = Float32Array.from(drawn.flatMap(({ logprobs }) => [...logprobs]));
      const { logprobs } = await model.logprobs([group]);
      closeTo(logprobs, sampled, 0.05);
      expect(sameBits((await model.logprobs([group])).logprobs, logprobs)).toBe(true);
      const config = JSON.parse(await readFile(join(visionFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
      const work = { dtype: 'bf16', device: 'cuda', threads: 1, promptTokens: 70, sampling: {} } as const;
      const [exact, parts] = await Promise.all([
        estimateMemory(config, work),
        estimateMemory(config, { ...work, exactness: 'fastest' }),
      ]);
      expect(parts.scratchBytes).toBeGreaterThan(exact.scratchBytes);
    });

    it('scores and ranks with a reward head and an adapter', async () => {
      const options: LoadModelOptions = {
        ...bf16,
        rewardHead: { hiddenSizes: [12, 8], names: ['quality'] },
        lora: { rank: 2, targets: ['q_proj', 'v_proj'] },
      };
      const [model, other] = await both(options);
      const rows = [21, 33].map((word): Group => ({
        promptTokens: Int32Array.of(5, 9, word, model.rewardHead!.tokenId),
        images: [],
        completions: [],
      }));
      const [first, same] = [await model.score(rows), await other.score(rows)];
      closeTo(first.mu, same.mu, 0.02);
      const objective = {
        kind: 'ranking' as const,
        loss: 'bradley_terry' as const,
        pairs: { chosen: [0], rejected: [1] },
      };
      const [step, otherStep] = [
        await model.forwardBackward(rows, [objective]),
        await other.forwardBackward(rows, [objective]),
      ];
      expect(step.loss).toBeCloseTo(otherStep.loss, 2);
      await model.optimizerStep(rate);
      const after = await model.score(rows);
      expect(after.mu[0]! - after.mu[1]!).toBeGreaterThan(first.mu[0]! - first.mu[1]!);
      await Promise.all([model.dispose(), other.dispose()]);
    });

    it('saves, and goes on with the same bits', async () => {
      const folder = join(await temporaryFolder(), 'checkpoint');
      const options: LoadModelOptions = { ...bf16, optimizer: { states: 'int8', weights: 'stochastic', seed: 3 } };
      const model = await device.loadModel(visionFolder, options);
      const train = async (one: Model): Promise<void> => {
        await one.forwardBackward([visionGroup()], [{ kind: 'nll' }]);
        expect((await one.optimizerStep(rate)).applied).toBe(true);
      };
      await train(model);
      await model.save(folder);
      const restored = await device.loadModel(folder, options);
      await restored.load(folder);
      await train(model);
      await train(restored);
      for (const { name } of model.tensors()) {
        for (const kind of ['value', 'moment1', 'moment2'] as const)
          expect(sameBits(await restored.readTensor(name, kind), await model.readTensor(name, kind)), name).toBe(true);
      }
      await Promise.all([model.dispose(), restored.dispose()]);
    });

    it('draws the same whoever decodes beside it, and after a call that was aborted in flight', async () => {
      const model = await device.loadModel(visionFolder, bf16);
      const requests = [3, 40].map((length, id) => ({
        id,
        promptTokens: Int32Array.from({ length }, (_, i) => 5 + ((i * 7 + id) % 80)),
        count: 2,
      }));
      const draw = async (maxRows: number) => {
        const done = await model.sample(requests, { maxNewTokens: 6, maxRows, seed: 4 }).completions();
        return done
          .sort((a, b) => a.request - b.request || a.sample - b.sample)
          .map(({ tokens, logprobs }) => [[...tokens], [...logprobs]]);
      };
      const alone = await draw(1);
      expect(alone.length).toBe(4);
      expect(await draw(4)).toEqual(alone);
      const stop = new AbortController();
      const aborted = model.sample(requests, { maxNewTokens: 6, maxRows: 2, seed: 4, signal: stop.signal });
      await expect(
        (async () => {
          for await (const one of aborted) if (one.tokens.length > 0) stop.abort();
        })(),
      ).rejects.toMatchObject({ name: 'AbortError' });
      expect(await draw(4)).toEqual(alone);
      await model.dispose();
    });

    it('takes what estimateMemory() said, and says so when that is too much', async () => {
      await using fresh = await createEngine({ device: 'cuda', threads: 1 });
      const model = await fresh.loadModel(visionFolder, { ...bf16, promptCacheBytes: 0 });
      const group = visionGroup();
      const config = JSON.parse(await readFile(join(visionFolder, 'config.json'), 'utf8')) as Record<string, unknown>;
      const planned = await estimateMemory(config, {
        ...bf16,
        device: 'cuda',
        threads: 1,
        promptCacheBytes: 0,
        promptTokens: group.promptTokens.length,
        images: [{ grid: [1, 2, 2] }],
        training: { completions: 1, completionTokens: group.completions[0]!.tokens.length },
        sampling: { completions: 2, maxNewTokens: 4, maxRows: 2 },
      });
      await model.forwardBackward([group], [{ kind: 'grpo' }]);
      await model.optimizerStep(rate);
      const trained = model.memory();
      for (const key of ['weightBytes', 'gradientBytes', 'optimizerBytes', 'activationBytes'] as const)
        expect(trained[key], key).toBe(planned[key]);
      await model.sample([{ id: 1, ...prompt, count: 2 }], { maxNewTokens: 4, maxRows: 2, stopTokens: [] });
      const held = model.memory();
      expect([held.kvBytes, held.samplingBytes]).toEqual([planned.kvBytes, planned.samplingBytes]);
      expect(held.scratchBytes).toBeGreaterThan(0);
      expect(held.scratchBytes).toBeLessThanOrEqual(planned.scratchBytes * 1.05);

      const request = { id: 1, promptTokens: Int32Array.of(5, 9, 7), count: 2 ** 12 };
      const refused = model.sample([request], { maxRows: 2 ** 12, maxNewTokens: 300 });
      await expect(refused).rejects.toMatchObject({ code: 'out_of_memory' });
      await expect(refused).rejects.toThrow(
        /Expected \d+ bytes of the device for sampling 4096 rows at once but \d+ are free/,
      );
      expect((await model.sample([{ ...request, count: 1 }], { maxNewTokens: 2 })).completions).toBe(1);
      await model.dispose();
    });
  },
);
