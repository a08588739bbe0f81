// The build id: a hash over the native sources and the package version, compiled into the addon and the CUDA plugin.
// The addon refuses a plugin with another id, since their structs are shared by layout.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectRoot } from './sources.mjs';

/** @returns {string[]} */
function filesBelow(root, folder) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return filesBelow(root, path);
    return entry.isFile() ? [path] : [];
  });
}

/**
 * A hex digest over names and contents of `files` (paths from `root`), whatever their order.
 * @param {readonly string[]} files
 */
export function hashFiles(files, root = projectRoot) {
  const hash = createHash('sha256');
  for (const file of [...files].sort()) {
    hash.update(file).update('\0');
    hash.update(readFileSync(join(root, file))).update('\0');
  }
  return hash.digest('hex');
}

/**
 * Native sources and headers the addon and the plugin are made of (tests are not).
 * @returns {string[]}
 */
export function nativeFiles(root = projectRoot) {
  return filesBelow(root, 'native').filter(
    (file) => /\.(cpp|h|cu|cuh|json)$/.test(file) && !file.startsWith('native/test/'),
  );
}

/** "0.1.0-0123456789abcdef": package version and the first 16 digits of the hash over the native sources. */
export function buildId(root = projectRoot) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  return `${version}-${hashFiles(nativeFiles(root), root).slice(0, 16)}`;
}

/** Writes the generated header, only when its content changes, so that nothing is compiled again for nothing. */
export function writeBuildIdHeader(path, root = projectRoot) {
  const text = `#pragma once\n#define GAVEL_BUILD_ID "${buildId(root)}"\n`;
  if (existsSync(path) && readFileSync(path, 'utf8') === text) return;
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const path = process.argv[2];
  if (path === undefined) console.log(buildId());
  else writeBuildIdHeader(path);
}
