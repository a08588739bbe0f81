/**
 * Pillow's 8-bit bicubic resize, bit for bit: coefficients in double, rounded to 22-bit fixed point, a horizontal pass
 * rounded to bytes, then a vertical one. Source: Pillow's Resample.c (precompute_coeffs, normalize_coeffs_8bpc) and
 * Image.resize.
 */

const precisionBits = 32 - 8 - 2;
const half = 1 << (precisionBits - 1);

/** For each output position: the first input position, how many follow, and `stride` fixed-point weights. */
interface Coefficients {
  stride: number;
  starts: Int32Array;
  counts: Int32Array;
  weights: Int32Array;
}

function bicubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

function precomputeCoefficients(inSize: number, outSize: number): Coefficients {
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = 2 * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(outSize);
  const counts = new Int32Array(outSize);
  const weights = new Int32Array(outSize * stride);
  const row = new Float64Array(stride);
  const inverse = 1 / filterScale;
  for (let out = 0; out < outSize; out++) {
    const center = (out + 0.5) * scale;
    const start = Math.max(Math.trunc(center - support + 0.5), 0);
    const count = Math.min(Math.trunc(center + support + 0.5), inSize) - start;
    let total = 0;
    for (let i = 0; i < count; i++) {
      const weight = bicubic((i + start - center + 0.5) * inverse);
      row[i] = weight;
      total += weight;
    }
    for (let i = 0; i < count; i++) {
      const weight = total === 0 ? row[i]! : row[i]! / total;
      const fixed = weight * (1 << precisionBits);
      weights[out * stride + i] = Math.trunc(weight < 0 ? fixed - 0.5 : fixed + 0.5);
    }
    starts[out] = start;
    counts[out] = count;
  }
  return { stride, starts, counts, weights };
}

const cache = new Map<string, Coefficients>();
const cacheLimit = 128;

function coefficients(inSize: number, outSize: number): Coefficients {
  const key = `${inSize}:${outSize}`;
  let found = cache.get(key);
  if (found === undefined) {
    found = precomputeCoefficients(inSize, outSize);
    if (cache.size >= cacheLimit) cache.delete(cache.keys().next().value!);
    cache.set(key, found);
  }
  return found;
}

/**
 * Resizes 8-bit RGB [height, width, 3] to [outHeight, outWidth, 3], as PIL.Image.resize(..., BICUBIC) does. A picture of
 * the right size is returned as it is, not copied.
 */
export function pillowResizeBicubic(
  rgb: Uint8Array,
  height: number,
  width: number,
  outHeight: number,
  outWidth: number,
): Uint8Array {
  // Pillow takes the rows first where a very tall picture shrinks; the two orders round differently.
  if (height > width * 100 && outHeight < height) {
    const short = resizeRows(rgb, height, outHeight, width);
    return width === outWidth ? short : resizeColumns(short, outHeight, width, outWidth);
  }
  const wide = width === outWidth ? rgb : resizeColumns(rgb, height, width, outWidth);
  return height === outHeight ? wide : resizeRows(wide, height, outHeight, outWidth);
}

function resizeColumns(rgb: Uint8Array, height: number, width: number, outWidth: number): Uint8Array {
  const { stride, starts, counts, weights } = coefficients(width, outWidth);
  const out = new Uint8Array(height * outWidth * 3);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < outWidth; x++) {
      let r = half;
      let g = half;
      let b = half;
      let from = (y * width + starts[x]!) * 3;
      const first = x * stride;
      const last = first + counts[x]!;
      for (let k = first; k < last; k++, from += 3) {
        const weight = weights[k]!;
        r += rgb[from]! * weight;
        g += rgb[from + 1]! * weight;
        b += rgb[from + 2]! * weight;
      }
      const to = (y * outWidth + x) * 3;
      out[to] = clamp(r);
      out[to + 1] = clamp(g);
      out[to + 2] = clamp(b);
    }
  }
  return out;
}

function resizeRows(rgb: Uint8Array, height: number, outHeight: number, width: number): Uint8Array {
  const { stride, starts, counts, weights } = coefficients(height, outHeight);
  const rowSize = width * 3;
  const out = new Uint8Array(outHeight * rowSize);
  const sums = new Int32Array(rowSize);
  for (let y = 0; y < outHeight; y++) {
    sums.fill(half);
    for (let k = 0; k < counts[y]!; k++) {
      const weight = weights[y * stride + k]!;
      const from = (starts[y]! + k) * rowSize;
      for (let i = 0; i < rowSize; i++) sums[i]! += rgb[from + i]! * weight;
    }
    const to = y * rowSize;
    for (let i = 0; i < rowSize; i++) out[to + i] = clamp(sums[i]!);
  }
  return out;
}

function clamp(sum: number): number {
  const value = sum >> precisionBits;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
