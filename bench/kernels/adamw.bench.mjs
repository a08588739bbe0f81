// AdamW over one parameter; bf16 values have fp32 masters.
export default {
  op: 'adamw',
  dtypes: ['fp32', 'bf16'],
  peerDtypes: ['fp32'],
  cases: [
    { shape: '10 M parameters', sizes: [10_000_000], peer: [10_000_000] },
    { shape: '40 M parameters', sizes: [40_000_000], peer: [40_000_000] },
  ],
  quick: [{ shape: '10 k parameters', sizes: [10_000], peer: [10_000] }],
};
