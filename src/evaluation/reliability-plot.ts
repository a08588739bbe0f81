/** The reliability diagram as SVG: a bar of accuracy for each bin of confidence, the diagonal, and how many answers each holds. */
import type { Calibration } from './calibration.js';

const width = 480;
const height = 480;
const box = { left: 60, right: 20, top: 58, bottom: 62 };
const escapes: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeText = (text: string): string => text.replace(/[&<>"]/g, (character) => escapes[character]!);
const at = (value: number): string => value.toFixed(1);

/** A whole SVG document of the bins of equal width. */
export function reliabilityPlot({ bins, count, ece, brier }: Calibration, title = 'Reliability'): string {
  const low = bins[0]!.low;
  const toX = (share: number): number => box.left + ((share - low) / (1 - low)) * (width - box.left - box.right);
  const toY = (share: number): number => height - box.bottom - share * (height - box.top - box.bottom);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(title)}" font-family="system-ui, sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="${box.left}" y="22" font-size="16" font-weight="600" fill="#1a1a1a">${escapeText(title)}</text>`,
    `<text x="${box.left}" y="42" fill="#444">ECE ${ece.toFixed(4)} · Brier ${brier.toFixed(4)} · ${count} answers</text>`,
  ];
  for (let i = 0; i <= 5; i++) {
    const y = at(toY(i / 5));
    const confidence = low + ((1 - low) * i) / 5;
    parts.push(
      `<line x1="${box.left}" x2="${width - box.right}" y1="${y}" y2="${y}" stroke="#e2e2e2"/>`,
      `<text x="${box.left - 8}" y="${at(toY(i / 5) + 4)}" text-anchor="end" fill="#444">${(i / 5).toFixed(1)}</text>`,
      `<text x="${at(toX(confidence))}" y="${height - box.bottom + 18}" text-anchor="middle" fill="#444">${confidence.toFixed(1)}</text>`,
    );
  }
  const most = Math.max(...bins.map((bin) => bin.count));
  for (const bin of bins) {
    if (bin.count === 0) continue;
    const [left, right] = [toX(bin.low) + 1, toX(bin.high) - 1];
    const top = toY(bin.accuracy!);
    // Bins of few answers are pale: their height says little.
    const opacity = (0.25 + (0.75 * bin.count) / most).toFixed(2);
    parts.push(
      `<rect x="${at(left)}" y="${at(top)}" width="${at(right - left)}" height="${at(toY(0) - top)}" fill="#0072b2" fill-opacity="${opacity}"/>`,
      `<line x1="${at(left)}" x2="${at(right)}" y1="${at(toY(bin.confidence!))}" y2="${at(toY(bin.confidence!))}" stroke="#d55e00" stroke-width="2"/>`,
      `<text x="${at((left + right) / 2)}" y="${at(Math.min(top - 4, toY(0) - 4))}" text-anchor="middle" fill="#1a1a1a" font-size="10">${bin.count}</text>`,
    );
  }
  parts.push(
    `<line x1="${at(toX(low))}" y1="${at(toY(low))}" x2="${at(toX(1))}" y2="${at(toY(1))}" stroke="#444" stroke-dasharray="4 4"/>`,
    `<text x="${(box.left + width - box.right) / 2}" y="${height - 24}" text-anchor="middle" fill="#444">confidence (orange: mean of the bin)</text>`,
    `<text transform="translate(16 ${(box.top + height - box.bottom) / 2}) rotate(-90)" text-anchor="middle" fill="#444">accuracy (numbers: answers)</text>`,
  );
  return `${parts.join('\n')}\n</svg>\n`;
}
