// One source list and one set of flags for three builds.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { buildId, hashFiles, nativeFiles } from '../../scripts/build-id.mjs';
import { addonPaths } from '../../scripts/build-native.mjs';
import { readSources, sourcesFromFolders } from '../../scripts/sources.mjs';
import { availableBuilders, installPlan, missingPackages } from '../../scripts/toolchain.mjs';
import { localBuilds } from '../../src/binding/load.js';
import { builders } from '../../src/cli/setup.js';

const root = join(import.meta.dirname, '../..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

interface Manifest {
  gypfile: boolean;
  binary: { napi_versions: number[] };
  scripts: Record<string, string>;
  files: string[];
  dependencies: Record<string, string>;
}
const manifest = JSON.parse(read('package.json')) as Manifest;

describe('native/sources.json', () => {
  it('equals the folders', () => {
    expect(readSources()).toEqual(sourcesFromFolders().variables);
  });

  it('holds strings only, under names gyp leaves alone', () => {
    for (const [key, list] of Object.entries(readSources())) {
      expect(key).not.toMatch(/_(files|dirs|paths)$/);
      for (const source of list) expect(source).toMatch(/^native\/[a-z0-9_/]+\.(cpp|cu)$/);
    }
  });
});

describe('the three builds', () => {
  const texts = ['CMakeLists.txt', 'binding.gyp', 'scripts/build-plain.mjs'].map((path) => [path, read(path)] as const);

  it.each(texts)('%s keeps float arithmetic as written', (_path, text) => {
    for (const flag of ['-O3', '-ffp-contract=off', '-fno-math-errno']) expect(text).toContain(flag);
    expect(text).not.toMatch(/-march=|-mtune=|ffast-math|Ofast|funsafe-math/);
  });

  it.each(texts)('%s reads the one source list', (_path, text) => {
    expect(text).toMatch(/sources\.json|readSources/);
  });

  it('leave the addon where the loader looks, in its order', () => {
    expect(Object.values(addonPaths)).toEqual(localBuilds);
    expect(Object.keys(addonPaths)).toEqual([...builders]);
  });
});

describe('the build id', () => {
  it('names the version and leaves the tests out', () => {
    const { version } = JSON.parse(read('package.json')) as { version: string };
    expect(buildId()).toMatch(new RegExp(`^${version.replaceAll('.', '\\.')}-[0-9a-f]{16}$`));
    expect(nativeFiles()).toContain('native/core/plugin.h');
    expect(nativeFiles().filter((file: string) => file.startsWith('native/test/'))).toEqual([]);
  });

  it('changes with any file and not with their order', () => {
    const files = ['native/core/plugin.h', 'native/core/status.h'];
    expect(hashFiles(files)).toBe(hashFiles([...files].reverse()));
    expect(hashFiles(files)).not.toBe(hashFiles(files.slice(0, 1)));
  });
});

describe('the toolchain', () => {
  const full = { compiler: '/c', make: '/m', ninja: '/n', cmake: '/k', python: '/p', nodeGyp: '/g' };

  it('falls from CMake to node-gyp to the plain compiler', () => {
    expect(availableBuilders(full)).toEqual(['cmake', 'gyp', 'plain']);
    expect(availableBuilders({ ...full, cmake: undefined })).toEqual(['gyp', 'plain']);
    expect(availableBuilders({ ...full, cmake: undefined, python: undefined })).toEqual(['plain']);
    expect(availableBuilders({ ...full, compiler: undefined })).toEqual([]);
  });

  it('asks for nothing when nothing is missing, and names what is', () => {
    expect(installPlan(full)).toBeUndefined();
    expect(missingPackages({ ...full, make: undefined }, 'g++')).toEqual([]);
    const bare = { ...full, compiler: undefined, make: undefined, ninja: undefined, cmake: undefined };
    expect(missingPackages(bare, 'gcc-c++')).toEqual(['gcc-c++', 'make', 'cmake']);
    expect(installPlan(bare)?.line).toMatch(/make cmake|make, cmake/);
  });
});

describe('package.json', () => {
  it('runs nothing on install and downloads no headers', () => {
    for (const hook of ['preinstall', 'install', 'postinstall', 'prepare'])
      expect(manifest.scripts[hook]).toBeUndefined();
    expect(manifest.gypfile).toBe(false);
    expect(manifest.binary.napi_versions).toEqual([8]);
  });

  it('ships what `gavel setup` needs', () => {
    expect(manifest.files).toEqual(expect.arrayContaining(['native', '!native/test', 'CMakeLists.txt', 'binding.gyp']));
    expect(Object.keys(manifest.dependencies)).toEqual(expect.arrayContaining(['node-addon-api', 'node-api-headers']));
  });
});
