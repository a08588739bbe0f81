// The one list of native sources, native/sources.json, rewritten from what lies in the folders.
// CMake reads it, gyp includes it, the plain build compiles it; `--check` only compares.
// Strings only: gyp refuses `true`, CMake refuses comments, and gyp rewrites names that end in _files or _dirs.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = dirname(dirname(fileURLToPath(import.meta.url)));

const lists = {
  core_sources: {
    folders: ['core', 'ops', 'reference', 'cpu', 'model', 'train', 'sample'],
    extensions: ['.cpp'],
  },
  binding_sources: { folders: ['addon'], extensions: ['.cpp'] },
  test_sources: { folders: ['test'], extensions: ['.cpp'], without: ['native/test/cuda/', 'native/test/emulation/'] },
  cuda_sources: { folders: ['cuda'], extensions: ['.cpp', '.cu'] },
  cuda_test_sources: { folders: ['test/cuda'], extensions: ['.cpp'] },
  emulation_test_sources: { folders: ['test/emulation'], extensions: ['.cpp'] },
};

function listFolder(root, folder, extensions) {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return listFolder(root, path, extensions);
    return extensions.some((extension) => entry.name.endsWith(extension)) ? [path] : [];
  });
}

/** The source list the folders of `root` call for, in the shape of native/sources.json. */
export function sourcesFromFolders(root = projectRoot) {
  const variables = {};
  for (const [key, { folders, extensions, without = [] }] of Object.entries(lists)) {
    const files = folders.flatMap((folder) => listFolder(root, `native/${folder}`, extensions));
    variables[key] = files.filter((file) => !without.some((folder) => file.startsWith(folder))).sort();
  }
  return { variables };
}

/**
 * The committed list.
 * @returns {Record<string, string[]>}
 */
export function readSources(root = projectRoot) {
  return JSON.parse(readFileSync(join(root, 'native/sources.json'), 'utf8')).variables;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = join(projectRoot, 'native/sources.json');
  const wanted = `${JSON.stringify(sourcesFromFolders(), null, 2)}\n`;
  const present = existsSync(path) ? readFileSync(path, 'utf8') : '';
  if (wanted === present) {
    console.log('native/sources.json is up to date');
  } else if (process.argv.includes('--check')) {
    console.error('native/sources.json differs from the folders. Run: node scripts/sources.mjs');
    process.exitCode = 1;
  } else {
    writeFileSync(path, wanted);
    console.log('native/sources.json rewritten');
  }
}
