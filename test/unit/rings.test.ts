// Imports and includes go downward only (docs/architecture.md): a folder may use folders of a lower ring, and itself.
import { readdirSync, readFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import ts from 'typescript';
import { describe, expect, it } from 'vitest';

const root = join(import.meta.dirname, '../..');

const typescriptRings: Readonly<Record<string, number>> = {
  errors: 0,
  schema: 0,
  pace: 0,
  seeded: 0,
  binding: 1,
  engine: 2,
  data: 3,
  // A reward function is given a row of `data`.
  rewards: 3.5,
  // Benchmarks are rows of `data`; it plots with `runs`.
  evaluation: 3.5,
  runs: 3,
  recipes: 4,
  'emoji-judge': 5,
  experiments: 6,
  // The public doors: what they gather lies below, and of what is above only the command line stays closed to them.
  index: 6,
  kernels: 6,
  cli: 7,
};

const nativeRings: Readonly<Record<string, number>> = {
  core: 0,
  ops: 1,
  reference: 2,
  cpu: 2,
  cuda: 2,
  model: 3,
  train: 4,
  sample: 4,
  addon: 5,
  // bench/native: cases that the tests run too.
  bench: 5,
  test: 6,
};

const cudaHeaders = /^(cuda|cublas|cudnn|nccl|cooperative_groups|mma\.h)/;

function filesBelow(folder: string, extension: RegExp): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) return filesBelow(path, extension);
    return extension.test(entry.name) ? [path] : [];
  });
}

/** The ring folder of 'src/data/jsonl.ts' is 'data', of 'src/errors.ts' 'errors'. */
const ringFolder = (path: string): string => (path.split('/')[1] ?? '').replace(/\.(ts|js)$/, '');

function upward(rings: Readonly<Record<string, number>>, from: string, to: string): boolean {
  const [own, other] = [rings[from], rings[to]];
  if (own === undefined || other === undefined) return true;
  return from !== to && other >= own && !(own === 0 && other === 0);
}

function typescriptViolations(path: string, text: string): string[] {
  const imports = ts.preProcessFile(text, true, true).importedFiles.map((file) => file.fileName);
  return imports
    .filter((name) => name.startsWith('.'))
    .map((name) => posix.join(posix.dirname(path), name))
    .filter((target) => target.startsWith('src/') && upward(typescriptRings, ringFolder(path), ringFolder(target)))
    .map((target) => `${path} imports ${target}`);
}

function nativeViolations(path: string, text: string): string[] {
  const folder = ringFolder(path);
  const includes = [...text.matchAll(/^\s*#\s*include\s+([<"])([^>"]+)[>"]/gm)];
  return includes.flatMap(([, kind, name]) => {
    if (kind === undefined || name === undefined) return [];
    if (/^(napi|node_api|js_native_api)/.test(name)) return folder === 'addon' ? [] : [`${path} includes ${name}`];
    if (cudaHeaders.test(name) && !name.startsWith('cuda/')) {
      return folder === 'cuda' ? [] : [`${path} includes ${name}`];
    }
    if (kind === '<' || name === 'gavel_build_id.h') return [];
    return upward(nativeRings, folder, name.split('/')[0] ?? '') ? [`${path} includes ${name}`] : [];
  });
}

describe('rings', () => {
  it('every TypeScript import goes downward', () => {
    const files = filesBelow('src', /\.ts$/);
    expect(files.length).toBeGreaterThan(3);
    expect(files.flatMap((path) => typescriptViolations(path, readFileSync(join(root, path), 'utf8')))).toEqual([]);
  });

  it('every native include goes downward; napi.h only in addon, CUDA headers only in cuda', () => {
    const files = filesBelow('native', /\.(h|cpp|cu|cuh)$/);
    expect(files.length).toBeGreaterThan(10);
    expect(files.flatMap((path) => nativeViolations(path, readFileSync(join(root, path), 'utf8')))).toEqual([]);
  });

  it('every folder of src and native has a ring', () => {
    const folders = (of: string): string[] =>
      readdirSync(join(root, of), { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && filesBelow(`${of}/${entry.name}`, /\.(ts|h|cpp|cu)$/).length > 0)
        .map((entry) => entry.name);
    expect(folders('src').filter((name) => typescriptRings[name] === undefined)).toEqual([]);
    expect(folders('native').filter((name) => nativeRings[name] === undefined)).toEqual([]);
  });

  it('finds planted violations', () => {
    expect(typescriptViolations('src/data/a.ts', "import { x } from '../recipes/b.js';")).toHaveLength(1);
    expect(typescriptViolations('src/data/a.ts', "const m = await import('../runs/b.js');")).toHaveLength(1);
    expect(typescriptViolations('src/data/a.ts', "export type { X } from '../engine/b.js';")).toEqual([]);
    expect(nativeViolations('native/core/a.h', '#include "ops/rms_norm.h"')).toHaveLength(1);
    expect(nativeViolations('native/model/a.cpp', '#include <napi.h>')).toHaveLength(1);
    expect(nativeViolations('native/cpu/a.cpp', '#include <cuda_runtime.h>')).toHaveLength(1);
    expect(nativeViolations('native/cuda/a.cu', '#include <cuda_runtime.h>\n#include "cuda/kernels.h"')).toEqual([]);
    expect(nativeViolations('native/train/a.cpp', '#include "sample/sampler.h"')).toHaveLength(1);
  });
});
