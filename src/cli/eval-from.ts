/** `gavel eval --from`: the numbers of judgements or scored pairs that are already there, without a model. */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import type { Benchmark } from '../evaluation/benchmarks/benchmark.js';
import { headlinesWithIntervals } from '../evaluation/benchmarks/headlines.js';
import { parseJudgement, type Judgement } from '../evaluation/judgement.js';
import { evaluationResult } from '../evaluation/result.js';
import { evaluateScoresWithIntervals, parseScoredPair, type ScoredPair } from '../evaluation/scores.js';
import { evaluationTables, plainTables, scoreTables, type ResultTable } from '../evaluation/table.js';
import type { Calibration } from '../evaluation/calibration.js';
import { GavelError } from '../errors.js';
import { scanJsonLines } from '../runs/json-lines.js';
import { writeResults } from './eval-folder.js';
import { isPairLine, scoredPairOf } from './score-lines.js';
import { print, printJson } from './terminal.js';

interface FromOptions {
  from: string;
  benchmark: Benchmark | undefined;
  seed: number;
  out: string | undefined;
  json: boolean;
}

export async function evalFrom({ from, benchmark, seed, out, json }: FromOptions): Promise<void> {
  const { judgements, pairs } = await readRecords(from);
  const title = `Evaluation of ${basename(from)}`;
  if (pairs.length > 0) {
    const result = { name: basename(from), ...(await evaluateScoresWithIntervals(pairs)) };
    await show(result, title, scoreTables(result), result.calibration, out, json);
    return;
  }
  const result = await evaluationResult(basename(from), judgements, { seconds: 0, tokens: 0, seed });
  const headlines = await headlinesWithIntervals(benchmark, judgements);
  const whole = benchmark === undefined ? result : { ...result, benchmark: benchmark.name, headlines };
  await show(whole, title, evaluationTables(result, headlines), result.calibration, out, json);
}

async function show(
  result: object,
  title: string,
  tables: readonly ResultTable[],
  calibration: Calibration | null,
  out: string | undefined,
  json: boolean,
): Promise<void> {
  if (out !== undefined) await writeResults(out, result, title, tables, calibration);
  if (json) printJson(result);
  else print(plainTables(tables));
}

/** All of one kind; a record of the other kind is an error of the file. */
async function readRecords(path: string): Promise<{ judgements: Judgement[]; pairs: ScoredPair[] }> {
  if (!existsSync(path)) {
    throw new GavelError(
      'io',
      `Expected a file of judgements for \`--from\` but ${path} does not exist. Check the path.`,
      {
        fields: { path },
      },
    );
  }
  const judgements: Judgement[] = [];
  const pairs: ScoredPair[] = [];
  const lines = new Map<string, number>();
  let line = 0;
  for await (const { value } of scanJsonLines(path)) {
    line++;
    const where = `${path}:${line}`;
    if (line === 1 ? isScored(value) : pairs.length > 0)
      pairs.push(isPairLine(value) ? scoredPairOf(value, where) : parseScoredPair(value, where));
    else judgements.push(parseJudgement(value, where));
    const key = pairs.length > 0 ? pairs.at(-1)!.item : completionOf(judgements.at(-1)!);
    const known = lines.get(key);
    if (known !== undefined) {
      throw new GavelError(
        'bad_data',
        `Expected each item once at ${where} but received what line ${known} holds: ${key}. Files of two judges are evaluated one by one; samples of one prompt differ in \`sample\`.`,
        { fields: { path, line } },
      );
    }
    lines.set(key, line);
  }
  if (line === 0) {
    throw new GavelError('bad_data', `Expected at least one judgement in ${path} but received none. Check the file.`, {
      fields: { path },
    });
  }
  return { judgements, pairs };
}

/** What only one completion is. */
const completionOf = ({ item, order, direct, sample }: Judgement): string =>
  `${item}, ${order} order,${direct ? ' direct,' : ''} sample ${sample}`;

const isScored = (value: unknown): boolean => typeof value === 'object' && value !== null && 'preference' in value;
