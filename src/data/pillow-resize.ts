/**
 * Pillow's 8-bit resize, bit for bit: coefficients in double, rounded to 22-bit fixed point, a horizontal pass rounded to
 * bytes, then a vertical one. Source: Pillow's Resample.c (precompute_coeffs, normalize_coeffs_8bpc) and Image.resize.
 */

/** The filters of PIL.Image.Resampling that this file has. */
export type ResizeFilter = 'lanczos' | 'bilinear' | 'bicubic' | 'box' | 'hamming';

/** PIL.Image.Resampling by number; 0 (nearest) samples without a filter and is not among them. */
export const filtersByNumber: Readonly<Record<number, ResizeFilter>> = {
  1: 'lanczos',
  2: 'bilinear',
  3: 'bicubic',
  4: 'box',
  5: 'hamming',
};

const precisionBits = 32 - 8 - 2;
const half = 1 << (precisionBits - 1);

function sinc(x: number): number {
  if (x === 0) return 1;
  const angle = x * Math.PI;
  return Math.sin(angle) / angle;
}

function bicubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

function hamming(x: number): number {
  const d = Math.abs(x);
  if (d === 0) return 1;
  if (d >= 1) return 0;
  const angle = d * Math.PI;
  return (Math.sin(angle) / angle) * (0.54 + 0.46 * Math.cos(angle));
}

const filters: Readonly<Record<ResizeFilter, { support: number; weight: (x: number) => number }>> = {
  lanczos: { support: 3, weight: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
  bilinear: { support: 1, weight: (x) => (Math.abs(x) < 1 ? 1 - Math.abs(x) : 0) },
  bicubic: { support: 2, weight: bicubic },
  box: { support: 0.5, weight: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  hamming: { support: 1, weight: hamming },
};

/** For each output position: the first input position, how many follow, and `stride` fixed-point weights. */
interface Coefficients {
  stride: number;
  starts: Int32Array;
  counts: Int32Array;
  weights: Int32Array;
}

function precomputeCoefficients(inSize: number, outSize: number, filter: ResizeFilter): Coefficients {
  const { support: filterSupport, weight: weightAt } = filters[filter];
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = filterSupport * filterScale;
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
      const weight = weightAt((i + start - center + 0.5) * inverse);
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

function coefficients(inSize: number, outSize: number, filter: ResizeFilter): Coefficients {
  const key = `${inSize}:${outSize}:${filter}`;
  let found = cache.get(key);
  if (found === undefined) {
    found = precomputeCoefficients(inSize, outSize, filter);
    if (cache.size >= cacheLimit) cache.delete(cache.keys().next().value!);
    cache.set(key, found);
  }
  return found;
}

// Between the two passes; kept from picture to picture, because buffers of this size are what wakes the garbage collector.
let scratch = new Uint8ClampedArray(0);
const scratchLimit = 1 << 25;

function scratchOf(size: number): Uint8ClampedArray {
  if (size > scratchLimit) return new Uint8ClampedArray(size);
  if (scratch.length < size) scratch = new Uint8ClampedArray(size);
  return scratch;
}

/**
 * Resizes 8-bit RGB [height, width, 3] to [outHeight, outWidth, 3], as PIL.Image.resize does. A picture of the right size
 * is returned as it is, not copied.
 */
export function pillowResize(
  rgb: Uint8Array,
  height: number,
  width: number,
  outHeight: number,
  outWidth: number,
  filter: ResizeFilter = 'bicubic',
): Uint8Array {
  if (height === outHeight && width === outWidth) return rgb;
  const out = new Uint8Array(outHeight * outWidth * 3);
  const target = new Uint8ClampedArray(out.buffer);
  const source = new Uint8ClampedArray(rgb.buffer, rgb.byteOffset, rgb.length);
  const across = coefficients(width, outWidth, filter);
  const down = coefficients(height, outHeight, filter);
  if (width === outWidth) resizeRows(target, source, outHeight, width, down);
  else if (height === outHeight) resizeColumns(target, source, height, width, outWidth, across);
  else if (height > width * 100 && outHeight < height) {
    // Pillow takes the rows first where a very tall picture shrinks; the two orders round differently.
    const short = scratchOf(outHeight * width * 3);
    resizeRows(short, source, outHeight, width, down);
    resizeColumns(target, short, outHeight, width, outWidth, across);
  } else {
    const wide = scratchOf(height * outWidth * 3);
    resizeColumns(wide, source, height, width, outWidth, across);
    resizeRows(target, wide, outHeight, outWidth, down);
  }
  return out;
}

// Sums stay below 2^31: a byte times weights of 22 bits whose sum is 1. `| 0` keeps them machine integers.
function resizeColumns(
  out: Uint8ClampedArray,
  rgb: Uint8ClampedArray,
  height: number,
  width: number,
  outWidth: number,
  { stride, starts, counts, weights }: Coefficients,
): void {
  let to = 0;
  for (let y = 0; y < height; y++) {
    const rowStart = y * width;
    for (let x = 0; x < outWidth; x++) {
      let r = half;
      let g = half;
      let b = half;
      let from = (rowStart + starts[x]!) * 3;
      const first = x * stride;
      const last = first + counts[x]!;
      let k = first;
      // Four taps at a time: enlarging has four or five, and the loop around them would cost as much as they do.
      for (; k + 4 <= last; k += 4) {
        const w0 = weights[k]!;
        const w1 = weights[k + 1]!;
        const w2 = weights[k + 2]!;
        const w3 = weights[k + 3]!;
        const r01 = (Math.imul(rgb[from]!, w0) + Math.imul(rgb[from + 3]!, w1)) | 0;
        const g01 = (Math.imul(rgb[from + 1]!, w0) + Math.imul(rgb[from + 4]!, w1)) | 0;
        const b01 = (Math.imul(rgb[from + 2]!, w0) + Math.imul(rgb[from + 5]!, w1)) | 0;
        const r23 = (Math.imul(rgb[from + 6]!, w2) + Math.imul(rgb[from + 9]!, w3)) | 0;
        const g23 = (Math.imul(rgb[from + 7]!, w2) + Math.imul(rgb[from + 10]!, w3)) | 0;
        const b23 = (Math.imul(rgb[from + 8]!, w2) + Math.imul(rgb[from + 11]!, w3)) | 0;
        r = (r + ((r01 + r23) | 0)) | 0;
        g = (g + ((g01 + g23) | 0)) | 0;
        b = (b + ((b01 + b23) | 0)) | 0;
        from += 12;
      }
      for (; k < last; k++) {
        const weight = weights[k]!;
        r = (r + Math.imul(rgb[from]!, weight)) | 0;
        g = (g + Math.imul(rgb[from + 1]!, weight)) | 0;
        b = (b + Math.imul(rgb[from + 2]!, weight)) | 0;
        from += 3;
      }
      out[to] = r >> precisionBits;
      out[to + 1] = g >> precisionBits;
      out[to + 2] = b >> precisionBits;
      to += 3;
    }
  }
}

function resizeRows(
  out: Uint8ClampedArray,
  rgb: Uint8ClampedArray,
  outHeight: number,
  width: number,
  { stride, starts, counts, weights }: Coefficients,
): void {
  const rowSize = width * 3;
  const sums = new Int32Array(rowSize);
  for (let y = 0; y < outHeight; y++) {
    const count = counts[y]!;
    const first = y * stride;
    const from = starts[y]! * rowSize;
    // Four rows at a time: all but the last few of a shrinking picture go through the sums, the rest straight to bytes.
    let k = 0;
    if (count > 4) {
      sums.fill(half);
      for (; k + 4 < count; k += 4) addFourRows(sums, rgb, from + k * rowSize, rowSize, weights, first + k);
      finishRow(out, y * rowSize, sums, rgb, from + k * rowSize, rowSize, weights, first + k, count - k);
    } else {
      const w0 = weights[first]!;
      const w1 = count > 1 ? weights[first + 1]! : 0;
      const w2 = count > 2 ? weights[first + 2]! : 0;
      const w3 = count > 3 ? weights[first + 3]! : 0;
      // A row past the last has weight 0: any row inside the picture may stand for it.
      const step1 = count > 1 ? rowSize : 0;
      const step2 = count > 2 ? 2 * rowSize : 0;
      const step3 = count > 3 ? 3 * rowSize : 0;
      for (let i = 0, at = from, to = y * rowSize; i < rowSize; i++, at++, to++) {
        const low = (Math.imul(rgb[at]!, w0) + Math.imul(rgb[at + step1]!, w1)) | 0;
        const high = (Math.imul(rgb[at + step2]!, w2) + Math.imul(rgb[at + step3]!, w3)) | 0;
        out[to] = (((low + high) | 0) + half) >> precisionBits;
      }
    }
  }
}

function addFourRows(
  sums: Int32Array,
  rgb: Uint8ClampedArray,
  from: number,
  rowSize: number,
  weights: Int32Array,
  first: number,
): void {
  const w0 = weights[first]!;
  const w1 = weights[first + 1]!;
  const w2 = weights[first + 2]!;
  const w3 = weights[first + 3]!;
  for (let i = 0, at = from; i < rowSize; i++, at++) {
    const low = (Math.imul(rgb[at]!, w0) + Math.imul(rgb[at + rowSize]!, w1)) | 0;
    const high = (Math.imul(rgb[at + 2 * rowSize]!, w2) + Math.imul(rgb[at + 3 * rowSize]!, w3)) | 0;
    sums[i] = (sums[i]! + ((low + high) | 0)) | 0;
  }
}

/** The last one to four rows. */
function finishRow(
  out: Uint8ClampedArray,
  to: number,
  sums: Int32Array,
  rgb: Uint8ClampedArray,
  from: number,
  rowSize: number,
  weights: Int32Array,
  first: number,
  count: number,
): void {
  for (let k = 0; k < count - 1; k++) {
    const weight = weights[first + k]!;
    for (let i = 0, at = from + k * rowSize; i < rowSize; i++, at++) {
      sums[i] = (sums[i]! + Math.imul(rgb[at]!, weight)) | 0;
    }
  }
  const weight = weights[first + count - 1]!;
  for (let i = 0, at = from + (count - 1) * rowSize; i < rowSize; i++, at++) {
    out[to + i] = ((sums[i]! + Math.imul(rgb[at]!, weight)) | 0) >> precisionBits;
  }
}
