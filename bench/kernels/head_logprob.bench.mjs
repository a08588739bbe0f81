// Language head, log-prob and the clipped GRPO gradient back to hidden states and head: in one call, which that gradient
// allows, and in two, which others need. The peer is the same for both.
import { logprobs } from 'gavel-rl/kernels';
import { floats } from './operands.mjs';

// One call may keep a block's logits until each token's gradient is known; bf16 on AMX computes them again, as it is faster
// there. Two calls, forward and backward, always compute them again.
const shape = (t, v, h, calls = 2) => ({
  shape: `T ${t}, V ${v}, H ${h}, ${calls === 1 ? 'one call' : 'two calls'}`,
  ...{ C: t, V: v, calls, sizes: [t, v, h, calls], peer: [t, v, h] },
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
  call(dtype, [t, vocabulary, hiddenSize, calls]) {
    if (dtype !== 'fp32' || calls !== 1 || t * vocabulary > 1 << 23) return undefined;
    const [hidden, weight] = [floats(t * hiddenSize), floats(vocabulary * hiddenSize)];
    const tokens = Int32Array.from({ length: t }, (_, i) => (i * 7919) % vocabulary);
    return {
      fn: () => logprobs(hidden, weight, tokens, { hiddenSize, vocabulary }),
      flop: 2 * t * vocabulary * hiddenSize,
    };
  },
};
