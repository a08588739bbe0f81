// The project's goals, the one list of them: what a row is measured against, by workload and peer.
// `ratio`: at least, by dtype. `share`: of the machine's measured peak, at least. `most`: the value may not exceed it.

const goals = [
  { workload: 'train_step', peer: 'torch', ratio: { fp32: 1.4, bf16: 1.25 } },
  { workload: 'train_step', share: 0.8 },
  { workload: 'linear', match: ({ goal }) => goal === true, share: 0.9 },
  { workload: 'grpo_update', peer: 'TRL', ratio: { fp32: 4, bf16: 4 } },
  { workload: 'grpo_update', peer: 'lean-prefix', ratio: { fp32: 1.5, bf16: 1.5 } },
  { workload: 'grpo_step', peer: 'TRL', ratio: { fp32: 3.5, bf16: 4 } },
  { workload: 'grpo_step', peer: 'lean-prefix', ratio: { bf16: 1.5 } },
  { workload: 'grpo_step peak memory', peer: 'TRL', ratio: { fp32: 3, bf16: 3 } },
  { workload: 'decode', peer: 'transformers generate', ratio: { fp32: 4, bf16: 4 } },
  { workload: 'decode', peer: 'llama.cpp', match: ({ rows }) => rows === 64, ratio: { bf16: 2 } },
  { workload: 'decode', peer: 'llama.cpp', match: ({ rows }) => rows === 1, ratio: { bf16: 0.95 } },
  { workload: 'score', peer: 'transformers', ratio: { fp32: 2, bf16: 2 } },
  {
    workload: 'head_logprob',
    peer: 'torch log_softmax',
    match: ({ goal, passes }) => goal === true && passes === 1,
    ratio: { fp32: 1.2, bf16: 1.5 },
  },
  { workload: 'head_logprob extra memory', match: ({ goal, passes }) => goal === true && passes === 1, most: 128 },
  { workload: 'head_logprob extra memory', match: ({ goal, passes }) => goal === true && passes === 2, most: 16 },
  { workload: 'exactness cost', most: 5 },
];

/** The goal fields of a row, {} where it has none. `about` says more of its case: {goal, passes, rows}. */
export function goalOf({ workload, peer, dtype }, about = {}) {
  const found = goals.find(
    (one) =>
      one.workload === workload &&
      (one.peer === undefined || one.peer === peer) &&
      // A share of peak is a goal of our own rows.
      (one.share === undefined || peer === undefined) &&
      (one.ratio === undefined || one.ratio[dtype] !== undefined) &&
      (one.match === undefined || one.match(about)),
  );
  if (found === undefined) return {};
  if (found.ratio !== undefined) return { goal: found.ratio[dtype] };
  if (found.share !== undefined) return { goal: found.share, goalOf: 'share' };
  return { goal: found.most, goalOf: 'most' };
}

/** Whether a row with a goal meets it. */
export function met(row) {
  if (row.goalOf === 'share') return row.shareOfLimit >= row.goal;
  if (row.goalOf === 'most') return row.value <= row.goal;
  return row.ratio >= row.goal;
}

/** Rows decoded at once, for goals that tell one stream from many. */
export const rowsOf = (sizes) => (sizes.prompts ?? 0) * (sizes.G ?? 0);
