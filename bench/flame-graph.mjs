// A flame graph as SVG text: callers below, callees above them, as wide as their share of the samples.
const width = 1200;
const rowHeight = 18;
const leastShare = 0.002;
const colours = ['#f6c28b', '#f2a65a', '#e98a52', '#f7d08a', '#e3b23c', '#f0b67f'];

const escapes = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeText = (text) => text.replace(/[&<>"]/g, (character) => escapes[character]);
const colourOf = (name) =>
  colours[[...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) >>> 0, 7) % colours.length];

function insert(node, stack, depth = 0) {
  node.count += 1;
  if (depth === stack.length) return;
  const name = stack[depth];
  if (!node.children.has(name)) node.children.set(name, { count: 0, children: new Map() });
  insert(node.children.get(name), stack, depth + 1);
}

/** `stacks` are lists of names from root to leaf. */
export function flameGraph(title, stacks) {
  const root = { count: 0, children: new Map() };
  for (const stack of stacks) insert(root, stack);
  const boxes = [];
  const place = (node, x, depth) => {
    let at = x;
    for (const [name, child] of [...node.children].sort(([a], [b]) => a.localeCompare(b))) {
      const share = child.count / root.count;
      if (share >= leastShare) {
        boxes.push({ name, share, x: at, depth });
        place(child, at, depth + 1);
      }
      at += share;
    }
  };
  place(root, 0, 0);
  const rows = Math.max(...boxes.map(({ depth }) => depth)) + 1;
  const height = rows * rowHeight + 40;
  const drawn = boxes.flatMap(({ name, share, x, depth }) => {
    const [left, wide, y] = [x * width, share * width, height - 8 - (depth + 1) * rowHeight];
    const room = Math.floor((wide - 6) / 6.2);
    const text = name.length <= room ? name : room >= 4 ? `${name.slice(0, room - 1)}\u2026` : '';
    const label = `${name}: ${(100 * share).toFixed(1)} %`;
    return [
      `<g><title>${escapeText(label)}</title><rect x="${left.toFixed(1)}" y="${y}" width="${Math.max(0.5, wide - 0.5).toFixed(1)}" height="${rowHeight - 1}" fill="${colourOf(name)}"/>`,
      ...(text === '' ? [] : [`<text x="${(left + 3).toFixed(1)}" y="${y + 13}">${escapeText(text)}</text>`]),
      '</g>',
    ];
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img" aria-label="${escapeText(title)}" font-family="system-ui, sans-serif" font-size="11">`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="8" y="20" font-size="15" font-weight="600">${escapeText(title)}</text>`,
    ...drawn,
    '</svg>',
    '',
  ].join('\n');
}
