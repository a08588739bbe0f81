// Compiles one module of src and all it imports from there, without a build: transpiled into node_modules/.cache, in a
// folder named by content, so that threads and child processes can run sources as they are now. Works on every Node.
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

function collectSources(path, sources = new Map()) {
  if (sources.has(path)) return sources;
  const text = readFileSync(path, 'utf8');
  sources.set(path, text);
  for (const [, specifier] of text.matchAll(/from '(\.{1,2}\/[^']+)\.js'/g)) {
    collectSources(resolve(dirname(path), `${specifier}.ts`), sources);
  }
  return sources;
}

/** The address of the compiled form of `entry`, a path from the project root such as 'src/data/worker.ts'. */
export async function compileSources(entry) {
  const sources = collectSources(join(root, entry));
  const hash = createHash('sha256');
  for (const path of [...sources.keys()].sort()) hash.update(path).update('\0').update(sources.get(path)).update('\0');
  const cache = join(root, 'node_modules/.cache/gavel-sources');
  const folder = join(cache, hash.digest('hex').slice(0, 24));
  if (!existsSync(folder)) await compileInto(folder, join(cache, randomUUID()), sources);
  return pathToFileURL(join(folder, entry.replace(/\.ts$/, '.js'))).href;
}

async function compileInto(folder, draft, sources) {
  const { default: ts } = await import('typescript');
  const compilerOptions = { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022, verbatimModuleSyntax: true };
  for (const [path, text] of sources) {
    const out = join(draft, relative(root, path).replace(/\.ts$/, '.js'));
    mkdirSync(dirname(out), { recursive: true });
    writeFileSync(out, ts.transpileModule(text, { compilerOptions, fileName: path }).outputText);
  }
  writeFileSync(join(draft, 'package.json'), '{"type":"module"}');
  try {
    renameSync(draft, folder);
  } catch (error) {
    // Another thread was first with the same content.
    rmSync(draft, { recursive: true });
    if (!existsSync(folder)) throw error;
  }
}
