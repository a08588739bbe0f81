// AdamW over one parameter; bf16 values have fp32 masters. Sizes: parameters, bytes of a moment, 1 with a master.
const narrow = [
  { shape: '10 M parameters, bf16 moments', sizes: [10_000_000, 2, 1] },
  { shape: '10 M parameters, 8-bit moments', sizes: [10_000_000, 1, 1] },
  { shape: '10 M parameters, 8-bit moments, stochastic bf16', sizes: [10_000_000, 1, 0] },
];

export default {
  op: 'adamw',
  dtypes: ['fp32', 'bf16'],
  peerDtypes: ['fp32'],
  cases: [
    { shape: '10 M parameters', sizes: [10_000_000], peer: [10_000_000] },
    { shape: '40 M parameters', sizes: [40_000_000], peer: [40_000_000] },
    ...narrow,
  ],
  quick: [{ shape: '10 k parameters', sizes: [10_000], peer: [10_000] }],
};
