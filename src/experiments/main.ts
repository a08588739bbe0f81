/**
 * Runs an experiment over seeds and writes its report:
 *   npm run experiment -- unified-reward-think|jrm|r3v|r3v-few [--seeds 1,2,3,4,5] [--out runs/experiments] [--report docs/experiments]
 * Seeds that have a result are not run again; a killed one continues.
 */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { Command } from 'commander';
import { GavelError, expected } from '../errors.js';
import { writeFileAtomically } from '../runs/atomic-file.js';
import { runSeed, type Experiment, type SeedResult } from './experiment.js';
import { jrmExperiment } from './jrm.js';
import { r3vExperiments } from './r3v.js';
import { unifiedRewardThinkExperiment } from './unified-reward-think.js';

const experiments: Record<string, Experiment<unknown>> = Object.fromEntries(
  [unifiedRewardThinkExperiment, jrmExperiment, ...r3vExperiments].map((one) => [one.name, one as Experiment<unknown>]),
);

interface Options {
  seeds: number[];
  out: string;
  report?: string;
  threads?: number;
  smoke?: boolean;
}

async function run(name: string, options: Options): Promise<void> {
  const experiment = experiments[name];
  if (experiment === undefined) {
    throw expected('invalid_argument', 'name', `one of ${Object.keys(experiments).join(', ')}`, name);
  }
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  const startedMs = performance.now();
  const say = (text: string): void => {
    process.stderr.write(`[${((performance.now() - startedMs) / 1000).toFixed(0)} s] ${text}\n`);
  };
  const results: SeedResult<unknown>[] = [];
  for (const seed of options.seeds) {
    const { out: root, smoke = false } = options;
    results.push(await runSeed(experiment, { root, seed, threads: options.threads, smoke, signal: abort.signal, say }));
  }
  const { markdown, plots } = await experiment.report(results);
  const seeds = results.map(({ seed }) => seed).join(', ');
  const commits = [...new Set(results.map(({ commit }) => commit?.slice(0, 12) ?? 'unknown'))].join(', ');
  const facts =
    `Written by \`npm run experiment -- ${name} --seeds ${options.seeds.join(',')}\` from the runs' own results; no number has another ` +
    `source. Seeds ${seeds}; commit ${commits}.${results.some(({ smoke }) => smoke) ? ' A smoke run: its numbers mean nothing.' : ''}`;
  if (options.report === undefined) {
    process.stdout.write(`${facts}\n\n${markdown}\n`);
    return;
  }
  await mkdir(join(options.report, 'images'), { recursive: true });
  await writeFileAtomically(join(options.report, `${name}.results.md`), `${facts}\n\n${markdown}\n`);
  for (const [plot, svg] of Object.entries(plots)) {
    await writeFileAtomically(join(options.report, 'images', `${plot}.svg`), svg);
  }
}

function seedsOf(text: string): number[] {
  const seeds = text.split(',').map((part) => (/^\d+$/.test(part.trim()) ? Number(part) : NaN));
  if (seeds.every(Number.isSafeInteger) && new Set(seeds).size === seeds.length) return seeds;
  throw expected('invalid_argument', '--seeds', 'distinct integers >= 0, separated by commas,', text, 'As in 1,2,3.');
}

function threadsOf(text: string): number {
  if (/^[1-9]\d*$/.test(text)) return Number(text);
  throw expected('invalid_argument', '--threads', 'an integer >= 1', text);
}

const program = new Command('experiment')
  .argument('<name>', Object.keys(experiments).join(', '))
  .option('--seeds <list>', 'seeds, separated by commas', seedsOf, [1])
  .option('--out <folder>', 'where runs and results are kept', 'runs/experiments')
  .option('--report <folder>', 'write the report and its plots there; default: print it')
  .option('--threads <n>', 'threads that compute; default: one a core', threadsOf)
  .option('--smoke', 'a short version that checks the plumbing')
  .action(run);

await program.parseAsync().catch((error: unknown) => {
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`experiment: ${GavelError.is(error) ? `${error.message} [${error.code}]` : text}\n`);
  process.exitCode = 1;
});
