// docs/benchmarks.md from bench/results: the newest row of every measurement. Usage: node bench/report.mjs
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import process from 'node:process';
import { format, resolveConfig } from 'prettier';
import { inOrder, met, unmeasured } from './goals.mjs';
import { projectRoot, quietShare } from './machine.mjs';
import { curvesPart } from './plots.mjs';
import { storedRows } from './rows.mjs';

const keyOf = (row) =>
  JSON.stringify(
    ['workload', 'shape', 'P', 'C', 'G', 'V', 'dtype', 'threads', 'peer', 'curve', 'rows', 'kind'].map(
      (name) => row[name],
    ),
  );

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
    row.goal === undefined ? '' : verdict(row),
    state(row),
  ]);
  return table(header, cells);
}

const verdict = (row) => `${row.goal} ${met(row) ? 'met' : '**missed**'}`;

/** What a goal asks of a row, and what was measured, as one says them. */
function wanted(row) {
  if (row.goalOf === 'share') return [`>= ${percent(row.goal)} of peak`, percent(row.shareOfLimit)];
  if (row.goalOf === 'most') return [`<= ${row.goal} ${row.unit}`, `${number(row.value)} ${row.unit}`];
  return [`>= ${row.goal}`, `${number(row.ratio)} (${number(row.ratioLow)} .. ${number(row.ratioHigh)})`];
}

function goalTable(rows) {
  const cells = rows.map((row) => [
    row.workload,
    sizes(row),
    row.dtype,
    row.threads,
    row.peer ?? '',
    ...wanted(row),
    `${met(row) ? 'met' : '**missed**'}${row.other > quietShare ? ' (busy)' : ''}`,
  ]);
  return table(['workload', 'sizes', 'dtype', 'threads', 'peer', 'goal', 'measured', ''], cells);
}

/** A line that names the goals nobody measured. */
function notMeasured(rows) {
  const names = unmeasured(rows).map((parts) => parts.filter((part) => part !== '').join(', '));
  return names.length === 0 ? [] : [`Not measured: ${names.join('; ')}.`, ''];
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

/** Shares of a GRPO step by kind of work, with the flame graphs that `npm run bench -- --profile` drew. */
function profilePart(rows) {
  const dtypes = [...new Set(rows.map(({ dtype }) => dtype))];
  const cells = rows.map((row) => [row.kind, row.dtype, `${Math.round(row.value)} %`, row.parts]);
  if (rows.length === 0) return [];
  return [
    `GRPO step (${sizes(rows[0])}), one thread: shares of the samples \`perf\` took on the engine's thread, and the functions most`,
    'of them were in.',
    '',
    table(['work', 'dtype', 'share', 'most in'], cells),
    '',
    ...dtypes.flatMap((dtype) => [`![GRPO step in ${dtype}](images/bench-profile-${dtype}.svg)`, '']),
  ];
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
  const goals = inOrder(rows.filter((row) => row.goal !== undefined));
  const curves = rows.filter((row) => row.curve !== undefined);
  const peers = rows.filter((row) => row.peer !== undefined && !goals.includes(row));
  const peaks = rows.filter((row) => row.workload.startsWith('peak ') && row.peer === undefined);
  const profiles = rows.filter((row) => row.workload === 'profile');
  const set = new Set([...peaks, ...curves, ...goals, ...profiles]);
  const own = rows.filter((row) => row.peer === undefined && !set.has(row));
  const part = (title, ...body) => (body.flat().length === 0 ? [] : [`## ${title}`, '', ...body.flat(), '']);
  const tableOf = (some, make) => (some.length === 0 ? [] : [make(some)]);
  const missed = goals.filter((row) => !met(row)).length;
  const text = [
    '# Benchmarks',
    '',
    'Written by `node bench/report.mjs` from `bench/results/*.jsonl`; every row there says where and when it was measured.',
    '`npm run bench` measures our own programs, `npm run bench:peers` the same work by PyTorch, transformers, TRL and llama.cpp:',
    'processes stand by side by side and take turns (A B A B ...), a ratio is the median over pairs, its range the lowest and',
    'highest pair. Above 1 we are ahead (for memory: we need less).',
    '',
    ...(goals.length === 0
      ? ['Nothing with a goal is measured yet.', '']
      : [
          `## Goals`,
          '',
          `${goals.length - missed} of ${goals.length} rows meet their goal.`,
          '',
          goalTable(goals),
          '',
          ...notMeasured(goals),
        ]),
    ...part('How to read the figures', [
      'Operands are random. Rates of reinforcement learning count completion tokens. Prompts count once a group. Clock `wall` is',
      'elapsed time on a machine others left alone; `cpu` is user and system time of the process, taken for one thread where others',
      'did not (`busy`): it does not count waiting for a processor, but caches and memory were shared meanwhile. Figures of several',
      'threads are not recorded on a busy machine. Kernels of peers run with an allocator that keeps freed memory, so that they do',
      'not pay for fresh pages at every call; whole steps run as they are.',
      ...(rows.length === 0 ? [] : ['', ...provenance(rows)]),
    ]),
    ...part("The machine's own ceilings", tableOf(peaks, ownTable)),
    ...part('Against peers', tableOf([...goals.filter((row) => row.peer !== undefined), ...peers], peerTable)),
    ...part('How cost grows', curvesPart(curves, { table, number, state })),
    ...part('Where the cycles go', profilePart(profiles)),
    ...part('Own figures', tableOf([...goals.filter((row) => row.peer === undefined), ...own], ownTable)),
    ...(existsSync(notes) ? [readFileSync(notes, 'utf8').trimEnd(), ''] : []),
  ].join('\n');
  writeFileSync(path, await format(text, { ...(await resolveConfig(path)), filepath: path }));
  return path;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(`written: ${await writeReport()}`);
