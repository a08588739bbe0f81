/** `gavel runs samples`: the marked pool as a table, JSON lines, a page with pictures, or Parquet. */
import { join } from 'node:path';
import { expected } from '../errors.js';
import { writeFileAtomically } from '../runs/atomic-file.js';
import { readItems, readPicture, type StoredItem } from '../runs/item-store.js';
import { looksLikeRun } from '../runs/run-report.js';
import { SamplePool, type SampleEntry } from '../runs/sample-pool.js';
import { samplesPage, shortNumber, type SampleGroup } from '../runs/samples-page.js';
import type { RunsSamplesOptions } from './runs-command.js';
import { textTable } from './stage-table.js';
import { print, printJson, printLine } from './terminal.js';

const limits = { table: 20, page: 200 };
const textCharacters = 60;
const answerCharacters = 24;

/** One line of at most so many characters. */
function short(text: string, most: number): string {
  const characters = [...text.replace(/\s+/g, ' ').trim()];
  return characters.length > most ? `${characters.slice(0, most - 1).join('')}\u2026` : characters.join('');
}

export async function runsSamplesCommand(path: string, options: RunsSamplesOptions): Promise<void> {
  const { correct = false, wrong = false, html, parquet, json } = options;
  const evaluation = options.set ?? options.evaluation ?? false;
  if (evaluation !== false && (correct || wrong)) {
    const advice = 'Verdicts of evaluations are in evaluations.jsonl, by item.';
    throw expected('invalid_argument', '--evaluation', 'it without --correct and --wrong', 'both', advice);
  }
  if (correct && wrong) {
    throw expected('invalid_argument', '--wrong', 'either --correct or --wrong', 'both', 'Leave both out for all.');
  }
  if (!(await looksLikeRun(path))) {
    throw expected(
      'io',
      'run',
      'a run folder',
      path,
      'Check the path; `gavel runs list FOLDER` lists the runs in a folder.',
    );
  }
  const damage: string[] = [];
  const pool = await SamplePool.openReadOnly(join(path, 'samples', 'pool.jsonl'), {
    onDamage: (error) => damage.push(error.message),
  });
  await using _ = pool;
  for (const message of damage) process.stderr.write(`gavel: ${message}\n`);
  const { item, stage, checkpoint } = options;
  const found = pool.select({
    evaluation,
    ...(item === undefined ? {} : { row: item }),
    ...(stage === undefined ? {} : { stage }),
    ...(checkpoint === undefined ? {} : { checkpoint }),
    ...(correct === wrong ? {} : { correct }),
  });
  // The pool is in the order in which samples came; recency counts anew in every stage.
  found.reverse();
  const atMost = (usual: number): SampleEntry[] => found.slice(0, options.limit ?? usual);
  const left = evaluation === false ? hiddenNote(pool).trim() : '';
  if (left !== '' && (json || parquet !== undefined)) process.stderr.write(`gavel: ${left}\n`);
  const written: Record<string, unknown> = {};
  if (parquet !== undefined) {
    const { writeSamplesParquet } = await import('../runs/samples-parquet.js');
    const entries = atMost(Infinity);
    written['parquet'] = {
      path: parquet,
      samples: entries.length,
      columns: await writeSamplesParquet(parquet, pool, entries),
    };
  }
  if (html !== undefined) {
    const entries = atMost(limits.page);
    await writeFileAtomically(html, await pageOf(path, pool, entries, found.length, options, left));
    written['html'] = { path: html, samples: entries.length, of: found.length };
  }
  if (Object.keys(written).length > 0) {
    if (json) return printJson(written);
    for (const [kind, { path: file, samples }] of Object.entries(
      written as Record<string, { path: string; samples: number }>,
    )) {
      print(`${kind === 'html' ? 'Page' : 'Parquet'}: ${file}, ${samples} of ${found.length} samples`);
    }
    return;
  }
  if (json) {
    for (const entry of atMost(Infinity)) await printLine(JSON.stringify(await pool.read(entry)));
    return;
  }
  if (evaluation === false) await printTable(pool, atMost(limits.table), found.length);
  else await printEvaluations(pool, atMost(limits.table), found.length);
}

/** What `--evaluation` would show, for the last line of the others. */
function hiddenNote(pool: SamplePool): string {
  const hidden = pool.select({ evaluation: true });
  if (hidden.length === 0) return '';
  const sets = [...new Set(hidden.map(({ evaluation }) => evaluation))].join(', ');
  return ` Of evaluations (${sets}) there are ${hidden.length} completions: --evaluation shows them.`;
}

/** Evaluations mark what they read back, so verdicts are theirs to tell and are not in the pool. */
async function printEvaluations(pool: SamplePool, entries: readonly SampleEntry[], total: number): Promise<void> {
  if (total === 0) {
    const sets = [...new Set(pool.select({ evaluation: true }).map(({ evaluation }) => evaluation))];
    return print(
      sets.length === 0 ? 'No evaluation of the run kept its completions.' : `None fits; sets: ${sets.join(', ')}.`,
    );
  }
  const rows: string[][] = [];
  for (const entry of entries) {
    const { evaluation, checkpoint, sample, text } = await pool.read(entry);
    rows.push([
      entry.evaluation!,
      entry.row,
      evaluation === undefined ? '-' : `${evaluation.order}${evaluation.direct ? ', direct' : ''}`,
      checkpoint,
      String(sample),
      short(text, textCharacters),
    ]);
  }
  print(textTable(['evaluation', 'item', 'order', 'weights', '#', 'text'], rows, [0, 1, 2, 3, 5]));
  const more = entries.length < total ? ' --limit shows more.' : '';
  print(`${entries.length} of ${total} completions.${more} Verdicts by item are in evaluations.jsonl.`);
}

async function printTable(pool: SamplePool, entries: readonly SampleEntry[], total: number): Promise<void> {
  const hidden = hiddenNote(pool);
  if (total === 0) {
    const none = pool.select({ evaluation: false }).length === 0;
    return print(`${none ? 'The run has marked no sample.' : 'No sample fits.'}${hidden}`);
  }
  const rows: string[][] = [];
  for (const entry of entries) {
    const { item, checkpoint, sample, rewards, advantage, answer, text } = await pool.read(entry);
    rows.push([
      item,
      checkpoint,
      String(sample),
      !entry.marked ? '-' : entry.correct ? 'right' : 'wrong',
      Object.entries(rewards)
        .map(([name, value]) => `${name} ${shortNumber(value)}`)
        .join(', ') || '-',
      shortNumber(advantage),
      !entry.marked ? '-' : answer === null ? 'none' : short(answer, answerCharacters),
      short(text, textCharacters),
    ]);
  }
  const right = entries.filter(({ correct }) => correct).length;
  print(
    textTable(['item', 'weights', '#', 'verdict', 'rewards', 'advantage', 'answer', 'text'], rows, [0, 1, 3, 4, 6, 7]),
  );
  print(
    `${entries.length} of ${total} samples, ${right} right.${entries.length < total ? ' --limit shows more.' : ''}${hidden}`,
  );
}

async function pageOf(
  path: string,
  pool: SamplePool,
  entries: readonly SampleEntry[],
  total: number,
  options: RunsSamplesOptions,
  left: string,
): Promise<string> {
  const folder = join(path, 'samples');
  const notes: string[] = [];
  const items = await readItems(folder, { onDamage: (error) => notes.push(error.message) });
  const groups = new Map<string, SampleEntry[]>();
  for (const entry of entries) {
    const key = `${entry.checkpoint}\n${entry.item}`;
    groups.set(key, [...(groups.get(key) ?? []), entry]);
  }
  const filters = (['item', 'stage', 'checkpoint', 'evaluation', 'set', 'correct', 'wrong'] as const).flatMap((name) =>
    options[name] === undefined ? [] : [options[name] === true ? name : `${name} ${String(options[name])}`],
  );
  if (left !== '') notes.push(left);
  if (items.size === 0) notes.push('The run kept neither prompts nor pictures of its items.');
  const isEvaluation = options.set !== undefined || options.evaluation === true;
  const right = entries.filter(({ correct }) => correct).length;
  return samplesPage({
    title: `Samples of ${path}`,
    introduction: [
      `${entries.length} of ${total} samples${filters.length > 0 ? ` (${filters.join(', ')})` : ''}, the newest first${isEvaluation ? '' : `; ${right} are right`}.`,
      ...notes,
    ],
    groups: await Promise.all([...groups.values()].map((group) => groupOf(folder, pool, items, group))),
  });
}

async function groupOf(
  folder: string,
  pool: SamplePool,
  items: ReadonlyMap<string, StoredItem>,
  entries: readonly SampleEntry[],
): Promise<SampleGroup> {
  const { item, checkpoint, row } = entries[0]!;
  const stored = items.get(item);
  const ordered = [...entries].sort((a, b) => a.sample - b.sample);
  const samples = await Promise.all(ordered.map((entry) => pool.read(entry)));
  const { stage, step, evaluation } = samples[0]!;
  const pictures = await Promise.all((stored?.pictures ?? []).map((picture) => readPicture(folder, picture)));
  const place = [
    ...(evaluation === undefined ? [] : [`evaluation ${evaluation.name}`, `${evaluation.order} order`]),
    ...(evaluation?.direct === true ? ['direct'] : []),
    ...(stage === undefined ? [] : [`stage ${stage}`]),
    ...(step === undefined ? [] : [`step ${step}`]),
  ];
  return {
    item: row,
    checkpoint,
    place: place.join(', '),
    prompt: stored === undefined ? null : promptText(stored.prompt),
    solution: stored?.solution ?? null,
    pictures: pictures.map((png) => (png === undefined ? null : `data:image/png;base64,${png.toString('base64')}`)),
    samples,
  };
}

/** A prompt as a reader sees it: messages by role, parts in order. */
function promptText(prompt: unknown): string {
  if (typeof prompt === 'string') return prompt;
  if (!Array.isArray(prompt)) return JSON.stringify(prompt) ?? '';
  return prompt
    .map((message: unknown) => {
      const { role, content } = (message ?? {}) as { role?: unknown; content?: unknown };
      const parts = Array.isArray(content) ? content : [content];
      const texts = parts.map((part: unknown) => {
        const { type, text } = (part ?? {}) as { type?: unknown; text?: unknown };
        return typeof part === 'string' ? part : typeof text === 'string' ? text : `<${String(type)}>`;
      });
      return `${String(role)}: ${texts.join('')}`;
    })
    .join('\n\n');
}
