/**
 * The folder of an evaluation: its configuration, the completions drawn so far, and in the end result.json,
 * judgements.jsonl, table.md and reliability.svg. The same command on the same folder goes on where it was.
 */
import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Calibration } from '../evaluation/calibration.js';
import type { Judgement } from '../evaluation/judgement.js';
import { reliabilityPlot } from '../evaluation/reliability-plot.js';
import { markdownTables, type ResultTable } from '../evaluation/table.js';
import { GavelError } from '../errors.js';
import { writeFileAtomically, writeJsonAtomically } from '../runs/atomic-file.js';
import { guarded } from '../runs/file-errors.js';
import { JsonLinesLog } from '../runs/json-lines.js';
import { lockRun } from '../runs/run-lock.js';
import { SamplePool } from '../runs/sample-pool.js';

export class EvalFolder implements AsyncDisposable {
  readonly path: string;
  readonly pool: SamplePool;
  readonly #judgements: JsonLinesLog;
  readonly #unlock: () => Promise<void>;

  private constructor(path: string, pool: SamplePool, judgements: JsonLinesLog, unlock: () => Promise<void>) {
    this.path = path;
    this.pool = pool;
    this.#judgements = judgements;
    this.#unlock = unlock;
  }

  /**
   * Makes the folder or takes it up again. Errors: 'invalid_config' when it holds another evaluation; 'io' when another
   * process works in it.
   */
  static async open(path: string, config: Readonly<Record<string, unknown>>): Promise<EvalFolder> {
    await guarded('create', path, () => mkdir(path, { recursive: true }));
    const unlock = await lockRun(path);
    try {
      await checkConfig(path, config);
      // Results of an earlier end do not stand beside an evaluation that goes on.
      for (const name of ['result.json', 'table.md', 'reliability.svg']) await rm(join(path, name), { force: true });
      const pool = await SamplePool.open(join(path, 'samples.jsonl'));
      const judgements = await JsonLinesLog.open(join(path, 'judgements.jsonl'), 0);
      return new EvalFolder(path, pool, judgements, unlock);
    } catch (error) {
      await unlock();
      throw error;
    }
  }

  add(judgement: Judgement): void {
    this.#judgements.append(judgement);
  }

  async finish(
    result: object,
    title: string,
    tables: readonly ResultTable[],
    calibration: Calibration | null,
  ): Promise<void> {
    await this.#judgements.sync();
    await writeResults(this.path, result, title, tables, calibration);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = await Promise.allSettled([this.pool.close(), this.#judgements.close()]);
    await this.#unlock();
    const failure = closed.find(({ status }) => status === 'rejected') as PromiseRejectedResult | undefined;
    if (failure !== undefined) throw failure.reason;
  }
}

/** result.json, table.md and, where there is a calibration, reliability.svg. */
export async function writeResults(
  path: string,
  result: object,
  title: string,
  tables: readonly ResultTable[],
  calibration: Calibration | null,
): Promise<void> {
  await guarded('create', path, () => mkdir(path, { recursive: true }));
  await writeFileAtomically(join(path, 'table.md'), markdownTables(title, tables));
  if (calibration !== null)
    await writeFileAtomically(join(path, 'reliability.svg'), reliabilityPlot(calibration, title));
  // Last, so that a folder with a result is whole.
  await writeJsonAtomically(join(path, 'result.json'), result);
}

async function checkConfig(path: string, config: Readonly<Record<string, unknown>>): Promise<void> {
  const file = join(path, 'evaluation.json');
  const wanted = JSON.parse(JSON.stringify(config)) as Record<string, unknown>;
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (text === undefined) {
    const others = (await readdir(path)).filter((name) => name !== 'run.lock');
    if (others.length > 0) throw notOurs(path, `a folder with ${others.slice(0, 3).join(', ')}`, 'contents');
    await writeJsonAtomically(file, wanted);
    return;
  }
  const found = JSON.parse(text) as Record<string, unknown>;
  const keys = [...new Set([...Object.keys(found), ...Object.keys(wanted)])];
  const differing = keys.find((key) => JSON.stringify(found[key]) !== JSON.stringify(wanted[key]));
  if (differing === undefined) return;
  throw notOurs(path, `one with ${differing} ${JSON.stringify(found[differing]) ?? 'unset'}`, differing);
}

function notOurs(path: string, received: string, field: string): GavelError {
  return new GavelError(
    'invalid_config',
    `Expected an empty folder or one of this very evaluation for \`--out\` but received ${received}. ` +
      'Choose another folder, or remove this one.',
    { fields: { path, field } },
  );
}

/** Names, sizes and times of the weight files: other weights under the same name are not the same evaluation. */
export async function weightsKey(path: string): Promise<string> {
  if (!(await stat(path)).isDirectory()) return fileKey(path, '');
  const names = (await readdir(path)).filter((name) => /\.(safetensors|json|gguf)$/.test(name)).sort();
  return (await Promise.all(names.map((name) => fileKey(join(path, name), name)))).join(' ');
}

async function fileKey(path: string, name: string): Promise<string> {
  const { size, mtimeMs } = await stat(path);
  return `${name}:${size}:${Math.round(mtimeMs)}`;
}
