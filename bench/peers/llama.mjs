// Grouped decoding by llama.cpp through node-llama-cpp: one sequence a completion, all in one batch, the prompt run once a
// group and its state copied.  llama.mjs MODULE_FOLDER GGUF THREADS SIZES_JSON     (protocol of bench/session.mjs)
// The step loop is the package's own `sequence.evaluate`; `library` is what of it llama.cpp's decode calls took.
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import process from 'node:process';
import { peakMemoryBytes as memoryBytes } from '../../dist/runs/peak-memory.js';
import { promptOf } from '../engine/batches.mjs';

const [modules, file, threads, text] = process.argv.slice(2);
const sizes = JSON.parse(text);
const found = createRequire(join(modules, 'package.json')).resolve('node-llama-cpp');
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(found).href);
const llama = await getLlama({
  gpu: false,
  build: 'never',
  logLevel: LlamaLogLevel.error,
  maxThreads: Number(threads),
  skipDownload: true,
  progressLogs: false,
});
const model = await llama.loadModel({ modelPath: file });
const rows = sizes.prompts * sizes.G;
const context = await model.createContext({
  sequences: rows,
  contextSize: sizes.P + sizes.C,
  batchSize: Math.max(512, rows),
  threads: { ideal: Number(threads), min: Number(threads) },
  batching: { itemPrioritizationStrategy: 'firstInFirstOut' },
});
const sequences = Array.from({ length: rows }, () => context.getSequence());
const prompts = Array.from({ length: sizes.prompts }, (_, i) =>
  Array.from(promptOf(i, sizes, { vocab_size: sizes.V }).promptTokens),
);

// Methods of the native context cannot be replaced: it is called through an object of the same methods.
let library = 0;
let steps = 0;
const native = context._ctx;
const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(native)).filter((name) => name !== 'constructor');
context._ctx = Object.fromEntries(methods.map((name) => [name, native[name].bind(native)]));
context._ctx.decodeBatch = async () => {
  const started = performance.now();
  await native.decodeBatch();
  library += (performance.now() - started) / 1000;
  steps += 1;
};

let seed = 1;
// Its default filter, the 40 likeliest: drawing from all of them sorts the vocabulary at every token.
const drawFrom = (sequence, token) => sequence.evaluate([token], { temperature: 1, seed: seed++, yieldEogToken: true });

/** All rows step together and ask in the order of their ids: llama.cpp cuts a batch where ids do not follow each other. */
async function complete(count) {
  const streams = sequences.map((sequence, row) => drawFrom(sequence, prompts[Math.floor(row / sizes.G)].at(-1)));
  for (let step = 0; step < count; step++) {
    const drawn = await Promise.all(streams.map((stream) => stream.next()));
    if (drawn.some(({ done }) => done)) throw new Error('Expected another token but a sequence ended.');
  }
  await Promise.all(streams.map((stream) => stream.return()));
  return count * streams.length;
}

async function run(count) {
  const usage = process.cpuUsage();
  const started = performance.now();
  const prefix = (i) => prompts[i].slice(0, -1);
  for (const sequence of sequences) await sequence.clearHistory();
  const leaders = prompts.map((_, i) => sequences[i * sizes.G]);
  await Promise.all(leaders.map((leader, i) => leader.evaluateWithoutGeneratingNewTokens(prefix(i))));
  for (const [i, leader] of leaders.entries()) {
    for (const sequence of sequences.slice(i * sizes.G + 1, (i + 1) * sizes.G)) {
      // Internal to the package, but what llama.cpp's own users call llama_memory_seq_cp for.
      await sequence._copyStateFromOtherSequence(leader, prefix(i).length);
    }
  }
  const prefillSeconds = (performance.now() - started) / 1000;
  library = 0;
  steps = 0;
  const tokens = await complete(count);
  const { user, system } = process.cpuUsage(usage);
  const wall = (performance.now() - started) / 1000;
  const decodeSeconds = wall - prefillSeconds;
  return { wall, cpu: (user + system) / 1e6, prefillSeconds, decodeSeconds, librarySeconds: library, steps, tokens };
}

const answer = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);
answer({ ready: true, memoryBytes: memoryBytes() });
for await (const line of createInterface({ input: process.stdin })) {
  answer({ ...(await run(line.includes('warm') ? 4 : sizes.C)), memoryBytes: memoryBytes() });
}
process.exit(0);
