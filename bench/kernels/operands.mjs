// Random operands for calls from JavaScript.
/** Uniform in [-1, 1) from a counter. */
export const floats = (count) =>
  Float32Array.from({ length: count }, (_, i) => (Math.imul(i + 1, 2654435761) >>> 8) / 2 ** 23 - 1);

/** The upper halves of fp32 values. */
export const toBf16 = (values) => Uint16Array.from(new Uint32Array(values.buffer), (bits) => bits >>> 16);
