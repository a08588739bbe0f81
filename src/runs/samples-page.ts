/**
 * A page of marked samples: each group of completions beside the pictures and the prompt it answers, with rewards, advantage
 * and verdict. One file without scripts or outside links; verdicts are words and marks as well as colours.
 */
import { escapeHtml } from './examples-page.js';
import type { MarkedSample } from './marked-sample.js';

/** Samples of one item under one checkpoint. */
export interface SampleGroup {
  item: string;
  checkpoint: string;
  /** Stage and its step, as far as the samples tell. */
  place: string;
  /** Null where the run kept no items. */
  prompt: string | null;
  solution: string | null;
  /** PNG data URIs in order; null for a picture that is not there any more. */
  pictures: readonly (string | null)[];
  samples: readonly MarkedSample[];
}

export interface SamplesPage {
  title: string;
  /** Sentences under the title. */
  introduction: readonly string[];
  groups: readonly SampleGroup[];
}

const style = `
:root { color-scheme: light dark; --right: #0a7a3d; --wrong: #b3261e; --line: #d5d5d5; --soft: #f6f6f4; --ink: #1b1b1b; --paper: #ffffff; --quiet: #5c5c5c; }
@media (prefers-color-scheme: dark) { :root { --right: #5fd08f; --wrong: #ff8a80; --line: #444; --soft: #242424; --ink: #ececec; --paper: #181818; --quiet: #a8a8a8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 88rem; font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; }
section { display: grid; grid-template-columns: minmax(12rem, 20rem) minmax(0, 1fr); gap: 1rem 1.5rem; padding: 1.1rem; margin: 1.25rem 0; background: var(--soft); border: 1px solid var(--line); border-radius: 8px; }
h2 { grid-column: 1 / -1; margin: 0; font-size: 1rem; overflow-wrap: anywhere; }
h2 span { font-weight: 400; color: var(--quiet); }
.pictures { display: flex; flex-wrap: wrap; gap: .6rem; }
figure { margin: 0; }
figure img { min-width: 7rem; max-width: 9.5rem; max-height: 12rem; image-rendering: auto; border: 1px solid var(--line); border-radius: 4px; display: block; }
figcaption { font-size: .8rem; color: var(--quiet); text-align: center; }
.gone { width: 7rem; height: 5rem; border: 1px dashed var(--line); border-radius: 4px; display: grid; place-items: center; font-size: .75rem; color: var(--quiet); text-align: center; }
.prompt { margin: .75rem 0 0; max-height: 18rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; }
.gold { margin: .5rem 0 0; font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
th.text, td.text { text-align: left; white-space: pre-wrap; overflow-wrap: anywhere; min-width: 13rem; width: 60%; }
th.answer, td.answer { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; max-width: 14rem; }
td.right { color: var(--right); font-weight: 600; }
td.wrong { color: var(--wrong); font-weight: 600; }
@media (max-width: 48rem) { section { grid-template-columns: 1fr; } }
`;

/** The page as a whole HTML document. */
export function samplesPage({ title, introduction, groups }: SamplesPage): string {
  return [
    '<!doctype html>',
    '<html lang="en">',
    `<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${escapeHtml(title)}</title><style>${style}</style></head>`,
    '<body>',
    '<main>',
    `<h1>${escapeHtml(title)}</h1>`,
    ...introduction.map((sentence) => `<p>${escapeHtml(sentence)}</p>`),
    ...groups.map(htmlGroup),
    '</main>',
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function htmlGroup({ item, checkpoint, place, prompt, solution, pictures, samples }: SampleGroup): string {
  const figures = pictures.map((source, i) => {
    const name = `Image ${i + 1}`;
    const shown =
      source === null
        ? `<div class="gone">no picture kept</div>`
        : `<img src="${escapeHtml(source)}" alt="${name} of ${escapeHtml(item)}">`;
    return `<figure>${shown}<figcaption>${name}</figcaption></figure>`;
  });
  const rewards = [...new Set(samples.flatMap((sample) => Object.keys(sample.rewards)))];
  const hasAdvantage = samples.some(({ advantage }) => typeof advantage === 'number');
  const columns = [
    '#',
    'verdict',
    ...rewards,
    ...(hasAdvantage ? ['advantage'] : []),
    'tokens',
    'completion',
    'answer',
  ];
  const head = columns.map((name) => `<th scope="col"${classOf(name)}>${escapeHtml(name)}</th>`);
  return [
    '<section>',
    `<h2>${escapeHtml(item)} <span>${escapeHtml([checkpoint, place].filter(Boolean).join(' \u00b7 '))}</span></h2>`,
    '<div>',
    ...(figures.length === 0 ? [] : [`<div class="pictures">${figures.join('')}</div>`]),
    `<p class="prompt">${escapeHtml(prompt ?? 'The run kept no prompt of this item.')}</p>`,
    ...(solution === null ? [] : [`<p class="gold">Gold: <strong>${escapeHtml(solution)}</strong></p>`]),
    '</div>',
    `<div class="scroll"><table><thead><tr>${head.join('')}</tr></thead><tbody>`,
    ...samples.map((sample) => htmlSample(sample, rewards, hasAdvantage)),
    '</tbody></table></div>',
    '</section>',
  ].join('\n');
}

const classOf = (column: string): string =>
  column === 'completion' ? ' class="text"' : column === 'answer' ? ' class="answer"' : '';

function htmlSample(sample: MarkedSample, rewards: readonly string[], hasAdvantage: boolean): string {
  const cell = (text: string, kind = ''): string => `<td${kind && ` class="${kind}"`}>${escapeHtml(text)}</td>`;
  const { correct, unmarked = false, finishReason, numTokens } = sample;
  return `<tr>${[
    cell(String(sample.sample)),
    unmarked ? cell('-') : cell(correct ? '\u2713 right' : '\u2717 wrong', correct ? 'right' : 'wrong'),
    ...rewards.map((name) => cell(shortNumber(sample.rewards[name]))),
    ...(hasAdvantage ? [cell(shortNumber(sample.advantage))] : []),
    cell(finishReason === 'length' ? `${numTokens} (cut)` : String(numTokens)),
    cell(sample.text, 'text'),
    cell(unmarked ? '-' : (sample.answer ?? 'none'), 'answer'),
  ].join('')}</tr>`;
}

/** Up to three decimals; a dash where there is no number. */
export function shortNumber(value: number | null | undefined): string {
  if (typeof value !== 'number') return '-';
  return Number.isInteger(value) ? String(value) : value.toFixed(3);
}
