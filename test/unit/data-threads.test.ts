import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Processor } from '../../src/data/processor.js';
import type { Row } from '../../src/data/rows.js';
import { DataThreads } from '../../src/data/threads.js';
import { GavelError } from '../../src/errors.js';

const checkpoint = new URL('../goldens/micro-vl', import.meta.url).pathname;
let threads: DataThreads;
beforeAll(async () => {
  threads = await DataThreads.start(checkpoint, { threads: 2 });
}, 60_000);
afterAll(() => threads.dispose());

function makeRow(index: number): Row {
  const rgb = new Uint8Array(56 * 56 * 3).fill(index & 255);
  const prompt = `<image><image> Item ${index}: which is better?`;
  const image = { rgb, width: 56, height: 56 };
  return {
    id: `row-${index}`,
    prompt,
    images: [image, image],
    completion: `Image ${(index % 2) + 1} is better`,
    meta: { index },
  };
}

describe('data threads', () => {
  it('gives what the processor gives, in order, whatever the number of chunks', async () => {
    const processor = await Processor.load(checkpoint);
    const rows = Array.from({ length: 150 }, (_, index) => makeRow(index));
    const encoded = await threads.encode(rows);
    expect(encoded.map(({ id }) => id)).toEqual(rows.map(({ id }) => id));
    for (const index of [0, 31, 32, 149]) {
      expect(encoded[index]).toEqual(await processor.encode(rows[index]!));
      expect(encoded[index]!.meta).toBe(rows[index]!.meta);
    }
    expect(rows[0]!.images[0]).toMatchObject({ rgb: { length: 9408 } });
    expect(await threads.encode([])).toEqual([]);
  });

  it('serves several callers at once', async () => {
    const results = await Promise.all(
      [0, 1, 2].map((start) => threads.encode(Array.from({ length: 40 }, (_, i) => makeRow(start * 40 + i)))),
    );
    expect(results.flat().map(({ id }) => id)).toEqual(Array.from({ length: 120 }, (_, i) => `row-${i}`));
  });

  it('cuts a view out of its buffer before it is sent', async () => {
    const pool = new Uint8Array(64 << 20);
    const rgb = pool.subarray(1000, 1000 + 9408);
    const started = performance.now();
    const rows = Array.from({ length: 64 }, (_, i) => ({
      ...makeRow(i),
      images: [0, 1].map(() => ({ rgb, width: 56, height: 56 })),
    }));
    await threads.encode(rows);
    // Cloning the whole buffer 128 times would be 8 GiB.
    expect(performance.now() - started).toBeLessThan(5000);
  });

  it('rejects with the first bad row, typed, and goes on working', async () => {
    const rows = Array.from({ length: 200 }, (_, index) => makeRow(index));
    rows[77] = { ...rows[77]!, images: [] };
    rows[150] = { ...rows[150]!, images: [{ bytes: new Uint8Array(3) }, { bytes: new Uint8Array(3) }] };
    const error: unknown = await threads.encode(rows).catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(GavelError);
    expect(error).toMatchObject({ code: 'image_count_mismatch', fields: { id: 'row-77', marks: 2, images: 0 } });
    const settled = await threads.encodeSettled(rows);
    expect(settled.flatMap((row, index) => (row instanceof GavelError ? [[index, row.code]] : []))).toEqual([
      [77, 'image_count_mismatch'],
      [150, 'image_unreadable'],
    ]);
    expect(settled).toHaveLength(200);
  });

  it('answers an AbortSignal with its reason', async () => {
    const rows = Array.from({ length: 2000 }, (_, index) => makeRow(index));
    const controller = new AbortController();
    const reason = new Error('enough');
    const pending = threads.encode(rows, { signal: controller.signal });
    controller.abort(reason);
    await expect(pending).rejects.toBe(reason);
    await expect(threads.encode(rows, { signal: controller.signal })).rejects.toBe(reason);
    expect(await threads.encode([makeRow(5)])).toHaveLength(1);
  });

  it('keeps the main loop free', async () => {
    const rows = Array.from({ length: 600 }, (_, index) => makeRow(index));
    const longestDelayMs = async (work: () => Promise<unknown>): Promise<number> => {
      const delay = monitorEventLoopDelay({ resolution: 5 });
      delay.enable();
      // The first tick only sets the clock.
      await new Promise((resolve) => setTimeout(resolve, 20));
      await work();
      await new Promise((resolve) => setTimeout(resolve, 20));
      delay.disable();
      return delay.max / 1e6;
    };
    // Relative to the same work done here: a busy machine stretches both.
    const processor = await Processor.load(checkpoint);
    const planted = await longestDelayMs(async () => {
      for (let pass = 0; pass < 3; pass++) for (const row of rows) await processor.encode(row);
    });
    const threaded = await longestDelayMs(async () => {
      for (let pass = 0; pass < 3; pass++) await threads.encode(rows);
    });
    expect(threaded).toBeLessThan(planted / 3);
  }, 60_000);

  it('reports a checkpoint it cannot use at the start', async () => {
    await expect(DataThreads.start(join(checkpoint, 'nowhere'))).rejects.toMatchObject({ code: 'io' });
    await expect(DataThreads.start(checkpoint, { threads: 0 })).rejects.toMatchObject({ code: 'invalid_argument' });
  });

  it('is disposed once, with queued work rejected and later calls refused', async () => {
    const pool = await DataThreads.start(checkpoint, { threads: 1 });
    const pending = pool.encode(Array.from({ length: 1000 }, (_, index) => makeRow(index)));
    const outcome = expect(pending).rejects.toMatchObject({ code: 'disposed' });
    await Promise.all([pool.dispose(), pool.dispose()]);
    await outcome;
    await expect(pool.encode([makeRow(0)])).rejects.toMatchObject({ code: 'disposed' });
  });

  it('neither keeps an idle process alive nor lets a waiting one end', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'gavel-threads-'));
    const script = join(folder, 'child.mjs');
    const compiler = new URL('../support/compile-sources.mjs', import.meta.url).href;
    await writeFile(
      script,
      `import { compileSources } from ${JSON.stringify(compiler)};
       const { DataThreads } = await import(await compileSources('src/data/threads.ts'));
       const threads = await DataThreads.start(${JSON.stringify(checkpoint)}, { threads: 2 });
       const rows = Array.from({ length: 40 }, (_, i) => ({ id: String(i), prompt: 'Hi', images: [] }));
       console.log((await threads.encode(rows)).length);
       console.log((await threads.encode(rows)).length);`,
    );
    // Ended early, it would print less and leave with code 13; kept alive, it would run into the time limit.
    const { stdout } = await promisify(execFile)(process.execPath, [script], { timeout: 45_000 });
    expect(stdout).toBe('40\n40\n');
    await rm(folder, { recursive: true });
  }, 60_000);
});
