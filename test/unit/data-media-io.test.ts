// A disk that fails while a file's pictures are looked at: the rows are not at fault.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { JsonlDataset } from '../../src/data/jsonl.js';

const failing = vi.hoisted(() => ({ code: '' }));
vi.mock('node:fs/promises', async (original) => {
  const real = await original<typeof import('node:fs/promises')>();
  const stat = (async (path: string, ...rest: never[]) => {
    if (path.endsWith('.png')) throw Object.assign(new Error('no luck'), { code: failing.code, syscall: 'stat' });
    return real.stat(path, ...rest);
  }) as typeof real.stat;
  return { ...real, stat };
});

it.each([
  ['EMFILE', 'rejects'],
  ['EIO', 'rejects'],
  ['EACCES', 'skips'],
  ['ENOENT', 'skips'],
])('%s of a picture: opening %s', async (code, outcome) => {
  failing.code = code;
  const folder = await mkdtemp(join(tmpdir(), 'gavel-media-io-'));
  try {
    const path = join(folder, 'rows.jsonl');
    const rows = [{ prompt: 'a text' }, { prompt: '<image>', images: ['good.png'] }];
    await writeFile(path, rows.map((row) => JSON.stringify(row)).join('\n'));
    const opening = JsonlDataset.open(path, { onBadRow: 'skip' });
    if (outcome === 'rejects')
      return await expect(opening).rejects.toMatchObject({
        code: 'io',
        message: expect.stringContaining(code) as string,
      });
    await using data = await opening;
    expect([data.size, data.numSkipped]).toEqual([1, 1]);
  } finally {
    await rm(folder, { recursive: true });
  }
});
