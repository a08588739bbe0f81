// Damaged configs with whole weights, and a GGUF file with damaged bytes, through the engine: a model or a typed error, never a
// crash, a hang or memory for sizes that somebody made up. Seeded, like test/unit/fuzz-parsers.test.ts.
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createEngine } from '../../src/engine/index.js';
import { checkOutcome, damages, jsonChanges, mutate, mutateJson } from '../support/mutate.js';
import { goldens } from './model-fixture.js';

const engine = await createEngine({ threads: 2 });
let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-fuzz-'));
  process.env['XDG_CACHE_HOME'] = join(folder, 'cache');
});
afterAll(async () => {
  await engine.dispose();
  await rm(folder, { recursive: true });
});

const seed = 20260;

async function loadAndLetGo(path: string): Promise<void> {
  const model = await engine.loadModel(path);
  await model.dispose();
}

describe('damaged checkpoints', () => {
  it.each(['micro-text', 'micro-vl', 'micro-llama', 'micro-qwen3', 'micro-ov', 'micro-qwen3-vl'])(
    'config.json of %s',
    async (name) => {
      const checkpoint = join(folder, name);
      await cp(join(goldens, name), checkpoint, { recursive: true });
      const text = await readFile(join(checkpoint, 'config.json'), 'utf8');
      const counts = { ok: 0, refused: 0 };
      await fc.assert(
        fc.asyncProperty(jsonChanges, async (changes) => {
          await writeFile(join(checkpoint, 'config.json'), mutateJson(text, changes));
          counts[await checkOutcome(() => loadAndLetGo(checkpoint), [checkpoint, 'config', '`'])]++;
        }),
        { numRuns: 150, seed },
      );
      expect(counts.refused).toBeGreaterThan(15);
    },
    120_000,
  );

  // Every number of a config, one at a time: what random changes may miss.
  it('sizes that somebody made up', async () => {
    for (const name of ['micro-llama', 'micro-vl']) {
      const checkpoint = join(folder, `sizes-${name}`);
      await cp(join(goldens, name), checkpoint, { recursive: true });
      const config = JSON.parse(await readFile(join(checkpoint, 'config.json'), 'utf8')) as Record<string, unknown>;
      const parts = [config, config['text_config'], config['vision_config']] as (Record<string, unknown> | undefined)[];
      for (const part of parts) {
        for (const [key, kept] of Object.entries(part ?? {})) {
          if (typeof kept !== 'number') continue;
          for (const value of [-1, 0, 0.5, 1e6, 1e9, 2 ** 31 - 1, 2 ** 40, 1e308]) {
            part![key] = value;
            await writeFile(join(checkpoint, 'config.json'), JSON.stringify(config));
            await checkOutcome(() => loadAndLetGo(checkpoint), [checkpoint, 'config', 'bytes for weights', '`']);
          }
          part![key] = kept;
        }
      }
    }
  }, 120_000);

  it('bytes of a GGUF file', async () => {
    const bytes = await readFile(join(goldens, 'gguf/micro-llama.gguf'));
    const path = join(folder, 'damaged.gguf');
    const counts = { ok: 0, refused: 0 };
    await fc.assert(
      fc.asyncProperty(fc.tuple(damages, fc.constantFrom(1500, 24_000, 130_000)), async ([list, header]) => {
        await writeFile(path, mutate(bytes, list, header));
        counts[await checkOutcome(() => loadAndLetGo(path), ['.gguf', join(folder, 'cache'), '`'])]++;
      }),
      { numRuns: 250, seed },
    );
    expect(counts.refused).toBeGreaterThan(25);
  }, 120_000);
});
