/** Effective rank against singular values from PyTorch in float64, and its own bounds. */
import { describe, expect, it } from 'vitest';
import { effectiveRank } from '../../src/evaluation/effective-rank.js';

const matrix = (rows: number, size: number): Float32Array =>
  Float32Array.from({ length: rows * size }, (_, at) => {
    const [i, j] = [Math.floor(at / size), at % size];
    return Math.sin(i * 7 + j * 3 + 1) * (j + 1) ** -0.5 + 0.1 * Math.cos(i * j);
  });

describe('effective rank', () => {
  it.each([
    [5, 3, 1.0808057041886603],
    [3, 5, 1.1069167535700157],
    [40, 17, 2.2681354599548915],
    [17, 40, 2.7155116759795437],
  ])('of %i states of size %i', async (rows, size, expected) => {
    expect(await effectiveRank(matrix(rows, size), size)).toBeCloseTo(expected, 5);
  });

  it('is the number of equally used directions', async () => {
    const identity = new Float32Array(64);
    for (let i = 0; i < 8; i++) identity[i * 9] = 2.5;
    expect(await effectiveRank(identity, 8)).toBeCloseTo(8, 10);
    expect(await effectiveRank(new Float32Array(8).fill(3), 4)).toBeCloseTo(1, 10);
    expect(await effectiveRank(new Float32Array(8), 4)).toBe(1);
    expect(await effectiveRank(Float32Array.of(1, 2, 3), 3)).toBe(1);
  });

  it('refuses a part of a row and numbers that are not finite', async () => {
    await expect(effectiveRank(new Float32Array(7), 4)).rejects.toThrow(/whole number of rows of 4/);
    await expect(effectiveRank(Float32Array.of(1, NaN, 2, 3), 2)).rejects.toMatchObject({ code: 'non_finite' });
  });
});
