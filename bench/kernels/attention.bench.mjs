// Causal attention, forward and backward: one sequence, and a group whose prompt is shared.
import { attention } from 'gavel-rl/kernels';
import { floats } from './operands.mjs';

const sequence = (t, q, k, d) => ({
  shape: `T ${t}, ${q}:${k} heads of ${d}`,
  P: t,
  sizes: [t, 0, 0, q, k, d],
  peer: [t, q, k, d],
});
const group = (p, g, c, q, k, d) => ({
  shape: `group, ${q}:${k} heads of ${d}`,
  P: p,
  G: g,
  C: c,
  sizes: [p, g, c, q, k, d],
});

export default {
  op: 'attention',
  dtypes: ['fp32', 'bf16'],
  cases: [
    sequence(2048, 14, 14, 64),
    sequence(2048, 14, 2, 64),
    sequence(512, 6, 2, 64),
    group(1000, 8, 256, 14, 2, 64),
  ],
  quick: [sequence(64, 2, 1, 32)],
  call(dtype, [tokens, completions, , queryHeads, kvHeads, headDim]) {
    if (dtype !== 'fp32' || completions > 0) return undefined;
    const [q, k, v] = [queryHeads, kvHeads, kvHeads].map((heads) => floats(tokens * heads * headDim));
    const options = { tokens, queryHeads, kvHeads, headDim };
    return { fn: () => attention(q, k, v, options), flop: 2 * tokens * (tokens + 1) * queryHeads * headDim };
  },
};
