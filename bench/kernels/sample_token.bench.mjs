// Drawing one token a row under top-p.
import { sampleTokens } from 'gavel-rl/kernels';
import { floats } from './operands.mjs';

const shape = (b, v, percent) => ({
  shape: `B ${b}, top-p ${percent} %`,
  V: v,
  sizes: [b, v, percent],
  peer: [b, v, percent],
});

export default {
  op: 'sample_token',
  dtypes: ['fp32'],
  cases: [shape(64, 151936, 90), shape(64, 151936, 100)],
  quick: [shape(4, 512, 90)],
  call(_dtype, [b, vocabulary, percent]) {
    const logits = floats(b * vocabulary).map((value) => 8 * value);
    return { fn: () => sampleTokens(logits, { vocabulary, topP: percent / 100 }), bytes: 4 * b * vocabulary };
  },
};
