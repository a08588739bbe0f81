// Rebuilds assets/emoji-bank: one PNG sheet per artist, bank.json and ATTRIBUTION.md. Run it only to change the bank:
//   mkdir /tmp/art && cd /tmp/art && npm i emoji-datasource-twitter@16 emoji-datasource-google@16 fluentui-emoji@1.3
//   node scripts/build-emoji-bank.mjs --from /tmp/art/node_modules
// The art packages are hundreds of megabytes, which is why they are not dependencies and the small sheets are committed.
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import sharp from 'sharp';

const glyphSize = 24;
const columns = 8;

// word, code point, file name in the Fluent set
const concepts = [
  ['dog', '1f436', 'dog-face'],
  ['cat', '1f431', 'cat-face'],
  ['frog', '1f438', 'frog'],
  ['fish', '1f420', 'tropical-fish'],
  ['turtle', '1f422', 'turtle'],
  ['car', '1f697', 'automobile'],
  ['rocket', '1f680', 'rocket'],
  ['house', '1f3e0', 'house'],
  ['tree', '1f333', 'deciduous-tree'],
  ['cactus', '1f335', 'cactus'],
  ['sunflower', '1f33b', 'sunflower'],
  ['mushroom', '1f344', 'mushroom'],
  ['apple', '1f34e', 'red-apple'],
  ['banana', '1f34c', 'banana'],
  ['grapes', '1f347', 'grapes'],
  ['pizza', '1f355', 'pizza'],
  ['burger', '1f354', 'hamburger'],
  ['ball', '26bd', 'soccer-ball'],
  ['heart', '2764-fe0f', 'red-heart'],
  ['star', '2b50', 'star'],
  ['key', '1f511', 'key'],
  ['gift', '1f381', 'wrapped-gift'],
  ['umbrella', '2614', 'umbrella-with-rain-drops'],
  ['guitar', '1f3b8', 'guitar'],
];

const artists = [
  {
    name: 'twemoji',
    package: 'emoji-datasource-twitter',
    licence: 'CC-BY-4.0',
    licenceUrl: 'https://creativecommons.org/licenses/by/4.0/',
    holder: 'Copyright Twitter, Inc and other contributors',
    project: 'Twemoji',
    hasRationales: true,
    path: ([, code]) => `img/twitter/64/${code}.png`,
  },
  {
    name: 'fluent-flat',
    package: 'fluentui-emoji',
    licence: 'MIT',
    licenceUrl: 'https://opensource.org/license/mit',
    holder: 'Copyright (c) Microsoft Corporation',
    project: 'Fluent Emoji, flat',
    hasRationales: true,
    path: ([, , file]) => `icons/flat/${file}.svg`,
  },
  {
    name: 'fluent-color',
    package: 'fluentui-emoji',
    licence: 'MIT',
    licenceUrl: 'https://opensource.org/license/mit',
    holder: 'Copyright (c) Microsoft Corporation',
    project: 'Fluent Emoji, colour',
    hasRationales: true,
    path: ([, , file]) => `icons/modern/${file}.svg`,
  },
  {
    name: 'noto',
    package: 'emoji-datasource-google',
    licence: 'Apache-2.0',
    licenceUrl: 'https://www.apache.org/licenses/LICENSE-2.0',
    holder: 'Copyright Google Inc.',
    project: 'Noto Color Emoji',
    hasRationales: false,
    path: ([, code]) => `img/google/64/${code}.png`,
  },
];

/** One glyph trimmed of its transparent border and fitted into a square of `glyphSize`, straight alpha. */
async function glyph(file) {
  const large = await sharp(file, { density: file.endsWith('.svg') ? 72 * 8 : 72 })
    .ensureAlpha()
    .trim({ background: { r: 0, g: 0, b: 0, alpha: 0 }, threshold: 0 })
    .png()
    .toBuffer();
  return sharp(large)
    .resize(glyphSize, glyphSize, { fit: 'contain', background: { r: 0, g: 0, b: 0, alpha: 0 }, kernel: 'lanczos3' })
    .png()
    .toBuffer();
}

async function sheet(root, artist) {
  const rows = Math.ceil(concepts.length / columns);
  const glyphs = await Promise.all(concepts.map((c) => glyph(join(root, artist.package, artist.path(c)))));
  return sharp({
    create: {
      width: columns * glyphSize,
      height: rows * glyphSize,
      channels: 4,
      background: { r: 0, g: 0, b: 0, alpha: 0 },
    },
  })
    .composite(
      glyphs.map((input, i) => ({
        input,
        left: (i % columns) * glyphSize,
        top: Math.floor(i / columns) * glyphSize,
      })),
    )
    .png({ compressionLevel: 9, effort: 10 })
    .toBuffer();
}

function attribution(versions) {
  const rows = artists.map(
    (a) =>
      `| \`${a.name}.png\` | ${a.project} | ${a.holder} | [${a.licence}](${a.licenceUrl}) | \`${a.package}\` ${versions[a.package]} |`,
  );
  return `# Attribution of the emoji bank

The sheets in this folder hold artwork by others. Changes: each glyph was trimmed of its transparent border, scaled to
${glyphSize} pixels and placed on a sheet; nothing else. \`scripts/build-emoji-bank.mjs\` makes them from the npm packages named.

| sheet | work | copyright | licence | taken from |
| --- | --- | --- | --- | --- |
${rows.join('\n')}

The Twemoji graphics are licensed under CC-BY 4.0 and keep that licence here. The rest of this repository is Apache-2.0.
`;
}

const { values } = parseArgs({ options: { from: { type: 'string' }, out: { type: 'string' } } });
if (values.from === undefined) {
  console.error('Expected --from <node_modules folder that holds the art packages> but received nothing.');
  process.exitCode = 2;
} else {
  const out = values.out ?? join(dirname(fileURLToPath(import.meta.url)), '..', 'assets', 'emoji-bank');
  await mkdir(out, { recursive: true });
  const versions = {};
  for (const artist of artists) {
    const manifest = JSON.parse(await readFile(join(values.from, artist.package, 'package.json'), 'utf8'));
    versions[artist.package] = manifest.version;
    await writeFile(join(out, `${artist.name}.png`), await sheet(values.from, artist));
  }
  const bank = {
    glyphSize,
    columns,
    concepts: concepts.map(([word, codePoint]) => ({ word, codePoint })),
    artists: artists.map(({ name, licence, hasRationales }) => ({
      name,
      licence,
      hasRationales,
      sheet: `${name}.png`,
    })),
  };
  await writeFile(join(out, 'bank.json'), `${JSON.stringify(bank, null, 2)}\n`);
  await writeFile(join(out, 'ATTRIBUTION.md'), attribution(versions));
  console.log(`wrote ${artists.length} sheets of ${concepts.length} glyphs to ${out}`);
}
