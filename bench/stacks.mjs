// Samples of `perf script` as stacks of short names, each with the kind of work it belongs to.

/** Kinds of work by what stands nearest the leaf of a stack. */
const kinds = [
  ['optimizer', /adamw|global_norm/],
  [
    'attention',
    /attention|Amx(Walk|Backward)|score_half|add_half|weigh_keys|cpu::(\(anonymous namespace\)::)?multiply\b/,
  ],
  ['head and log-probs', /head_logprob|head_tile|sample_token/],
  ['SwiGLU, norms, rotary embedding', /swiglu|rms_norm|rope|rotate/],
  ['linear layers', /linear|multiply_rows|multiply_outer|accumulate_outer|gemm/],
];

/** Frames that say nothing of what is computed. */
const plumbing =
  /_Function_handler|ThreadPool|JobThread|Bridge|NativeModel|ModelHost|start_thread|clone3|unknown|_FUN|^std::|__invoke|entry_SYSCALL/;

/** `gavel::cpu::run_avx512<gavel::cpu::for_rows<gavel::cpu::swiglu_forward(...)...` is swiglu_forward. */
function shortName(symbol) {
  const op = /(\w+_(?:forward|backward))\(/.exec(symbol);
  if (op !== null) return op[1];
  return symbol
    .replaceAll('(anonymous namespace)::', '')
    .replace(/^gavel::(cpu::)?/, '')
    .replace(/[<(].*$/, '');
}

/** Stacks of `perf script`, from root to leaf, of the engine's own thread. */
export function foldStacks(text) {
  return (
    text
      .split('\n\n')
      .map((sample) => {
        const lines = sample.split('\n').filter((line) => /^\s+[0-9a-f]+ /.test(line));
        return lines
          .map((line) => /^\s+([0-9a-f]+) (.*)$/.exec(line))
          .map(([, address, symbol]) => ({ address, symbol }));
      })
      // Kernels of tiles use the frame pointer for themselves: their stacks may end early, but they are the engine's.
      .filter(
        (frames) =>
          frames.some(({ symbol }) => symbol.includes('JobThread::loop')) || frames[0]?.symbol.includes('gavel::cpu'),
      )
      .map((frames) => {
        const kernel = frames.some(({ address }) => address.startsWith('ffffffff8'));
        const own = frames.filter(({ address, symbol }) => !address.startsWith('ffffffff') && !plumbing.test(symbol));
        const op = frames
          .map(({ symbol }) => symbol)
          .find((symbol) => kinds.some(([, pattern]) => pattern.test(symbol)));
        const kind = kernel
          ? 'operating system (fresh pages)'
          : (kinds.find(([, pattern]) => pattern.test(op ?? ''))?.[0] ?? 'other');
        const names = own.map(({ symbol }) => shortName(symbol)).reverse();
        return {
          kind,
          stack: names.filter((name, i) => name !== names[i - 1]).concat(kernel ? ['(operating system)'] : []),
        };
      })
      .filter(({ stack }) => stack.length > 0)
  );
}
