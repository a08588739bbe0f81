// Matrix products: out = x weight^T, and the gradients of both operands.
import { linear } from 'gavel-rl/kernels';
import { floats, toBf16 } from './operands.mjs';

const shape = (m, n, k, backward = 0) => ({
  shape: `${m} x ${k} by ${k} x ${n} ${backward ? 'backward' : 'forward'}`,
  sizes: [m, n, k, backward],
  peer: [m, n, k, backward],
});

export default {
  op: 'linear',
  dtypes: ['fp32', 'bf16'],
  cases: [
    { ...shape(2048, 2048, 2048), peak: true },
    { ...shape(2048, 2048, 2048, 1), peak: true },
    shape(1024, 1536, 576),
    shape(64, 4864, 896),
    shape(1, 4096, 4096),
  ],
  quick: [shape(64, 64, 64), shape(64, 64, 64, 1)],
  /** The call a user of `gavel-rl/kernels` makes: packing and copies included. */
  call(dtype, [m, n, k, backward]) {
    if (backward) return undefined;
    const make = dtype === 'bf16' ? (count) => toBf16(floats(count)) : floats;
    const [x, weight] = [make(m * k), make(n * k)];
    return { fn: () => linear(x, weight, m, n, k), flop: 2 * m * n * k };
  },
};
