// Results: one JSON object a line in bench/results/*.jsonl. A missing size is null; `ratio` above 1 means we are ahead.
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { commit, hardware, load, projectRoot } from './machine.mjs';

export const resultsFolder = join(projectRoot, 'bench/results');

const significant = (value) =>
  typeof value === 'number' && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;

/** Collects rows of one run; `publish` false (tiny counts) prints and stores nothing. */
export class Results {
  #file;
  #publish;
  #machine;

  constructor(file, { publish }) {
    this.#file = join(resultsFolder, `${file}.jsonl`);
    this.#publish = publish;
    this.#machine = { hardware: hardware(), commit: commit() };
  }

  /** Adds {workload, dtype, threads, value, unit, ...}; sizes that do not apply become null. */
  add(row) {
    if (row.clock === 'none') {
      const share = Math.round(row.other * 100);
      console.log(
        `  ${row.workload} ${row.dtype} ${row.threads}T: not recorded, others used ${share} % of the machine`,
      );
      return;
    }
    const sizes = {
      workload: row.workload,
      P: null,
      C: null,
      G: null,
      V: null,
      dtype: null,
      threads: null,
      loraRank: null,
    };
    const full = {
      ...sizes,
      shareOfLimit: null,
      ...row,
      ...this.#machine,
      load: load(),
      date: new Date().toISOString(),
    };
    const line = Object.fromEntries(Object.entries(full).map(([key, value]) => [key, significant(value)]));
    console.log(`  ${describe(line)}`);
    if (!this.#publish) return;
    mkdirSync(resultsFolder, { recursive: true });
    appendFileSync(this.#file, `${JSON.stringify(line)}\n`);
  }
}

function describe(row) {
  const share = row.shareOfLimit === null ? '' : `, ${Math.round(row.shareOfLimit * 100)} % of limit`;
  const ratio =
    row.ratio === undefined
      ? ''
      : ` | ${row.peer}: ${row.peerValue} | ratio ${row.ratio} [${row.ratioLow}, ${row.ratioHigh}]`;
  const curve = row.curve === undefined ? '' : `${row.curve} ${row[row.curve]}`;
  const about = [row.shape, curve].filter(Boolean).join(', ');
  return `${row.workload} ${about} ${row.dtype} ${row.threads}T: ${row.value} ${row.unit}${share}${ratio} (${row.clock})`;
}

/** Every stored row. */
export function storedRows() {
  if (!existsSync(resultsFolder)) return [];
  return readdirSync(resultsFolder)
    .filter((name) => name.endsWith('.jsonl'))
    .flatMap((name) => readFileSync(join(resultsFolder, name), 'utf8').split('\n'))
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}
