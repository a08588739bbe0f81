// SwiGLU, forward and backward.
const shape = (t, f) => ({ shape: `${t} x ${f}`, sizes: [t, f], peer: [t, f] });

export default {
  op: 'swiglu',
  dtypes: ['fp32', 'bf16'],
  cases: [shape(2048, 4864)],
  quick: [shape(64, 64)],
};
