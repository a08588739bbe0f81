// The project's goals, the one list of them: what a row is measured against, by workload and peer.
// `ratio`: at least, by dtype. `share`: of the machine's measured peak, at least. `most`: the value may not exceed it.
// `threads`: the counts it is measured with, where not all of them: the least or the most.

const goals = [
  { workload: 'train_step', peer: 'torch', ratio: { fp32: 1.4, bf16: 1.25 } },
  { workload: 'train_step', share: 0.8 },
  { workload: 'linear', match: ({ goal }) => goal === true, share: 0.9 },
  { workload: 'grpo_update', peer: 'TRL', ratio: { fp32: 4, bf16: 4 } },
  { workload: 'grpo_update', peer: 'lean-prefix', ratio: { bf16: 1.5 } },
  { workload: 'grpo_step', peer: 'TRL', ratio: { fp32: 3.5, bf16: 4 } },
  { workload: 'grpo_step', peer: 'lean-prefix', ratio: { bf16: 1.5 } },
  { workload: 'grpo_step peak memory', peer: 'TRL', ratio: { fp32: 3, bf16: 3 } },
  { workload: 'decode', peer: 'transformers generate', match: ({ rows }) => rows > 1, ratio: { fp32: 4, bf16: 4 } },
  { workload: 'decode', peer: 'llama.cpp', match: ({ rows }) => rows === 64, ratio: { bf16: 2 }, threads: 'most' },
  { workload: 'decode', peer: 'llama.cpp', match: ({ rows }) => rows === 1, ratio: { bf16: 0.95 } },
  { workload: 'score', peer: 'transformers', ratio: { fp32: 2, bf16: 2 } },
  {
    workload: 'head_logprob',
    peer: 'torch log_softmax',
    match: ({ goal, calls }) => goal === true && calls === 1,
    ratio: { fp32: 1.2, bf16: 1.5 },
    threads: 'most',
  },
  {
    workload: 'head_logprob extra memory',
    peer: 'torch log_softmax',
    match: ({ goal, calls }) => goal === true && calls === 1,
    most: 128,
    threads: 'most',
  },
  {
    workload: 'head_logprob extra memory',
    peer: 'torch log_softmax',
    match: ({ goal, calls }) => goal === true && calls === 2,
    most: 16,
    threads: 'most',
  },
  {
    workload: 'exactness cost',
    match: ({ step }) => step === 'grpo_step',
    most: 5,
    dtypes: ['bf16'],
    threads: 'least',
  },
];

const goalFor = ({ workload, peer, dtype }, about) =>
  goals.find(
    (one) =>
      one.workload === workload &&
      (one.peer === undefined || one.peer === peer) &&
      // A share of peak is a goal of our own rows.
      (one.share === undefined || peer === undefined) &&
      (one.ratio === undefined || one.ratio[dtype] !== undefined) &&
      (one.match === undefined || one.match(about)),
  );

/** The goal fields of a row, {} where it has none. `about` says more of its case: {goal, calls, rows}. */
export function goalOf(row, about = {}) {
  const found = goalFor(row, about);
  if (found === undefined) return {};
  if (found.ratio !== undefined) return { goal: found.ratio[row.dtype] };
  if (found.share !== undefined) return { goal: found.share, goalOf: 'share' };
  return { goal: found.most, goalOf: 'most' };
}

/** Rows with goals in the order of the list, fewer threads first. */
export function inOrder(rows) {
  const place = (row) =>
    goals.findIndex(({ workload, peer }) => workload === row.workload && (peer ?? row.peer) === row.peer);
  return [...rows].sort(
    (a, b) =>
      place(a) - place(b) ||
      String(a.shape).localeCompare(b.shape) ||
      b.dtype.localeCompare(a.dtype) ||
      a.threads - b.threads,
  );
}

/**
 * What no row of `rows` shows of the goals, as [row, thread counts]; a case is {row: {workload, shape, P, C, G, V}, about}. The
 * thread counts that matter are those of the rows with goals.
 */
export function unmeasured(rows, cases) {
  const shown = rows.filter((row) => row.goal !== undefined);
  const all = [...new Set(shown.map(({ threads }) => threads))].sort((a, b) => a - b);
  const counts = { all, least: all.slice(0, 1), most: all.slice(-1) };
  return goals.flatMap(
    ({ workload, peer, match, ratio, dtypes = ratio ? Object.keys(ratio) : ['fp32', 'bf16'], threads = 'all' }) =>
      cases
        .filter(({ row, about }) => row.workload === workload && (match === undefined || match(about)))
        .flatMap(({ row: one }) =>
          dtypes.map((dtype) => {
            const wanted = { ...one, peer, dtype };
            const found = shown.filter((row) => Object.entries(wanted).every(([name, value]) => row[name] === value));
            return [wanted, counts[threads].filter((count) => !found.some((row) => row.threads === count))];
          }),
        )
        .filter(([, missing]) => missing.length > 0),
  );
}

/** Whether a row with a goal meets it. */
export function met(row) {
  if (row.goalOf === 'share') return row.shareOfLimit >= row.goal;
  if (row.goalOf === 'most') return row.value <= row.goal;
  return row.ratio >= row.goal;
}

/** Rows decoded at once, for goals that tell one stream from many. */
export const rowsOf = (sizes) => (sizes.prompts ?? 0) * (sizes.G ?? 0);
