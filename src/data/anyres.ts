/**
 * LLaVA-OneVision's any-resolution rule: which grid of tiles a picture gets, and how many tokens are left when the padding
 * is cut off again, lines are ended and large pictures pooled. Source: transformers' LlavaOnevisionProcessor.
 */

/** What a checkpoint fixes of the rule. */
export interface AnyresRules {
  /** Pixels of a tile's side. */
  tileSide: number;
  /** Tokens of one tile, a square number. */
  tokensPerTile: number;
  /** Resolutions [height, width] to choose from. */
  pinpoints: readonly (readonly [number, number])[];
  /** Tiles' worth of tokens above which the features are pooled. */
  maxTiles: number;
}

/** The resolution that keeps most of a picture's pixels, and of those the one that wastes least. */
export function bestResolution(
  pinpoints: readonly (readonly [number, number])[],
  height: number,
  width: number,
): readonly [number, number] {
  let best = pinpoints[0]!;
  let mostKept = 0;
  let leastWasted = Infinity;
  for (const candidate of pinpoints) {
    const [fullHeight, fullWidth] = candidate;
    const scale = Math.min(fullWidth / width, fullHeight / height);
    const kept = Math.min(Math.trunc(width * scale) * Math.trunc(height * scale), width * height);
    const wasted = fullWidth * fullHeight - kept;
    if (kept < mostKept || (kept === mostKept && wasted >= leastWasted)) continue;
    best = candidate;
    mostKept = kept;
    leastWasted = wasted;
  }
  return best;
}

/** The size a picture is resized to so that it fits into a resolution with its aspect kept. */
export function fitInside(height: number, width: number, fullHeight: number, fullWidth: number): [number, number] {
  const across = fullWidth / width;
  const down = fullHeight / height;
  if (across < down) return [Math.min(Math.ceil(height * across), fullHeight), fullWidth];
  return [fullHeight, Math.min(Math.ceil(width * down), fullWidth)];
}

/** Tokens of a single picture: the small whole, the tiles without their padding, and one for the end of each line. */
export function anyresTokens(rules: AnyresRules, height: number, width: number): number {
  const [fullHeight, fullWidth] = bestResolution(rules.pinpoints, height, width);
  const perSide = Math.trunc(Math.sqrt(rules.tokensPerTile));
  let rows = perSide * Math.floor(fullHeight / rules.tileSide);
  let columns = perSide * Math.floor(fullWidth / rules.tileSide);
  if (width / height > columns / rows) {
    rows -= 2 * Math.floor((rows - wholePart(height * (columns / width))) / 2);
  } else {
    columns -= 2 * Math.floor((columns - wholePart(width * (rows / height))) / 2);
  }
  const ratio = Math.sqrt((rows * columns) / (rules.maxTiles * perSide ** 2));
  if (ratio > 1.1) {
    rows = floorDivide(rows, ratio);
    columns = floorDivide(columns, ratio);
  }
  return rules.tokensPerTile + rows * columns + rows;
}

/** Python's int(round(value, 7)). */
function wholePart(value: number): number {
  return Math.trunc(Number(value.toFixed(7)));
}

/** Python's a // b of floats, which divides what is left after the remainder has been taken away. */
function floorDivide(a: number, b: number): number {
  const quotient = (a - (a % b)) / b;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}
