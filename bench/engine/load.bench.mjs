// Loading and saving a checkpoint against reading and writing the same bytes: GB of the file a second, page cache warm.
import { createEngine } from 'gavel-rl';
import { closeSync, fsyncSync, openSync, readSync, rmSync, statSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import process from 'node:process';
import { busySeconds, otherShare } from '../machine.mjs';
import { clockOf, median } from '../statistics.mjs';
import { withFolder } from './shapes.mjs';

const chunkBytes = 1 << 20;
const stored = {
  BF16: { bytes: 2, name: 'bfloat16' },
  F16: { bytes: 2, name: 'float16' },
  F32: { bytes: 4, name: 'float32' },
};
const pairs = [
  ['BF16', 'bf16'],
  ['BF16', 'fp32'],
  ['F16', 'fp32'],
  ['F32', 'fp32'],
  ['F32', 'bf16'],
];

/** A Qwen2 decoder with tied embeddings of `layers` layers, 1024 wide. */
const configOf = (layers, vocabulary, dtype) => ({
  architectures: ['Qwen2ForCausalLM'],
  model_type: 'qwen2',
  hidden_act: 'silu',
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: layers,
  num_attention_heads: 16,
  num_key_value_heads: 4,
  vocab_size: vocabulary,
  rms_norm_eps: 1e-6,
  rope_parameters: { rope_type: 'default', rope_theta: 1e6 },
  max_position_embeddings: 4096,
  tie_word_embeddings: true,
  eos_token_id: 2,
  dtype: stored[dtype].name,
});

function shapesOf(config) {
  const { hidden_size: h, intermediate_size: f, vocab_size: v } = config;
  const kv = (h / config.num_attention_heads) * config.num_key_value_heads;
  const layer = (i) => [
    [`model.layers.${i}.input_layernorm.weight`, [h]],
    [`model.layers.${i}.mlp.down_proj.weight`, [h, f]],
    [`model.layers.${i}.mlp.gate_proj.weight`, [f, h]],
    [`model.layers.${i}.mlp.up_proj.weight`, [f, h]],
    [`model.layers.${i}.post_attention_layernorm.weight`, [h]],
    ...[
      ['q', h],
      ['k', kv],
      ['v', kv],
    ].flatMap(([name, rows]) => [
      [`model.layers.${i}.self_attn.${name}_proj.weight`, [rows, h]],
      [`model.layers.${i}.self_attn.${name}_proj.bias`, [rows]],
    ]),
    [`model.layers.${i}.self_attn.o_proj.weight`, [h, h]],
  ];
  return [
    ['model.embed_tokens.weight', [v, h]],
    ...Array.from({ length: config.num_hidden_layers }, (_, i) => layer(i)).flat(),
    ['model.norm.weight', [h]],
  ];
}

const count = (shape) => shape.reduce((product, size) => product * size, 1);

/** Writes config.json and model.safetensors with numbers near 1, the same chunk again and again. */
function writeModel(folder, layers, vocabulary, dtype) {
  const config = configOf(layers, vocabulary, dtype);
  writeFileSync(join(folder, 'config.json'), JSON.stringify(config));
  let end = 0;
  const entries = shapesOf(config).map(([name, shape]) => {
    const begin = end;
    end += count(shape) * stored[dtype].bytes;
    return [name, { dtype, shape, data_offsets: [begin, end] }];
  });
  const text = JSON.stringify(Object.fromEntries(entries));
  const header = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, 0x20);
  header.writeBigUInt64LE(BigInt(header.length - 8));
  header.write(text, 8);
  const chunk = Buffer.alloc(chunkBytes);
  for (let i = 0; i < chunkBytes; i += 4) chunk.writeUInt32LE((0x3c003c00 + (Math.imul(i, 2654435761) >>> 9)) >>> 0, i);
  const file = openSync(join(folder, 'model.safetensors'), 'w');
  writeSync(file, header);
  for (let left = end; left > 0; left -= chunkBytes) writeSync(file, chunk, 0, Math.min(left, chunkBytes));
  closeSync(file);
}

/** Reads a file as `cat` would: the bound of loading. */
function readBytes(path) {
  const file = openSync(path, 'r');
  const chunk = Buffer.allocUnsafe(chunkBytes);
  while (readSync(file, chunk, 0, chunkBytes, null) > 0);
  closeSync(file);
}

function writeBytes(path, size) {
  const file = openSync(path, 'w');
  const chunk = Buffer.alloc(chunkBytes, 1);
  for (let left = size; left > 0; left -= chunkBytes) writeSync(file, chunk, 0, Math.min(left, chunkBytes));
  fsyncSync(file);
  closeSync(file);
}

async function measure(work) {
  const busy = busySeconds();
  const usage = process.cpuUsage();
  const started = performance.now();
  await work();
  const wall = (performance.now() - started) / 1000;
  const { user, system } = process.cpuUsage(usage);
  const cpu = (user + system) / 1e6;
  return { wall, cpu, other: otherShare(busySeconds() - busy, cpu, wall) };
}

async function rounds(times, work) {
  const samples = [];
  for (let i = 0; i < times; i++) samples.push(await measure(work));
  return samples;
}

async function benchPair({ results, threads, rounds: times }, folder, [dtype, weights]) {
  const path = join(folder, 'model.safetensors');
  const sizeBytes = statSync(path).size;
  const engine = await createEngine({ threads });
  try {
    await rounds(1, () => readBytes(path));
    const reading = await rounds(times, () => readBytes(path));
    const loading = await rounds(times, async () => (await engine.loadModel(folder, { dtype: weights })).dispose());
    const add = (workload, samples, bound) => {
      const clock = clockOf(samples, threads);
      const seconds = median(samples.map((sample) => sample[clock.clock] ?? sample.wall));
      const boundSeconds = median(bound.map((sample) => sample[clock.clock] ?? sample.wall));
      const shape = `${dtype} file of ${Math.round(sizeBytes / 1e6)} MB`;
      const row = { workload, shape, dtype: weights, threads, ...clock, runs: times, seconds };
      const share = { shareOfLimit: boundSeconds / seconds, limit: sizeBytes / boundSeconds };
      results.add({ ...row, value: sizeBytes / 1e9 / seconds, unit: 'GB/s', ...share });
    };
    add('load', loading, reading);
    if (stored[dtype].bytes !== (weights === 'bf16' ? 2 : 4)) return;
    const model = await engine.loadModel(folder, { dtype: weights });
    const target = join(folder, 'saved');
    const saving = await rounds(times, () => model.exportHf(target));
    const writing = await rounds(times, () => writeBytes(join(folder, 'plain.bin'), sizeBytes));
    rmSync(target, { recursive: true });
    rmSync(join(folder, 'plain.bin'));
    add('save', saving, writing);
  } finally {
    await engine.dispose();
  }
}

/** Every file and thread count, as work to be done. */
export function loadCases({ results, threads, rounds: times, selected, quick }) {
  if (!selected('load')) return [];
  return pairs.flatMap((pair) =>
    threads.map((number) => ({
      name: 'load',
      seconds: 8,
      run: () =>
        withFolder(async (folder) => {
          writeModel(folder, ...(quick ? [1, 1024] : [stored[pair[0]].bytes === 2 ? 14 : 7, 16384]), pair[0]);
          await benchPair({ results, threads: number, rounds: times }, folder, pair);
        }),
    })),
  );
}
