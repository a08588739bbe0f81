// docs/benchmarks.md from bench/results: the newest row of every measurement. Usage: node bench/report.mjs
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import process from 'node:process';
import { format, resolveConfig } from 'prettier';
import { projectRoot, quietShare } from './machine.mjs';
import { storedRows } from './rows.mjs';

const keyOf = (row) =>
  JSON.stringify([row.workload, row.shape, row.P, row.C, row.G, row.V, row.dtype, row.threads, row.peer]);

function newest(rows) {
  const kept = new Map();
  for (const row of rows) {
    const before = kept.get(keyOf(row));
    if (before === undefined || before.date <= row.date) kept.set(keyOf(row), row);
  }
  return [...kept.values()];
}

const number = (value) => {
  if (value === undefined || value === null) return '';
  if (value === 0) return '0';
  if (Math.abs(value) >= 100) return Math.round(value).toLocaleString('en-US');
  return Math.abs(value) < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
};
const percent = (value) => (value === null || value === undefined ? '' : `${Math.round(value * 100)} %`);

function sizes(row) {
  const letters = ['P', 'G', 'C', 'V'].filter((name) => row[name] !== null).map((name) => `${name} ${row[name]}`);
  const { shape = '' } = row;
  return [shape, ...letters.filter((text) => !shape.includes(text))].filter((text) => text !== '').join(', ');
}

function table(header, rows) {
  const line = (cells) => `| ${cells.map((cell) => String(cell ?? '').replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

const state = (row) => `${row.clock}${row.other > quietShare ? ', busy' : ''}`;

function peerTable(rows) {
  const header = [
    'workload',
    'sizes',
    'dtype',
    'threads',
    'ours',
    'peer',
    'its figure',
    'ratio',
    'lowest .. highest',
    'goal',
    'clock',
  ];
  const cells = rows.map((row) => [
    row.workload,
    sizes(row),
    row.dtype,
    row.threads,
    `${number(row.value)} ${row.unit}`,
    row.peer,
    number(row.peerValue),
    row.ratio === undefined ? '' : `**${number(row.ratio)}**`,
    row.ratio === undefined ? '' : `${number(row.ratioLow)} .. ${number(row.ratioHigh)}`,
    row.goal === undefined ? '' : `${row.goal} ${row.ratio >= row.goal ? 'met' : 'missed'}`,
    state(row),
  ]);
  return table(header, cells);
}

function ownTable(rows) {
  const cells = rows.map((row) => [
    row.workload,
    sizes(row),
    row.dtype,
    row.threads,
    `${number(row.value)} ${row.unit}`,
    percent(row.shareOfLimit),
    row.path ?? '',
    state(row),
  ]);
  return table(['workload', 'sizes', 'dtype', 'threads', 'value', 'of ceiling', 'path', 'clock'], cells);
}

function provenance(rows) {
  const groups = new Map();
  for (const row of rows) {
    const key = JSON.stringify([row.hardware, row.commit]);
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return [...groups.values()].map((group) => {
    const [first] = group;
    const dates = group.map((row) => row.date).sort();
    const loads = group.map((row) => row.load);
    const others = group.map((row) => row.other ?? 0);
    const versions = group.find((row) => row.versions)?.versions;
    return (
      `- ${first.hardware}; commit ${first.commit}; ${group.length} rows, ${dates[0].slice(0, 16)} to ${dates.at(-1).slice(0, 16)} UTC; ` +
      `load ${Math.min(...loads)} to ${Math.max(...loads)}; others used up to ${percent(Math.max(...others))} of the machine` +
      `${versions ? `; ${versions}` : ''}.`
    );
  });
}

/** Writes the page and returns its path. */
export async function writeReport() {
  const rows = newest(storedRows());
  const path = join(projectRoot, 'docs/benchmarks.md');
  const notes = join(projectRoot, 'bench/results/notes.md');
  const peers = rows.filter((row) => row.peer !== undefined);
  const peaks = rows.filter((row) => row.workload.startsWith('peak ') && row.peer === undefined);
  const own = rows.filter((row) => row.peer === undefined && !peaks.includes(row));
  const part = (title, body) => [`## ${title}`, '', body, ''];
  const text = [
    '# Benchmarks',
    '',
    'Written by `node bench/report.mjs` from `bench/results/*.jsonl`; every row there says where and when it was measured.',
    '`npm run bench` measures our own programs, `npm run bench:peers` the same work by PyTorch, transformers and TRL: processes',
    'stand by side by side and take turns (A B A B ...), a ratio is the median over pairs, its range the lowest and highest pair.',
    'Above 1 we are ahead (for memory: we need less). Operands are random. Rates of reinforcement learning count completion',
    'tokens. Prompts count once a group. Clock `wall` is elapsed time on a machine others left alone; `cpu` is user and system',
    'time of the process, taken for one thread where others did not (`busy`): it does not count waiting for a processor, but',
    'caches and memory were shared meanwhile. Figures of several threads are not recorded on a busy machine. Kernels of peers run',
    'with an allocator that keeps freed memory, so that they do not pay for fresh pages at every call; whole steps run as they are.',
    '',
    ...provenance(rows),
    '',
    ...(peaks.length === 0 ? [] : part("The machine's own ceilings", ownTable(peaks))),
    ...(peers.length === 0 ? [] : part('Against peers', peerTable(peers))),
    ...(own.length === 0 ? [] : part('Own figures', ownTable(own))),
    ...(existsSync(notes) ? [readFileSync(notes, 'utf8').trimEnd(), ''] : []),
  ].join('\n');
  writeFileSync(path, await format(text, { ...(await resolveConfig(path)), filepath: path }));
  return path;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(`written: ${await writeReport()}`);
