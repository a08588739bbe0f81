// What the documentation says about itself and the code: links lead somewhere, every code, command, option, event and
// exit status stands in its page, and what may be copied out of a page is accepted by the schemas that will read it.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { exitCodes } from '../../src/cli/exit-codes.js';
import { parseConfig } from '../../src/cli/config-file.js';
import { dataFormats, importRecord } from '../../src/data/formats.js';
import { importRow } from '../../src/data/import-rows.js';
import { dataConfigSchema, dataSourceSchema } from '../../src/data/open-data.js';
import { errorCodes } from '../../src/errors.js';
import * as publicNames from '../../src/index.js';
import { trainEventTypes } from '../../src/recipes/events.js';
import { recipeNames, runConfigSchema, schemas, modelSchema, stageSchema } from '../../src/recipes/run-config.js';
import { verifierNames } from '../../src/rewards/verifier.js';

const root = join(import.meta.dirname, '../..');
const read = (path: string): string => readFileSync(join(root, path), 'utf8');
const below = (folder: string, suffix: string): string[] =>
  existsSync(join(root, folder))
    ? readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
        .filter((name) => name.endsWith(suffix))
        .map((name) => join(folder, name))
    : [];
const pages = ['README.md', 'CONTRIBUTING.md', ...below('docs', '.md')];

interface Fence {
  info: string;
  text: string;
}

const fencesOf = (markdown: string): Fence[] =>
  [...markdown.matchAll(/^```(.+)\n([\s\S]*?)^```$/gm)].map(([, info, text]) => ({ info: info!, text: text! }));
const withoutCode = (markdown: string): string =>
  markdown
    .replace(/<!--[\s\S]*?-->/g, '')
    .replace(/^```[\s\S]*?^```$/gm, '')
    .replace(/`[^`\n]*`/g, 'code');

/** A heading's anchor as GitHub makes it. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
const anchorsOf = (markdown: string): string[] =>
  [...markdown.replace(/^```[\s\S]*?^```$/gm, '').matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading!));

/** Relative links of a page that lead nowhere. */
function brokenLinks(path: string, markdown: string): string[] {
  const links = [...withoutCode(markdown).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target!);
  return links.filter((link) => {
    if (/^[a-z]+:/.test(link)) return false;
    const [file = '', anchor] = link.split('#');
    const target = file === '' ? path : join(dirname(path), file);
    if (!existsSync(join(root, target))) return true;
    return anchor !== undefined && !anchorsOf(read(target)).includes(anchor);
  });
}

/** The part of a page under a heading of the second level. */
function section(markdown: string, heading: string): string | undefined {
  return markdown
    .split(/^## /m)
    .slice(1)
    .find((part) => part.split('\n')[0] === heading);
}

/** The rows of the tables of a text, by their first cell without code marks. */
const firstCells = (markdown: string): string[] =>
  [...markdown.matchAll(/^\| *`?([^`|]+?)`? *\|/gm)].map(([, cell]) => cell!).filter((cell) => !/^-+$/.test(cell));

describe('links', () => {
  it.each(pages)('of %s resolve', (path) => {
    expect(brokenLinks(path, read(path))).toEqual([]);
  });

  it('that lead nowhere are found', () => {
    const text = '[a](docs/none.md) [b](docs/cli.md#none) [c](docs/cli.md#exit-status) `[d](no-link)`';
    expect(brokenLinks('README.md', text)).toEqual(['docs/none.md', 'docs/cli.md#none']);
  });

  it('from the README reach every page but the experiments', () => {
    const text = read('README.md');
    const own = pages.filter((path) => path !== 'README.md' && !path.startsWith('docs/experiments/'));
    expect(own.filter((path) => !text.includes(`(${path})`))).toEqual([]);
  });
});

describe('docs/errors.md', () => {
  it('has every code once, in order, and no other', () => {
    expect(firstCells(read('docs/errors.md'))).toEqual(['code', ...errorCodes]);
  });
});

describe('docs/cli.md', () => {
  const page = read('docs/cli.md');
  // A command of a file of its own stands where main.ts registers it; its parts belong to its section.
  const main = read('src/cli/main.ts');
  const whole = main.replace(/^ +(register\w+)\(program.*$/gm, (line, name: string) => {
    const file = new RegExp(`import \\{ ${name} \\} from '\\./([\\w-]+)\\.js'`).exec(main)?.[1];
    if (file === undefined) return line;
    const [before = '', first = '', ...parts] = read(`src/cli/${file}.ts`).split(".command('");
    return [before, [first, ...parts].join(".part('")].join(".command('");
  });
  const commands = whole
    .split(/\.command\('/)
    .slice(1)
    .map((part) => ({
      name: /^[a-z]+/.exec(part)![0],
      options: [...part.matchAll(/\.(?:requiredOption|option)\(\s*'([^']+)'/g)].map(([, flags]) => flags!),
      arguments: [...part.matchAll(/\.argument\(\s*'([^']+)'/g)].map(([, argument]) => argument!),
    }));

  it('has a section for every command, and no other', () => {
    expect(commands.length).toBeGreaterThan(5);
    const headings = page
      .split(/^## /m)
      .slice(1)
      .map((part) => part.split('\n')[0]);
    expect(headings).toEqual([...commands.map(({ name }) => name), 'Exit status', 'Environment']);
  });

  it.each(commands)('names every option and argument of $name', ({ name, options, arguments: args }) => {
    const text = section(page, name)!;
    expect([...options, ...args].filter((flags) => !text.includes(flags))).toEqual([]);
    const known = options.map((flags) => flags.split(' ')[0]);
    const named = firstCells(text).flatMap((cell) => /^--[a-z-]+/.exec(cell)?.[0] ?? []);
    expect(named.filter((flag) => !known.includes(flag))).toEqual([]);
  });

  it('has every exit status', () => {
    expect(firstCells(section(page, 'Exit status')!)).toEqual(['status', ...Object.values(exitCodes).map(String)]);
  });

  it('names every schema', () => {
    const text = section(page, 'schema')!;
    expect(Object.keys(schemas).filter((name) => !text.includes(`\`${name}\``))).toEqual([]);
  });
});

describe('docs/training.md', () => {
  const page = read('docs/training.md');
  const fences = fencesOf(page);

  it('has configurations that the schema accepts', () => {
    const snippets = fences.filter(({ info }) => info === 'yaml');
    const recipes = new Set<string>();
    for (const { text } of snippets) {
      const value = parse(text) as unknown;
      // A list is a part of `stages`; the model may stand alone.
      const isModel = Object.keys(value as object).join() === 'model';
      if (isModel) modelSchema.parse((value as { model: unknown }).model);
      else if (Array.isArray(value)) for (const stage of value) recipes.add(stageSchema.parse(stage).recipe);
      else for (const { recipe } of parseRun(text).stages) recipes.add(recipe);
    }
    expect([...recipes].sort()).toEqual([...recipeNames].sort());
  });

  it('has rows that the importer accepts', () => {
    const rows = fences.filter(({ info }) => info === 'jsonl').flatMap(({ text }) => text.trim().split('\n'));
    expect(rows.length).toBeGreaterThan(3);
    for (const row of rows) expect(importRow(JSON.parse(row)), row).toHaveProperty('row');
  });

  it('has a section for every recipe and every verifier in a table', () => {
    const text = page;
    for (const recipe of recipeNames.filter((name) => name !== 'evaluate-scorer'))
      expect(section(text, recipe), recipe).toBeDefined();
    expect(firstCells(section(text, 'Verifiers and rewards')!)).toEqual(['name', ...verifierNames]);
  });
});

describe('docs/data.md', () => {
  const page = read('docs/data.md');

  it('has a row of the table and an example for every form', () => {
    expect(firstCells(section(page, 'Formats')!)).toEqual(['format', ...dataFormats]);
    const examples = fencesOf(page).filter(({ info }) => info === 'jsonl');
    const found = examples.flatMap(({ text }) =>
      text
        .trim()
        .split('\n')
        .map((line) => {
          const result = importRecord(JSON.parse(line));
          expect(result, line).toHaveProperty('format');
          return 'format' in result ? result.format : undefined;
        }),
    );
    expect(dataFormats.filter((format) => !found.includes(format))).toEqual([]);
  });

  it('has every key of a source, and a mixture that the schema accepts', () => {
    expect(firstCells(section(page, 'Mixtures')!)).toEqual(['key', ...Object.keys(dataSourceSchema.shape)]);
    for (const { text } of fencesOf(page).filter(({ info }) => info === 'yaml')) {
      expect(dataConfigSchema.parse((parse(text) as { data: unknown }).data)).toHaveLength(3);
    }
  });
});

describe('docs/embedding.md', () => {
  it('names every event of a job', () => {
    const page = read('docs/embedding.md');
    expect(trainEventTypes.filter((type) => !page.includes(`\`${type}\``))).toEqual([]);
  });
});

describe('examples', () => {
  const recipesOf: Record<string, string[]> = {
    'examples/dpo.yaml': ['dpo'],
    'examples/jrm.yaml': ['joint', 'evaluate-scorer'],
    'examples/pairwise-judge.yaml': ['sft', 'rejection', 'grpo', 'evaluate'],
    'examples/r3v-baselines.yaml': ['evaluate', 'r3v', 'evaluate', 'dpo', 'evaluate'],
    'examples/r3v.yaml': ['r3v', 'select-evaluation'],
    'examples/unified-reward-think.yaml': ['unified-reward-think'],
  };

  it('are configurations that `gavel train` accepts, one a method', () => {
    const found = below('examples', '.yaml').map((path) => [path, parseRun(read(path)).stages.map((s) => s.recipe)]);
    expect(Object.fromEntries(found)).toEqual(recipesOf);
  });

  it("have the papers' numbers, as docs/training.md and the recipes' defaults give them", () => {
    const stage = (name: string): Record<string, any> => parseRun(read(`examples/${name}.yaml`)).stages[0]!;
    const supervised = {
      learningRate: 2.5e-6,
      epochs: 3,
      batchSize: 128,
      schedule: { kind: 'cosine', warmupRatio: 0.03 },
    };
    expect(stage('unified-reward-think')['options']).toMatchObject({
      coldStart: supervised,
      rejection: { sft: supervised },
      grpo: {
        ...{ groupSize: 8, beta: 0.04, learningRate: 1e-6, temperature: 1, maxCompletionLength: 2048, epochs: 3 },
        ...{ updatesPerRollout: 1, lossType: 'grpo', klClamp: 10, klBiasCorrection: false, klEstimator: 'k3' },
      },
    });
    expect(stage('jrm')['options']).toMatchObject({
      ...{ alpha: 0.7, learningRate: 2e-6, epochs: 10, batchSize: 64, ranking: { loss: 'uncertainty' } },
      ...{ schedule: { kind: 'cosine', warmupRatio: 0.05 }, optimizer: { beta1: 0.9, beta2: 0.95 } },
    });
    expect(stage('r3v')['options']).toMatchObject({
      ...{ samples: 3, temperature: 0.9, topP: 0.95, topK: 50, maxNewTokens: 384, candidates: 3, start: 'base' },
      ...{ sft: { learningRate: 3e-5, epochs: 3, batchSize: 64, schedule: { kind: 'constant' } } },
    });
    expect(stage('dpo')['options']).toMatchObject({ beta: 0.1, learningRate: 1e-5, loss: 'sigmoid' });
  });

  it('that pages show as running are files, word for word', () => {
    const shown = pages.flatMap((path) => fencesOf(read(path)).filter(({ info }) => info === 'js run'));
    const files = below('examples', '.mjs').map(read);
    expect(shown.length).toBeGreaterThan(0);
    for (const { text } of shown) expect(files).toContain(text);
  });

  it('and code in pages import only what the package exports', () => {
    const code = [
      ...pages.flatMap((path) => fencesOf(read(path)).filter(({ info }) => /^(js|ts)\b/.test(info))),
      ...below('examples', '.mjs').map((path) => ({ text: read(path) })),
    ];
    const imported = code.flatMap(({ text }) =>
      [...text.matchAll(/import \{([^}]*)\} from 'gavel-rl'/g)].flatMap(([, names]) =>
        names!.split(',').map((name) => name.trim()),
      ),
    );
    expect(imported.length).toBeGreaterThan(10);
    expect(imported.filter((name) => !(name in publicNames))).toEqual([]);
  });

  it('are shown or linked by some page', () => {
    const all = pages.map(read).join('\n');
    expect([...below('examples', '.mjs'), ...below('examples', '.yaml')].filter((path) => !all.includes(path))).toEqual(
      [],
    );
  });
});

function parseRun(text: string): ReturnType<typeof runConfigSchema.parse> {
  return parseConfig(text, runConfigSchema);
}
