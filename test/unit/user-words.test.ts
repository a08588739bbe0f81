import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { inUserWords } from '../../src/cli/user-words.js';
import { openData, openPairs } from '../../src/data/open-data.js';
import { GavelError } from '../../src/errors.js';
import { recipeNames } from '../../src/recipes/run-config.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gavel-words-'));
  await writeFile(join(folder, 'rows.jsonl'), '{"prompt":"a"}\n');
  await writeFile(join(folder, 'pairs.jsonl'), '{"prompt":"a","chosen":"b","rejected":"c"}\n');
});
afterAll(() => rm(folder, { recursive: true }));

it('a file of the wrong kind is told by the recipes that take it, and every recipe takes one kind', async () => {
  const wrong = [() => openData(join(folder, 'pairs.jsonl')), () => openPairs(join(folder, 'rows.jsonl'))];
  const named: string[] = [];
  for (const open of wrong) {
    const told = inUserWords(await open().catch((cause: unknown) => cause)) as GavelError;
    expect(told.code).toBe('bad_data');
    expect(told.message).toMatch(/^Expected .* at .*\.jsonl:1 but received .* are for the recipes /);
    expect(told.message).not.toMatch(/openData|openPairs/);
    named.push(...told.message.split('for the recipes ')[1]!.match(/[a-z0-9]+(-[a-z]+)*/g)!);
  }
  const known: readonly string[] = recipeNames;
  expect(named.filter((name) => known.includes(name)).sort()).toEqual([...known].sort());
});

it('other errors stay themselves', () => {
  for (const error of [new Error('a'), new GavelError('io', 'b', { fields: { received: 'rows' } }), 'c'])
    expect(inUserWords(error)).toBe(error);
});
