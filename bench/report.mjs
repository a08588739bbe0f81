// docs/benchmarks.md from bench/results: the newest row of every measurement. Usage: node bench/report.mjs
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import process from 'node:process';
import { format, resolveConfig } from 'prettier';
import { rowSizes, workloads } from './engine/shapes.mjs';
import { inOrder, met, rowsOf, unmeasured } from './goals.mjs';
import { benches, sizesOf } from './kernels/index.mjs';
import { projectRoot, quietShare } from './machine.mjs';
import { curvesPart } from './plots.mjs';
import { storedRows } from './rows.mjs';

const keyOf = (row) =>
  JSON.stringify(
    [
      ...['workload', 'shape', 'P', 'C', 'G', 'V', 'dtype', 'threads', 'peer', 'curve', 'rows', 'kind', 'device'],
      // A card is one of many; the processor is the machine's own.
      ...(row.device === undefined ? [] : ['hardware']),
    ].map((name) => row[name]),
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

/** The share of a ceiling and that ceiling: the one of the row's own run. A row that does not name it has it in its rate. */
function share(row) {
  if (!row.shareOfLimit) return '';
  const [, unit = 'FLOP/s'] = /^G(.*)/.exec(row.unit) ?? [];
  const limit = row.limit ?? (row.unit === `G${unit}` ? (row.value * 1e9) / row.shareOfLimit : undefined);
  return percent(row.shareOfLimit) + (limit === undefined ? '' : ` of ${number(limit / 1e9)} G${unit}`);
}

function sizes(row) {
  const letters = ['P', 'G', 'C', 'V'].filter((name) => row[name] !== null).map((name) => `${name} ${row[name]}`);
  const { shape = '' } = row;
  return [shape, ...letters.filter((text) => !shape.includes(text))].filter((text) => text !== '').join(', ');
}

function table(header, rows) {
  const line = (cells) => `| ${cells.map((cell) => String(cell ?? '').replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(header), line(header.map(() => '---')), ...rows.map(line)].join('\n');
}

const sizeKey = (row) =>
  JSON.stringify(['workload', 'shape', 'P', 'C', 'G', 'V', 'dtype', 'loraRank'].map((name) => row[name]));

const deviceGoal = ({ goal, goalOf }) => (goalOf === 'most' ? `<= ${number(goal)}` : `>= ${percent(goal)}`);

/** Figures of a device: what the share is of stands beside it, and of a peer's the ratio of ours to it. */
function deviceTable(rows) {
  const own = new Map(rows.filter(({ peer }) => peer === undefined).map((row) => [sizeKey(row), row]));
  const ratio = (row) => (row.peer === undefined ? undefined : own.get(sizeKey(row))?.value / row.value);
  const cells = rows.map((row) => [
    row.workload,
    sizes(row),
    row.dtype,
    row.peer ?? '',
    `${number(row.value)} ${row.unit}`,
    number(row.seconds * 1e6),
    `${number(row.secondsLow * 1e6)} .. ${number(row.secondsHigh * 1e6)}`,
    row.shareOfLimit === null ? '' : `${percent(row.shareOfLimit)} of ${row.limit}`,
    row.goal === undefined ? '' : `${deviceGoal(row)} ${met(row) ? 'met' : '**missed**'}`,
    Number.isFinite(ratio(row)) ? `**${number(ratio(row))}**` : '',
  ]);
  const header = ['workload', 'sizes', 'dtype', 'peer', 'value', 'us', '10 .. 90 %', 'share', 'goal', 'ours / peer'];
  return table(header, cells);
}

/** A section a card: its ceilings, then kernels, then peers, which are programs of their own. */
function devicePart(rows) {
  const cards = [...new Set(rows.map(({ hardware }) => hardware))];
  return cards.flatMap((hardware) => {
    const own = rows.filter((row) => row.hardware === hardware);
    return [provenance(own)[0], '', deviceTable(own), ''];
  });
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
  if (row.goalOf === 'share') return [`>= ${percent(row.goal)} of peak`, share(row)];
  if (row.goalOf === 'most') return [`<= ${row.goal} ${row.unit}`, `${number(row.value)} ${row.unit}`];
  const pairs =
    row.ratioLow === row.ratioHigh ? '' : ` (${number(row.ratioLow)} .. ${number(row.ratioHigh)}, ${row.runs} pairs)`;
  return [`>= ${row.goal}`, `${number(row.ratio)}${pairs}`];
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

/** Every case that a goal could be of, as `unmeasured` takes them. */
function goalCases() {
  const engine = workloads.flatMap((given) => {
    const row = { workload: given.name, ...rowSizes(given) };
    const about = { rows: rowsOf(given), step: given.name };
    return [
      { row, about },
      { row: { ...row, workload: `${given.name} peak memory` }, about },
      { row: { ...row, workload: 'exactness cost', shape: `${given.name}, ${row.shape}` }, about },
    ];
  });
  const kernels = benches.flatMap((bench) =>
    bench.cases.flatMap((given) => {
      const row = sizesOf(bench, given);
      const about = { ...given, goal: given.goal === true || given.peak === true };
      return [
        { row, about },
        { row: { ...row, workload: `${bench.op} extra memory` }, about },
      ];
    }),
  );
  return [...engine, ...kernels];
}

/** Lines that name the goals nobody measured, with the case and the threads. */
function notMeasured(rows) {
  const lines = unmeasured(rows, goalCases()).map(([row, threads]) => {
    const against = row.peer === undefined ? '' : ` against ${row.peer}`;
    return `- ${row.workload}${against}: ${sizes(row)}, ${row.dtype}, ${threads.join(' and ')} T`;
  });
  return lines.length === 0 ? [] : ['Not measured, or on a machine too busy to record it:', '', ...lines, ''];
}

function ownTable(rows) {
  const cells = rows.map((row) => [
    row.workload,
    sizes(row),
    row.dtype,
    row.threads,
    `${number(row.value)} ${row.unit}`,
    share(row),
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
  const all = newest(storedRows());
  const cards = all.filter((row) => row.device === 'cuda');
  const rows = all.filter((row) => row.device === undefined);
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
    ...part("The machine's own ceilings", [
      ...(peaks.length === 0
        ? []
        : ['The newest. Every run takes its own first, and a share names the one it is of: the machine varies.', '']),
      ...tableOf(peaks, ownTable),
    ]),
    ...part('Against peers', tableOf([...goals.filter((row) => row.peer !== undefined), ...peers], peerTable)),
    ...part('How cost grows', [
      'Of an update, `formula` is its floating-point operations at the rate of the first case measured in the same run, `unshared` the same with',
      'the prompt once a completion. Of decoding it is what memory allows: weights, keys and values read once a step at the measured bandwidth,',
      'or the products at the measured peak, whichever takes longer. Bandwidth is that of data far larger than any cache; weights of 79 MB',
      '(bf16) and 157 MB (fp32) may stay in a large third-level cache, and few rows go faster then. Of the head it is the time of V 32,768,',
      'in proportion.',
      '',
      ...curvesPart(curves, { table, number, state }),
    ]),
    ...part('Where the cycles go', profilePart(profiles)),
    ...part('Own figures', tableOf([...goals.filter((row) => row.peer === undefined), ...own], ownTable)),
    ...part('On NVIDIA GPUs', devicePart(cards)),
    ...(existsSync(notes) ? [readFileSync(notes, 'utf8').trimEnd(), ''] : []),
  ].join('\n');
  writeFileSync(path, await format(text, { ...(await resolveConfig(path)), filepath: path }));
  return path;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) console.log(`written: ${await writeReport()}`);
