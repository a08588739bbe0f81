/**
 * Effective rank of hidden states (Roy and Vetterli, 2007, with squared singular values as JRM reports it): how many
 * directions a representation uses. exp(-sum p_k log p_k), p_k = s_k^2 / sum s^2, over the singular values of the matrix as it
 * is. Eigenvalues by Householder tridiagonalization and implicit QL (Golub and Van Loan, Matrix Computations, 8.3).
 */
import { expected } from '../errors.js';

/** What lets other work run between the rows of a long computation. */
export type Breathe = () => Promise<void>;

/**
 * Effective rank of states [rows, size], row-major: between 1 and min(rows, size); 1 for states that are all zero. Time grows
 * with min(rows, size)^3. Errors: 'invalid_argument' for a part of a row, 'non_finite'.
 */
export async function effectiveRank(states: Float32Array, size: number, breathe: Breathe = nothing): Promise<number> {
  const rows = states.length / size;
  if (!Number.isInteger(rows) || rows < 1)
    throw expected('invalid_argument', 'states', `a whole number of rows of ${size}`, `${states.length} numbers`);
  const squares = (await gramEigenvalues(states, rows, size, breathe)).map((value) => Math.max(0, value));
  const total = squares.reduce((sum, value) => sum + value, 0);
  if (!Number.isFinite(total)) throw expected('non_finite', 'states', 'finite numbers', total);
  if (total === 0) return 1;
  const entropy = squares.reduce(
    (sum, value) => (value === 0 ? sum : sum - (value / total) * Math.log(value / total)),
    0,
  );
  return Math.exp(entropy);
}

const nothing: Breathe = () => Promise.resolve();

/** Squared singular values: eigenvalues of the smaller of X X^T and X^T X. */
async function gramEigenvalues(states: Float32Array, rows: number, size: number, breathe: Breathe): Promise<number[]> {
  const byRows = rows < size;
  const [count, length] = byRows ? [rows, size] : [size, rows];
  const [outer, inner] = byRows ? [size, 1] : [1, size];
  const gram = Array.from({ length: count }, () => new Float64Array(count));
  for (let i = 0; i < count; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = 0;
      for (let k = 0; k < length; k++) sum += states[i * outer + k * inner]! * states[j * outer + k * inner]!;
      gram[i]![j] = gram[j]![i] = sum;
    }
    await breathe();
  }
  const { diagonal, offDiagonal } = await tridiagonal(gram, breathe);
  return implicitQl(diagonal, offDiagonal);
}

/** Householder reflections from the last row up; `matrix` is overwritten. */
async function tridiagonal(
  matrix: Float64Array[],
  breathe: Breathe,
): Promise<{ diagonal: Float64Array; offDiagonal: Float64Array }> {
  const n = matrix.length;
  const diagonal = new Float64Array(n);
  const offDiagonal = new Float64Array(n);
  for (let i = n - 1; i > 0; i--) {
    const row = matrix[i]!;
    const norm = Math.hypot(...row.subarray(0, i));
    const pivot = row[i - 1]!;
    const alpha = pivot >= 0 ? -norm : norm;
    offDiagonal[i] = alpha;
    const vector = Float64Array.from(row.subarray(0, i));
    vector[i - 1] = pivot - alpha;
    const half = vector.reduce((sum, value) => sum + value * value, 0) / 2;
    if (half > 0) {
      // A' = A - v w^T - w v^T with w = p - (v p / 2h) v, p = A v / h.
      const p = new Float64Array(i);
      for (let r = 0; r < i; r++) {
        let sum = 0;
        for (let c = 0; c < i; c++) sum += matrix[r]![c]! * vector[c]!;
        p[r] = sum / half;
      }
      const scale = p.reduce((sum, value, r) => sum + value * vector[r]!, 0) / (2 * half);
      for (let r = 0; r < i; r++) p[r]! -= scale * vector[r]!;
      for (let r = 0; r < i; r++) {
        for (let c = 0; c < i; c++) matrix[r]![c]! -= vector[r]! * p[c]! + p[r]! * vector[c]!;
      }
    }
    diagonal[i] = row[i]!;
    await breathe();
  }
  diagonal[0] = matrix[0]![0]!;
  return { diagonal, offDiagonal };
}

/** Eigenvalues of a symmetric tridiagonal matrix; `offDiagonal[i]` stands between i - 1 and i. */
function implicitQl(diagonal: Float64Array, offDiagonal: Float64Array): number[] {
  const n = diagonal.length;
  const e = Float64Array.from({ length: n }, (_, i) => (i + 1 < n ? offDiagonal[i + 1]! : 0));
  const d = diagonal;
  for (let l = 0; l < n; l++) {
    for (let iteration = 0; ; iteration++) {
      let m = l;
      while (m < n - 1 && Math.abs(e[m]!) > Number.EPSILON * (Math.abs(d[m]!) + Math.abs(d[m + 1]!))) m++;
      if (m === l) break;
      if (iteration === 100) throw expected('non_finite', 'states', 'finite numbers', 'numbers without eigenvalues');
      let g = (d[l + 1]! - d[l]!) / (2 * e[l]!);
      let r = Math.hypot(g, 1);
      g = d[m]! - d[l]! + e[l]! / (g + Math.sign(g || 1) * r);
      let [s, c, p] = [1, 1, 0];
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * e[i]!;
        const b = c * e[i]!;
        r = Math.hypot(f, g);
        e[i + 1] = r;
        if (r === 0) {
          d[i + 1]! -= p;
          e[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = d[i + 1]! - p;
        r = (d[i]! - g) * s + 2 * c * b;
        p = s * r;
        d[i + 1] = g + p;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      d[l]! -= p;
      e[l] = g;
      e[m] = 0;
    }
  }
  return [...d];
}
