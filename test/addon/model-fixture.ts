/** Small models for the addon tier: the committed golden checkpoints and folders that go away with the test. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { Group, ImageInput } from '../../src/engine/index.js';

export const goldens = join(import.meta.dirname, '../goldens');
export const textFolder = join(goldens, 'micro-text');
export const visionFolder = join(goldens, 'micro-vl');

/** A folder that is removed after the test. */
export async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-addon-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

export const textGroup = (seed = 0, completions = 2): Group => ({
  promptTokens: Int32Array.from([5, 9, 33, 21, 7].map((token) => token + seed)),
  images: [],
  completions: Array.from({ length: completions }, (_, i) => ({
    tokens: Int32Array.from([11 + i, 45, 3 + seed, 77, 505]),
    advantage: i % 2 === 0 ? 0.5 : -0.5,
  })),
});

/** One 28x28 image of the vision golden: 2x2 patches, one merged token. */
export const tinyImage = (): ImageInput => ({
  pixels: Float32Array.from({ length: 4 * 1176 }, (_, i) => Math.sin(i / 50)),
  grid: [1, 2, 2],
});

export const visionGroup = (): Group => ({
  promptTokens: Int32Array.of(5, 9, 506, 508, 507, 7),
  images: [tinyImage()],
  completions: [{ tokens: Int32Array.of(12, 45, 505), advantage: 1 }],
});

/** Equal bit for bit, NaN and signed zeros included. */
export function sameBits(a: Float32Array, b: Float32Array): boolean {
  const bytes = (array: Float32Array): Buffer => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  return a.length > 0 && bytes(a).equals(bytes(b));
}
