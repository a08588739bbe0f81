// What an H100 should take for the CUDA kernels as they stand, from shapes alone: nothing here is measured. Prints the tables
// of docs/performance-log.md. Usage: node bench/cuda-model.mjs
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './machine.mjs';

// NVIDIA's data sheet of the H100 SXM5: memory bandwidth, bf16 without sparsity; multiprocessors from its architecture paper.
const card = { bandwidth: 3.35e12, flops: 989e12, multiprocessors: 132 };
// Not of the data sheet: an assumption for everything enqueued, until a trace of a card says what it is.
const assumedGap = 3e-6;

const source = readFileSync(join(projectRoot, 'native/cuda/split.h'), 'utf8');
/** A constant of native/cuda/split.h, so that the model cuts as the kernels do. */
function constant(name) {
  const [, text] = new RegExp(`constexpr int64_t ${name} = ([\\d *]+);`).exec(source) ?? [];
  if (text === undefined) throw new Error(`Expected \`${name}\` in native/cuda/split.h.`);
  return text.split('*').reduce((product, factor) => product * Number(factor), 1);
}
const mostParts = constant('kMostParts');
const productBlocks = constant('kProductBlocks');
const leastDepth = constant('kLeastDepth');
const attentionBlocks = constant('kAttentionBlocks');
const leastKeyBlocks = constant('kLeastKeyBlocks');

const pieces = (value, step) => Math.ceil(value / step);
const partsThatFill = (blocks, wanted, most) =>
  Math.max(1, Math.min(Math.floor(wanted / blocks), Math.min(Math.floor(most), mostParts)));

/**
 * Seconds of a kernel: the busiest multiprocessor's share of its bytes and of its flops, each at a 132nd of the card's rate,
 * and at least its longest block's flops there.
 */
function kernel({ name, blocks, bytes = 0, flops = 0, longest = 0 }) {
  const { bandwidth, multiprocessors } = card;
  const busiest = (pieces(blocks, multiprocessors) * multiprocessors) / blocks;
  const limit = Math.max(bytes / bandwidth, flops / card.flops);
  return { name, limit, seconds: Math.max(limit * busiest, longest / (card.flops / multiprocessors)), launches: 1 };
}

function product(name, rows, columns, depth, fastest) {
  const low = rows <= 16;
  const large = rows > 64 && pieces(rows, 128) * pieces(columns, 128) >= card.multiprocessors;
  const tiles = large ? pieces(rows, 128) * pieces(columns, 128) : pieces(rows, low ? 16 : 64) * pieces(columns, 64);
  const most = Math.min(depth / leastDepth, depth / (4 * rows));
  const wanted = partsThatFill(tiles, productBlocks * card.multiprocessors, most);
  const parts =
    fastest && !large && 2 * tiles <= card.multiprocessors ? pieces(depth, pieces(pieces(depth, wanted), 32) * 32) : 1;
  const operands = 2 * (rows * depth + columns * depth);
  const flops = 2 * rows * columns * depth;
  const result = 2 * rows * columns;
  const limit = Math.max((operands + result) / card.bandwidth, flops / card.flops);
  if (parts === 1) return [{ ...kernel({ name, blocks: tiles, bytes: operands + result, flops }), limit, parts }];
  const sums = 4 * parts * rows * columns;
  return [
    { ...kernel({ name, blocks: tiles * parts, bytes: operands + sums, flops }), limit, parts },
    { ...kernel({ name, blocks: pieces(rows * columns, 1024), bytes: sums + result }), limit: 0, parts },
  ];
}

const stream = (name, rows, bytes) => kernel({ name, blocks: rows, bytes });
const vocabulary = 151936;
const shapes = [
  { model: '0.5B', hidden: 896, inner: 4864, layers: 24, heads: 14, kv: 2 },
  { model: '1.5B', hidden: 1536, inner: 8960, layers: 28, heads: 12, kv: 2 },
  { model: '3B', hidden: 2048, inner: 11008, layers: 36, heads: 16, kv: 2 },
].map((shape) => ({ ...shape, dim: shape.hidden / shape.heads }));

const repeated = (parts, times) =>
  parts.map((part) => ({
    ...part,
    limit: part.limit * times,
    seconds: part.seconds * times,
    launches: part.launches * times,
  }));

/** A step of `prompts` groups of `group` rows that see `prompt` shared and `drawn` own keys. */
function decodeStep(shape, { prompts, group, prompt, drawn }, fastest) {
  const { hidden, inner, layers, heads, kv, dim } = shape;
  const rows = prompts * group;
  const qkv = (heads + 2 * kv) * dim;
  const queries = pieces(group * (heads / kv), 16);
  const blocks = prompts * kv * queries;
  const keyBytes = 4 * kv * dim;
  const wanted = attentionBlocks * card.multiprocessors;
  const estimated = Math.max(prompts, pieces(rows * (heads / kv), 16)) * kv;
  const cut = partsThatFill(estimated, wanted, pieces(prompt + drawn, 64) / leastKeyBlocks);
  const parts = fastest ? cut : 1;
  const ownKeys = (prompt % 64) + drawn;
  const keys = keyBytes * (prompts * (prompt - (prompt % 64)) + rows * ownKeys);
  const states = parts > 1 ? 4 * parts * rows * heads * (dim + 2) : 0;
  const attention = kernel({ name: 'attention', blocks: blocks * parts, bytes: keys + states });
  attention.limit = keys / card.bandwidth;
  const merge = { ...kernel({ name: 'attention', blocks: prompts * heads, bytes: states }), limit: 0 };
  const layer = [
    stream('norms, rotary, SwiGLU', rows, 2 * 2 * rows * hidden),
    ...product('products', rows, qkv, hidden, fastest),
    stream('norms, rotary, SwiGLU', rows, 2 * 2 * rows * (heads + kv) * dim),
    stream('attention', rows, 2 * keyBytes * rows), // writes keys and values
    { ...attention, parts },
    ...(parts > 1 ? [merge] : []),
    ...product('products', rows, hidden, heads * dim, fastest),
    stream('norms, rotary, SwiGLU', rows, 2 * 2 * rows * hidden),
    ...product('products', rows, 2 * inner, hidden, fastest),
    stream('norms, rotary, SwiGLU', rows, 2 * 3 * rows * inner),
    ...product('products', rows, hidden, inner, fastest),
  ];
  const logits = 4 * rows * vocabulary;
  const head = kernel({
    name: 'head and draw',
    blocks: pieces(rows, 64) * pieces(vocabulary, 256),
    bytes: 2 * vocabulary * hidden + logits,
    flops: 2 * rows * vocabulary * hidden,
  });
  return [
    ...repeated(layer, layers),
    head,
    stream('head and draw', pieces(rows, 4), 8 * rows * pieces(vocabulary, 256)), // merges the tiles' sums
    stream('head and draw', rows, logits),
    stream('norms, rotary, SwiGLU', rows, 4 * rows * hidden),
  ];
}

/** Forward, recomputed forward and backward of `prompts` groups, a micro-batch each, then AdamW (bf16 with fp32 masters). */
function grpoUpdate(shape, { prompts, group, prompt, length }, fastest) {
  const { hidden, inner, layers, heads, kv, dim } = shape;
  const rows = prompt + group * length;
  const targets = group * length;
  const qkv = (heads + 2 * kv) * dim;
  const weights = [
    [qkv, hidden],
    [hidden, heads * dim],
    [2 * inner, hidden],
    [hidden, inner],
  ];
  const pairs = (prompt * (prompt + 1)) / 2 + group * (prompt * length + (length * (length + 1)) / 2);
  const tiles = pieces(prompt, 32) + group * pieces(length, 32);
  const chunks = pieces(32 * (heads / kv), 64);
  const keyBlocks = pieces(prompt, 64) + group * pieces((prompt % 64) + length, 64);
  const small = 2 * rows * (4 * hidden + 2 * (heads + kv) * dim + 3 * inner);
  const forward = [
    ...weights.flatMap(([n, k]) => product('products', rows, n, k, fastest)),
    kernel({ name: 'attention', blocks: tiles * kv * chunks, flops: 4 * pairs * heads * dim }),
    { ...stream('norms, rotary, SwiGLU', rows, small), launches: 4 },
  ];
  const gradient = (n, k) => {
    const side = pieces(n, 128) * pieces(k, 128) >= card.multiprocessors ? 128 : 64;
    return kernel({
      name: 'products',
      blocks: pieces(n, side) * pieces(k, side),
      bytes: 8 * n * k + 2 * rows * (n + k),
      flops: 2 * rows * n * k,
    });
  };
  const backward = [
    ...weights.flatMap(([n, k]) => [...product('products', rows, k, n, fastest), gradient(n, k)]),
    kernel({ name: 'attention', blocks: tiles * kv * chunks, flops: 6 * pairs * heads * dim }),
    // A block of the prompt is visited by every row of the group.
    kernel({
      name: 'attention',
      blocks: keyBlocks * kv,
      flops: 8 * pairs * heads * dim,
      longest: 8 * rows * 64 * (heads / kv) * dim,
    }),
    {
      ...stream('norms, rotary, SwiGLU', rows, 2 * rows * (6 * hidden + 2 * (heads + kv) * dim + 5 * inner)),
      launches: 4,
    },
  ];
  const logits = kernel({
    name: 'head',
    blocks: pieces(targets, 64) * pieces(vocabulary, 256),
    bytes: 2 * vocabulary * hidden,
    flops: 2 * targets * vocabulary * hidden,
  });
  // Logits for the log-probs, again for their gradient, then the gradients of hidden rows and of the table.
  const head = [logits, logits, logits, { ...logits, limit: logits.limit }];
  const parameters = layers * weights.reduce((sum, [n, k]) => sum + n * k, 0) + vocabulary * hidden;
  return [
    ...repeated([...forward, ...forward, ...backward], layers * prompts),
    ...repeated(head, prompts),
    stream('norm of the gradient, AdamW', parameters / 1024, (4 + 30) * parameters),
  ];
}

const milliseconds = (seconds) => (1e3 * seconds).toFixed(2);
const total = (parts, field) => parts.reduce((sum, part) => sum + part[field], 0);
const line = (cells) => `| ${cells.join(' | ')} |`;
const table = (header, rows) => [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');

const decodes = shapes.flatMap((shape) =>
  [
    { prompts: 32, group: 8 },
    { prompts: 32, group: 16 },
    { prompts: 1, group: 8 },
  ].map((rows) => {
    const sizes = { ...rows, prompt: 1500, drawn: 64 };
    return {
      name: `decode step, ${shape.model}, ${sizes.prompts} x G ${sizes.group}`,
      make: (fastest) => decodeStep(shape, sizes, fastest),
    };
  }),
);
const update = {
  name: 'GRPO update, 3B, 2 x G 8, P 1500, C 512',
  make: (fastest) => grpoUpdate(shapes[2], { prompts: 2, group: 8, prompt: 1500, length: 512 }, fastest),
};
const workloads = [...decodes, update].map(({ name, make }) => ({ name, exact: make(false), fastest: make(true) }));

console.log(
  table(
    ['workload', 'limit, ms', 'exact, ms', 'fastest, ms', 'exact / fastest', 'launches', 'their gaps, ms (assumed)'],
    workloads.map(({ name, exact, fastest }) => {
      const launches = total(exact, 'launches');
      return [
        name,
        milliseconds(total(exact, 'limit')),
        milliseconds(total(exact, 'seconds')),
        milliseconds(total(fastest, 'seconds')),
        (total(exact, 'seconds') / total(fastest, 'seconds')).toFixed(2),
        launches,
        milliseconds(launches * assumedGap),
      ];
    }),
  ),
);

// Few rows are what the first table is for; here what a run does most.
const gaps = workloads
  .filter(({ name }) => !name.includes(' 1 x ') || name.includes('3B'))
  .flatMap(({ name, exact, fastest }) => {
    const whole = total(exact, 'limit');
    const rowOf = (part, limit, own, other) => ({ name, part, limit, own, other, share: (own - limit) / whole });
    const parts = [...new Set(exact.map((one) => one.name))].map((part) => {
      const of = (list, field) => {
        const own = list.filter((one) => one.name === part);
        return total(own, field);
      };
      return rowOf(part, of(exact, 'limit'), of(exact, 'seconds'), of(fastest, 'seconds'));
    });
    const waits = [exact, fastest].map((list) => assumedGap * total(list, 'launches'));
    return [...parts, rowOf('gaps between launches (assumed)', 0, ...waits)];
  });
console.log();
console.log(
  table(
    ['workload', 'part', 'limit, ms', 'exact, ms', 'fastest, ms', 'gap of exact, share of the whole limit'],
    gaps
      .sort((a, b) => b.share - a.share)
      .filter(({ share }) => share >= 0.02)
      .map(({ name, part, limit, own, other, share }) => [
        name,
        part,
        milliseconds(limit),
        milliseconds(own),
        milliseconds(other),
        `${Math.round(100 * share)} %`,
      ]),
  ),
);

const few = [1, 8, 16, 32, 64, 256];
const { hidden, inner } = shapes[2];
console.log();
console.log(
  table(
    ['product of the 3B shape', ...few.map((rows) => `${rows} rows`)],
    [
      [2560, hidden],
      [hidden, hidden],
      [2 * inner, hidden],
      [hidden, inner],
    ].map(([n, k]) => [
      `${k} to ${n}`,
      ...few.map((rows) => {
        const [exact, fastest] = [false, true].map((mode) => product('', rows, n, k, mode));
        const ratio = total(exact, 'seconds') / total(fastest, 'seconds');
        return `${fastest[0].parts} parts, ${ratio.toFixed(2)}`;
      }),
    ]),
  ),
);
