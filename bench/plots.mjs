// Curves as tables and as plots beside docs/benchmarks.md: measured, and what the formula says of each point.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from './machine.mjs';
// The plots of runs, from the build: not public, and the same look.
import { linePlot } from '../dist/runs/line-plot.js';

const titles = {
  'grpo_update G': 'Update of one group over its size G',
  'grpo_update P': 'Update of one group over its prompt P',
  'grpo_update C': 'Update of one group over its completions C',
  'decode rows': 'Decoding over rows at once',
  'head_logprob V': 'Head, log-prob and gradient over the vocabulary V',
};

const xOf = (row) => row[row.curve];
const group = (rows, key) =>
  rows.reduce((groups, row) => groups.set(key(row), [...(groups.get(key(row)) ?? []), row]), new Map());

/** What does not vary along a curve. */
function fixed(row) {
  const letters = ['P', 'C', 'G', 'V'].filter((name) => row[name] !== null && row[name] !== undefined);
  const kept = letters.filter((name) => name !== row.curve && !(row.curve === 'rows' && name === 'G'));
  return [row.shape, ...kept.map((name) => `${name} ${row[name]}`)].filter(Boolean).join(', ');
}

function plot(file, title, rows) {
  const xs = [...new Set(rows.map(xOf))].sort((a, b) => a - b);
  const line = (name, some, field) => ({
    name,
    markers: true,
    points: some
      .filter((row) => typeof row[field] === 'number')
      .map((row) => ({ x: xs.indexOf(xOf(row)), y: row[field] }))
      .sort((a, b) => a.x - b.x),
  });
  const series = [...group(rows, ({ dtype, threads }) => `${dtype}, ${threads} T`)].flatMap(([name, some]) => [
    line(name, some, 'value'),
    line(`${name}, formula`, some, 'predicted'),
    ...(some[0].unshared === undefined ? [] : [line(`${name}, prompt once a completion`, some, 'unshared')]),
  ]);
  const drawn = series.filter(({ points }) => points.length > 0);
  const { unit, curve } = rows[0];
  mkdirSync(join(projectRoot, 'docs/images'), { recursive: true });
  writeFileSync(
    join(projectRoot, 'docs/images', file),
    linePlot({ title, xLabel: curve, yLabel: unit, xNames: xs.map(String), series: drawn }),
  );
}

/** Lines of markdown for every curve in `rows`; the plots are written meanwhile. `table` and `number` as the page has them. */
export function curvesPart(rows, { table, number, state }) {
  const lines = [];
  for (const [name, some] of group(rows, ({ workload, curve }) => `${workload} ${curve}`)) {
    const title = titles[name] ?? name;
    lines.push(`### ${title}`, '', `${fixed(some[0])}.`, '');
    const most = Math.max(...some.map(({ threads }) => threads));
    for (const [dtype, kind] of group(some, ({ dtype }) => dtype)) {
      const file = `bench-${name.replace(/[ _]/g, '-').toLowerCase()}-${dtype}.svg`;
      plot(file, `${title}, ${dtype}`, kind);
      lines.push(`![${title}, ${dtype}](images/${file})`, '');
    }
    const unshared = some.some((row) => row.unshared !== undefined);
    const header = [
      some[0].curve,
      'dtype',
      'threads',
      some[0].unit,
      'formula',
      ...(unshared ? ['unshared'] : []),
      'clock',
    ];
    const sorted = [...some].sort((a, b) => a.dtype.localeCompare(b.dtype) || a.threads - b.threads || xOf(a) - xOf(b));
    const cells = sorted.map((row) => [
      xOf(row),
      row.dtype,
      row.threads,
      number(row.value),
      number(row.predicted),
      ...(unshared ? [number(row.unshared)] : []),
      state(row),
    ]);
    lines.push(table(header, cells), '');
    if (most > 1) lines.push(...speedups(some, { table, number }));
  }
  return lines;
}

/** How much several threads gain at the points both have. */
function speedups(rows, { table, number }) {
  const find = (row, threads) =>
    rows.find((one) => one.threads === threads && one.dtype === row.dtype && xOf(one) === xOf(row));
  const cells = rows
    .filter((row) => row.threads > 1 && find(row, 1) !== undefined)
    .map((row) => {
      const one = find(row, 1);
      const gain = row.unit === 's' ? one.value / row.value : row.value / one.value;
      return [xOf(row), row.dtype, row.threads, number(gain)];
    });
  if (cells.length === 0) return [];
  return ['Gain of threads over one:', '', table([rows[0].curve, 'dtype', 'threads', 'times'], cells), ''];
}
