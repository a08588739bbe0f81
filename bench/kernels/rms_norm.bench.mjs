// RMS norm, forward and backward.
import { rmsNorm } from 'gavel-rl/kernels';
import { floats } from './operands.mjs';

const shape = (t, h) => ({ shape: `${t} x ${h}`, sizes: [t, h], peer: [t, h] });

export default {
  op: 'rms_norm',
  dtypes: ['fp32', 'bf16'],
  cases: [shape(2048, 896)],
  quick: [shape(64, 64)],
  call(dtype, [t, h]) {
    if (dtype !== 'fp32') return undefined;
    const [x, weight] = [floats(t * h), floats(h)];
    return { fn: () => rmsNorm(x, weight), bytes: 8 * t * h };
  },
};
