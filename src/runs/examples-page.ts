/**
 * A page of judged examples: pictures, rationale with each cell marked right or wrong, verdict and truth. One file without
 * scripts or outside links; marks are words and shapes as well as colours.
 */

/** A word of a rationale and whether it is right; null where that is no question. */
export interface MarkedWord {
  text: string;
  right: boolean | null;
  /** What would have been right, for the reader who points at it. */
  truth?: string;
}

export interface ExamplePicture {
  /** PNG data URI. */
  source: string;
  /** What it truly shows. */
  description: string;
}

export interface JudgedExample {
  title: string;
  prompt: string;
  pictures: readonly ExamplePicture[];
  /** Lines of the rationale; a plain string when it could not be read. */
  rationale: readonly { label: string; words: readonly MarkedWord[] }[] | string;
  verdict: string | null;
  truth: string;
}

export interface ExamplesPage {
  title: string;
  /** Sentences under the title. */
  introduction: readonly string[];
  /** A table above the examples: names of columns, then rows. */
  table?: { columns: readonly string[]; rows: readonly (readonly string[])[] };
  /** SVG documents, shown in order. */
  plots?: readonly string[];
  examples: readonly JudgedExample[];
}

const escapes: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text that cannot become markup. */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => escapes[character]!);
}

const style = `
:root { color-scheme: light dark; --right: #0a7a3d; --wrong: #b3261e; --line: #d5d5d5; --soft: #f6f6f4; --ink: #1b1b1b; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --right: #5fd08f; --wrong: #ff8a80; --line: #444; --soft: #242424; --ink: #ececec; --paper: #181818; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 68rem; font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .75rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)); gap: 1rem; }
.plots svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 8px; }
article { display: grid; grid-template-columns: auto 1fr; gap: 1rem 1.5rem; padding: 1.1rem; margin: 0 0 1rem; background: var(--soft); border: 1px solid var(--line); border-left-width: 6px; border-radius: 8px; }
article.right { border-left-color: var(--right); }
article.wrong { border-left-color: var(--wrong); }
article h3 { grid-column: 1 / -1; margin: 0; font-size: 1rem; }
.pictures { display: flex; gap: .75rem; }
figure { margin: 0; }
figure img { width: 112px; height: 112px; image-rendering: pixelated; border: 1px solid var(--line); border-radius: 4px; display: block; }
figcaption { font-size: .8rem; text-align: center; }
dl { margin: 0; display: grid; grid-template-columns: max-content 1fr; gap: .25rem .9rem; }
dt { font-weight: 600; }
dd { margin: 0; }
.word { padding: 0 .25rem; border-radius: 4px; border-bottom: 2px solid transparent; }
.word.right { color: var(--right); border-color: var(--right); }
.word.wrong { color: var(--wrong); border-bottom: 2px dashed var(--wrong); }
.word.right::after { content: " \\2713"; }
.word.wrong::after { content: " \\2717"; }
.says { font-weight: 600; }
@media (max-width: 40rem) { article { grid-template-columns: 1fr; } .plots { grid-template-columns: 1fr; } }
`;

/** The page as a whole HTML document. */
export function examplesPage(page: ExamplesPage): string {
  const { title, introduction, table, plots = [], examples } = page;
  return [
    '<!doctype html>',
    '<html lang="en">',
    `<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>${escapeHtml(title)}</title><style>${style}</style></head>`,
    '<body>',
    '<main>',
    `<h1>${escapeHtml(title)}</h1>`,
    ...introduction.map((sentence) => `<p>${escapeHtml(sentence)}</p>`),
    ...(table === undefined ? [] : ['<h2>Stages</h2>', htmlTable(table)]),
    ...(plots.length === 0 ? [] : ['<h2>Curves</h2>', `<div class="plots">${plots.join('\n')}</div>`]),
    '<h2>Judged examples</h2>',
    ...examples.map(htmlExample),
    '</main>',
    '</body>',
    '</html>',
    '',
  ].join('\n');
}

function htmlTable({ columns, rows }: NonNullable<ExamplesPage['table']>): string {
  const head = columns.map((name) => `<th scope="col">${escapeHtml(name)}</th>`).join('');
  const body = rows.map((row) => `<tr>${row.map((cell) => `<td>${escapeHtml(cell)}</td>`).join('')}</tr>`).join('\n');
  return `<div class="scroll"><table><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

function htmlExample(example: JudgedExample): string {
  const right = example.verdict === example.truth;
  const pictures = example.pictures.map(
    ({ source, description }, i) =>
      `<figure><img src="${escapeHtml(source)}" alt="Image ${i + 1}: ${escapeHtml(description)}" width="112" height="112"><figcaption>Image ${i + 1}</figcaption></figure>`,
  );
  const says = example.verdict === null ? 'no answer' : example.verdict;
  return [
    `<article class="${right ? 'right' : 'wrong'}">`,
    `<h3>${escapeHtml(example.title)}</h3>`,
    `<div class="pictures">${pictures.join('')}</div>`,
    '<dl>',
    `<dt>Caption</dt><dd>${escapeHtml(example.prompt)}</dd>`,
    ...htmlRationale(example.rationale),
    `<dt>Verdict</dt><dd><span class="word ${right ? 'right' : 'wrong'} says">${escapeHtml(says)}</span></dd>`,
    `<dt>Truth</dt><dd>${escapeHtml(example.truth)}</dd>`,
    '</dl>',
    '</article>',
  ].join('\n');
}

function htmlRationale(rationale: JudgedExample['rationale']): string[] {
  if (typeof rationale === 'string') return [`<dt>Rationale</dt><dd>${escapeHtml(rationale)}</dd>`];
  return rationale.map(({ label, words }) => `<dt>${escapeHtml(label)}</dt><dd>${words.map(htmlWord).join(' ')}</dd>`);
}

function htmlWord({ text, right, truth }: MarkedWord): string {
  if (right === null) return escapeHtml(text);
  const title = truth === undefined ? '' : ` title="in truth: ${escapeHtml(truth)}"`;
  const spoken = `<span style="position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden">${right ? ' (right)' : ' (wrong)'}</span>`;
  return `<span class="word ${right ? 'right' : 'wrong'}"${title}>${escapeHtml(text)}${spoken}</span>`;
}
