/** Line plots as SVG text: axes with round ticks, a legend, confidence bars, a moving mean. No dependency. */

export interface PlotPoint {
  x: number;
  y: number;
  /** Ends of an error bar. */
  low?: number;
  high?: number;
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
}

const width = 760;
const height = 400;
const box = { left: 64, right: 16, top: 60, bottom: 56 };
// Okabe and Ito's palette: distinguishable with colour-blind eyes.
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9'];

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

/** Mean over a centred window of `size` neighbours. */
export function movingMean(points: readonly PlotPoint[], size: number): PlotPoint[] {
  const half = Math.floor(size / 2);
  return points.map(({ x }, i) => {
    const near = points.slice(Math.max(0, i - half), i + half + 1);
    return { x, y: near.reduce((sum, point) => sum + point.y, 0) / near.length };
  });
}

/** The plot as a whole SVG document. Points that are not finite are left out. */
export function linePlot(options: PlotOptions): string {
  const series = options.series.map((line) => ({
    ...line,
    points: line.points.filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y)),
  }));
  const all = series.flatMap(({ points }) => points);
  const xs = all.map(({ x }) => x);
  const ys = all.flatMap(({ y, low, high }) => [y, low ?? y, high ?? y]);
  const named = options.xNames;
  const [xLow, xHigh] = named === undefined ? [least(xs, 0), most(xs, 1)] : [-0.4, named.length - 0.6];
  const [yLow, yHigh] = options.yRange ?? padded(least(ys, 0), most(ys, 1));
  const toX = (x: number): number => box.left + ((x - xLow) / (xHigh - xLow || 1)) * (width - box.left - box.right);
  const toY = (y: number): number =>
    height - box.bottom - ((y - yLow) / (yHigh - yLow || 1)) * (height - box.top - box.bottom);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(options.title)}" font-family="system-ui, sans-serif" font-size="13">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${box.left}" y="22" font-size="16" font-weight="600" fill="#1a1a1a">${escapeText(options.title)}</text>`,
  ];
  for (const tick of roundTicks(yLow, yHigh)) {
    parts.push(
      `<line x1="${box.left}" x2="${width - box.right}" y1="${at(toY(tick))}" y2="${at(toY(tick))}" stroke="#e2e2e2"/>`,
      `<text x="${box.left - 8}" y="${at(toY(tick) + 4)}" text-anchor="end" fill="#444">${tick}</text>`,
    );
  }
  const xTicks =
    named === undefined
      ? roundTicks(xLow, xHigh, 8).map((x) => ({ x, label: String(x) }))
      : named.map((label, x) => ({ x, label }));
  for (const { x, label } of xTicks) {
    parts.push(
      `<text x="${at(toX(x))}" y="${height - box.bottom + 20}" text-anchor="middle" fill="#444">${escapeText(label)}</text>`,
    );
  }
  parts.push(
    `<line x1="${box.left}" x2="${width - box.right}" y1="${height - box.bottom}" y2="${height - box.bottom}" stroke="#444"/>`,
    `<text x="${(box.left + width - box.right) / 2}" y="${height - 12}" text-anchor="middle" fill="#444">${escapeText(options.xLabel)}</text>`,
    `<text transform="translate(16 ${(box.top + height - box.bottom) / 2}) rotate(-90)" text-anchor="middle" fill="#444">${escapeText(options.yLabel)}</text>`,
  );
  for (const [index, line] of series.entries()) parts.push(...drawSeries(line, index, toX, toY));
  return `${parts.join('\n')}\n</svg>\n`;
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
  toX: (x: number) => number,
  toY: (y: number) => number,
): string[] {
  const colour = colours[index % colours.length]!;
  const path = (list: readonly PlotPoint[]): string =>
    list.map(({ x, y }, i) => `${i === 0 ? 'M' : 'L'}${at(toX(x))} ${at(toY(y))}`).join(' ');
  const parts: string[] = [];
  const smoothed = smooth !== undefined && points.length > smooth;
  if (smoothed) parts.push(`<path d="${path(points)}" fill="none" stroke="${colour}" stroke-opacity="0.25"/>`);
  parts.push(
    `<path d="${path(smoothed ? movingMean(points, smooth) : points)}" fill="none" stroke="${colour}" stroke-width="2"/>`,
  );
  for (const { x, y, low, high } of points) {
    if (low !== undefined && high !== undefined) {
      parts.push(
        `<line x1="${at(toX(x))}" x2="${at(toX(x))}" y1="${at(toY(low))}" y2="${at(toY(high))}" stroke="${colour}"/>`,
      );
    }
    if (markers ?? low !== undefined)
      parts.push(`<circle cx="${at(toX(x))}" cy="${at(toY(y))}" r="3.5" fill="${colour}"/>`);
  }
  const legendX = box.left + 8 + index * 170;
  parts.push(
    `<rect x="${legendX}" y="38" width="14" height="4" fill="${colour}"/>`,
    `<text x="${legendX + 20}" y="44" fill="#1a1a1a">${escapeText(name)}</text>`,
  );
  return parts;
}
