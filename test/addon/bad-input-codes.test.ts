// Every code that bad input can cause has a case; the rest have their tests elsewhere.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { errorCodes } from '../../src/index.js';

it('the cases cover every code that input can cause', () => {
  const files = readdirSync(import.meta.dirname).filter((name) => /^bad-input-.*\.test\.ts$/.test(name));
  const text = files.map((name) => readFileSync(join(import.meta.dirname, name), 'utf8')).join('\n');
  const covered = [...text.matchAll(/^ +code: '(\w+)',$/gm)].map(([, code]) => code!);
  // engine.test.ts, verbs.test.ts and recipes.test.ts of this folder, test/unit/load.test.ts, and bad-input-disk.test.ts.
  const elsewhere = [
    'device_unavailable',
    'binary_missing',
    'gate_refused',
    'aborted',
    'disposed',
    'internal',
    'disk_full',
  ];
  expect([...new Set([...covered, ...elsewhere])].sort()).toEqual([...errorCodes].sort());
});
