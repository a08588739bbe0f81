// The loader's failures, without a binary: every candidate with its cause, one error, one thing to do.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { loadNative, localBuilds } from '../../src/binding/load.js';
import { GavelError } from '../../src/errors.js';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gavel-load-'));
});
afterEach(() => {
  rmSync(folder, { recursive: true });
});

function failureOf(action: () => unknown): GavelError {
  try {
    action();
  } catch (error) {
    if (GavelError.is(error)) return error;
    throw error;
  }
  throw new Error('expected a GavelError');
}

describe('loadNative', () => {
  it('lists every candidate and names the command when there is no binary', () => {
    const error = failureOf(() => loadNative({ root: folder, env: {}, platform: 'linux-x64' }));
    expect(error.code).toBe('binary_missing');
    expect(error.message).toContain('npx gavel setup');
    expect(Object.keys(error.fields)).toEqual([
      '@gavel-rl/linux-x64',
      ...localBuilds.map((path) => join(folder, path)),
    ]);
    expect(Object.values(error.fields)).toEqual([
      'the package is not installed',
      ...localBuilds.map(() => 'no such file'),
    ]);
  });

  it('keeps the cause of a binary that does not load and goes on', () => {
    const broken = join(folder, localBuilds[0] ?? '');
    mkdirSync(dirname(broken), { recursive: true });
    writeFileSync(broken, 'not an ELF file');
    const error = failureOf(() => loadNative({ root: folder, env: {}, platform: 'linux-x64' }));
    expect(error.fields[broken]).toMatch(/invalid ELF header|file too short/);
    expect(error.fields[join(folder, localBuilds[2] ?? '')]).toBe('no such file');
  });

  it('takes GAVEL_NATIVE as a demand and tries nothing else', () => {
    const wanted = join(folder, 'mine.node');
    const error = failureOf(() => loadNative({ root: folder, env: { GAVEL_NATIVE: wanted }, platform: 'linux-x64' }));
    expect(error.code).toBe('binary_missing');
    expect(error.fields).toEqual({ [wanted]: 'no such file' });
    expect(error.message).toContain('GAVEL_NATIVE');
  });

  it('refuses a platform without kernels by name', () => {
    const error = failureOf(() => loadNative({ root: folder, env: {}, platform: 'darwin-arm64' }));
    expect(error.code).toBe('unsupported');
    expect(error.message).toMatch(/Expected one of linux-x64, linux-arm64 for `platform` but received "darwin-arm64"/);
  });

  it('does not remember a failure', () => {
    failureOf(() => loadNative({ root: folder, env: {}, platform: 'linux-x64' }));
    const error = failureOf(() => loadNative({ root: join(folder, 'other'), env: {}, platform: 'linux-x64' }));
    expect(Object.keys(error.fields)[1]).toBe(join(folder, 'other', localBuilds[0] ?? ''));
  });
});
