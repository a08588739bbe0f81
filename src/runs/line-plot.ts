/** Line plots as SVG text: axes with round ticks, a legend, confidence bars, a moving mean, named spans of x. No dependency. */

export interface PlotPoint {
  x: number;
  y: number;
  /** Ends of an error bar. */
  low?: number;
  high?: number;
  /** The line begins anew here. */
  starts?: boolean;
}

/** A named part of the x axis. */
export interface PlotSpan {
  name: string;
  from: number;
  to: number;
}

export interface PlotSeries {
  name: string;
  points: readonly PlotPoint[];
  /** Draw the points only faintly and their mean over this many neighbours as the line. */
  smooth?: number;
  /** Mark each point. Default: only with error bars. */
  markers?: boolean;
}

export interface PlotOptions {
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly PlotSeries[];
  /** Fixed range of y. Default: the data's. */
  yRange?: readonly [number, number];
  /** Names instead of numbers at x = 0, 1, 2, ... */
  xNames?: readonly string[];
  /** Parts of x that are told apart by their ground and named above it. */
  spans?: readonly PlotSpan[];
}

const width = 760;
const height = 400;
const margin = { left: 72, right: 16, bottom: 56 };
const legendTop = 42;
const legendRow = 20;
// Okabe and Ito's palette: distinguishable with colour-blind eyes.
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];

/** Width of a text of this size, near enough to place what stands beside it. */
const textWidth = (text: string, size: number): number => text.length * size * 0.56;

const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeText = (text: string): string => text.replace(/[&<>"]/g, (character) => escapes[character]!);

/** Ticks at round distances that cover [low, high]. */
export function roundTicks(low: number, high: number, wanted = 5): number[] {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough) ?? 10 * power;
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++)
    ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

/** Mean over a centred window of `size` neighbours; a window does not reach over the start of a line. */
export function movingMean(points: readonly PlotPoint[], size: number): PlotPoint[] {
  const half = Math.floor(size / 2);
  return linesOf(points).flatMap((line) =>
    line.map(({ x, starts }, i) => {
      const near = line.slice(Math.max(0, i - half), i + half + 1);
      const y = near.reduce((sum, point) => sum + point.y, 0) / near.length;
      return starts === undefined ? { x, y } : { x, y, starts };
    }),
  );
}

/** The points cut where a line starts. */
function linesOf(points: readonly PlotPoint[]): PlotPoint[][] {
  const lines: PlotPoint[][] = [];
  for (const point of points) {
    const line = lines.at(-1);
    if (line === undefined || point.starts === true) lines.push([point]);
    else line.push(point);
  }
  return lines;
}

/** Where each legend entry stands: rows as wide as the plot. */
function legendPlaces(names: readonly string[]): { x: number; row: number }[] {
  let x = margin.left + 8;
  let row = 0;
  return names.map((name) => {
    const needed = 20 + textWidth(name, 13) + 18;
    if (x + needed > width - margin.right && x > margin.left + 8) {
      x = margin.left + 8;
      row++;
    }
    const place = { x, row };
    x += needed;
    return place;
  });
}

/** The plot as a whole SVG document. Points that are not finite are left out. */
export function linePlot(options: PlotOptions): string {
  const series = options.series.map((line) => ({
    ...line,
    points: line.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)),
  }));
  const spans = (options.spans ?? []).filter(({ from, to }) => Number.isFinite(from) && Number.isFinite(to));
  const all = series.flatMap(({ points }) => points);
  const xs = [...all.map(({ x }) => x), ...spans.flatMap(({ from, to }) => [from, to])];
  const ys = all.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]);
  const named = options.xNames;
  const [xLow, xHigh] = named === undefined ? [least(xs, 0), most(xs, 1)] : [-0.4, named.length - 0.6];
  const [yLow, yHigh] = options.yRange ?? padded(least(ys, 0), most(ys, 1));
  const legend = legendPlaces(series.map(({ name }) => name));
  const top = legendTop + legendRow * ((legend.at(-1)?.row ?? 0) + 1) + (spans.length > 0 ? 18 : 0);
  const bottom = height - margin.bottom;
  const toX = (x: number): number =>
    margin.left + ((x - xLow) / (xHigh - xLow || 1)) * (width - margin.left - margin.right);
  const toY = (y: number): number => bottom - ((y - yLow) / (yHigh - yLow || 1)) * (bottom - top);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(options.title)}" font-family="system-ui, sans-serif" font-size="13">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${margin.left}" y="22" font-size="16" font-weight="600" fill="#1a1a1a">${escapeText(options.title)}</text>`,
    ...spans.flatMap((span, i) => drawSpan(span, i, toX, top, bottom)),
  ];
  for (const tick of roundTicks(yLow, yHigh)) {
    parts.push(
      `<line x1="${margin.left}" x2="${width - margin.right}" y1="${at(toY(tick))}" y2="${at(toY(tick))}" stroke="#dcdcdc"/>`,
      `<text x="${margin.left - 8}" y="${at(toY(tick) + 4)}" text-anchor="end" fill="#444">${tick}</text>`,
    );
  }
  // Between whole numbers, such as steps, there is nothing to mark.
  const isTick = xs.every((x) => Number.isInteger(x)) && xHigh > xLow ? Number.isInteger : Number.isFinite;
  const xTicks =
    named === undefined
      ? roundTicks(xLow, xHigh, 8)
          .filter(isTick)
          .map((x) => ({ x, label: String(x) }))
      : named.map((label, x) => ({ x, label }));
  for (const { x, label } of xTicks) {
    parts.push(
      `<text x="${at(toX(x))}" y="${bottom + 20}" text-anchor="middle" fill="#444">${escapeText(label)}</text>`,
    );
  }
  parts.push(
    `<line x1="${margin.left}" x2="${width - margin.right}" y1="${bottom}" y2="${bottom}" stroke="#444"/>`,
    `<text x="${(margin.left + width - margin.right) / 2}" y="${height - 12}" text-anchor="middle" fill="#444">${escapeText(options.xLabel)}</text>`,
    `<text transform="translate(16 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle" fill="#444">${escapeText(options.yLabel)}</text>`,
  );
  // The first line is the one that matters: it lies on top.
  for (const [index, line] of [...series.entries()].reverse()) {
    parts.push(...drawSeries(line, index, legend[index]!, toX, toY));
  }
  return `${parts.join('\n')}\n</svg>\n`;
}

/** Every other span has a darker ground; a name that does not fit is cut, and whole in the tooltip. */
function drawSpan(
  { name, from, to }: PlotSpan,
  index: number,
  toX: (x: number) => number,
  top: number,
  bottom: number,
): string[] {
  const left = toX(from);
  const spanWidth = toX(to) - left;
  const room = Math.floor((spanWidth - 4) / textWidth('m', 11));
  const shown = name.length <= room ? name : room >= 4 ? `${name.slice(0, room - 1)}\u2026` : '';
  return [
    `<g><title>${escapeText(name)}</title><rect x="${at(left)}" y="${top - 16}" width="${at(Math.max(0, spanWidth))}" height="${bottom - top + 16}" fill="${index % 2 === 0 ? '#f7f7f7' : '#ececec'}"/></g>`,
    `<line x1="${at(left)}" x2="${at(left)}" y1="${top - 16}" y2="${bottom}" stroke="#bdbdbd" stroke-dasharray="3 3"/>`,
    ...(shown === ''
      ? []
      : [`<text x="${at(left + 3)}" y="${top - 4}" font-size="11" fill="#444">${escapeText(shown)}</text>`]),
  ];
}

const at = (value: number): string => value.toFixed(1);
const least = (values: readonly number[], otherwise: number): number =>
  values.reduce((a, b) => Math.min(a, b), values.length > 0 ? Infinity : otherwise);
const most = (values: readonly number[], otherwise: number): number =>
  values.reduce((a, b) => Math.max(a, b), values.length > 0 ? -Infinity : otherwise);

function padded(low: number, high: number): [number, number] {
  const pad = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - pad, high + pad];
}

function drawSeries(
  { name, points, smooth, markers }: PlotSeries,
  index: number,
  legend: { x: number; row: number },
  toX: (x: number) => number,
  toY: (y: number) => number,
): string[] {
  const colour = colours[index % colours.length]!;
  // Colours come again after the sixth line, which is then dashed.
  const dashes = index < colours.length ? '' : ' stroke-dasharray="6 3"';
  const path = (list: readonly PlotPoint[]): string =>
    list.map(({ x, y, starts }, i) => `${i === 0 || starts ? 'M' : 'L'}${at(toX(x))} ${at(toY(y))}`).join(' ');
  const parts: string[] = [];
  const smoothed = smooth !== undefined && points.length > smooth;
  if (smoothed) parts.push(`<path d="${path(points)}" fill="none" stroke="${colour}" stroke-opacity="0.25"/>`);
  parts.push(
    `<path d="${path(smoothed ? movingMean(points, smooth) : points)}" fill="none" stroke="${colour}" stroke-width="2"${dashes}/>`,
  );
  // A line of one point would not be seen.
  const alone = new Set(linesOf(points).flatMap((line) => (line.length === 1 ? line : [])));
  for (const point of points) {
    const { x, y, low, high } = point;
    if (low !== undefined && high !== undefined) {
      parts.push(
        `<line x1="${at(toX(x))}" x2="${at(toX(x))}" y1="${at(toY(low))}" y2="${at(toY(high))}" stroke="${colour}"/>`,
      );
    }
    if (markers ?? (low !== undefined || alone.has(point)))
      parts.push(`<circle cx="${at(toX(x))}" cy="${at(toY(y))}" r="3.5" fill="${colour}"/>`);
  }
  const legendY = legendTop - 4 + legend.row * legendRow;
  parts.push(
    `<rect x="${at(legend.x)}" y="${legendY}" width="14" height="4" fill="${colour}"/>`,
    `<text x="${at(legend.x + 20)}" y="${legendY + 6}" fill="#1a1a1a">${escapeText(name)}</text>`,
  );
  return parts;
}
