// Language head, log-prob and the clipped GRPO gradient back to hidden states and head: in one pass, which that gradient
// allows, and in two, which others need. The peer is the same for both.
import { logprobs } from 'gavel-rl/kernels';
import { floats } from './operands.mjs';

// One pass keeps a block's logits and needs each token's gradient to be its own; two passes compute logits again.
const shape = (t, v, h, passes = 2) => ({
  shape: `T ${t}, V ${v}, H ${h}, ${passes === 1 ? 'one pass' : 'two passes'}`,
  ...{ C: t, V: v, passes, sizes: [t, v, h, passes], peer: [t, v, h] },
});

export default {
  op: 'head_logprob',
  dtypes: ['fp32', 'bf16'],
  cases: [
    shape(1024, 4096, 256, 1),
    shape(1024, 49152, 576, 1),
    { ...shape(2048, 151936, 896, 1), goal: true },
    { ...shape(2048, 151936, 896, 2), goal: true },
  ],
  quick: [shape(64, 512, 64, 1), shape(64, 512, 64, 2)],
  memory: true,
  call(dtype, [t, vocabulary, hiddenSize, passes]) {
    if (dtype !== 'fp32' || passes !== 1 || t * vocabulary > 1 << 23) return undefined;
    const [hidden, weight] = [floats(t * hiddenSize), floats(vocabulary * hiddenSize)];
    const tokens = Int32Array.from({ length: t }, (_, i) => (i * 7919) % vocabulary);
    return {
      fn: () => logprobs(hidden, weight, tokens, { hiddenSize, vocabulary }),
      flop: 2 * t * vocabulary * hiddenSize,
    };
  },
};
