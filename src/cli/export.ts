/** `gavel export`: a run's or folder's weights as transformers or PEFT load them, with a model card. */
import { existsSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { basename, join, normalize, resolve, sep } from 'node:path';
import { parse } from 'yaml';
import { packageRoot } from '../binding/load.js';
import { readOptionalText } from '../engine/checkpoint-files.js';
import { createEngine } from '../engine/engine.js';
import { parseHubId } from '../engine/hub.js';
import type { Model } from '../engine/model.js';
import { expected } from '../errors.js';
import { guarded } from '../runs/file-errors.js';
import { modelCard } from '../runs/model-card.js';
import { isRunFolder, modelFolderOfRun, readRunFacts, type RunFacts } from '../runs/run-facts.js';
import type { ExportCommandOptions } from './command-options.js';
import { fetchModel } from './open-policy.js';
import { print, printJson, progressOnTerminal } from './terminal.js';

export async function exportCommand(options: ExportCommandOptions): Promise<void> {
  const { model: name, out, merge = false, dtype, base: givenBase, license, json } = options;
  if (dtype !== undefined && dtype !== 'fp32' && dtype !== 'bf16') {
    throw expected('invalid_argument', '--dtype', 'fp32 or bf16', dtype);
  }
  const isRun = await isRunFolder(name);
  const run = isRun ? await readRunFacts(name) : undefined;
  const source = isRun ? await modelFolderOfRun(name, { adapter: !merge }) : name;
  if (resolve(source) === resolve(out)) {
    throw expected(
      'invalid_argument',
      '--out',
      'another folder than the model',
      out,
      'A model is never exported over itself.',
    );
  }
  const progress = progressOnTerminal();
  await fetchModel(source, { progress });
  await using engine = await createEngine();
  const model = await engine.loadModel(source, dtype === undefined ? {} : { dtype });
  const kind = model.adapter !== undefined && !merge ? 'adapter' : 'model';
  if (kind === 'adapter') await model.saveAdapter(out);
  else await model.exportHf(out);
  const card = await modelCardOf(model, { out, kind, run, source, givenBase, license });
  const path = join(out, 'README.md');
  await guarded('write', path, () => writeFile(path, card));
  if (json) printJson({ out: resolve(out), kind, family: model.family, dtype: model.dtype });
  else print(`${kind === 'adapter' ? 'PEFT adapter' : 'Model'} (${model.family}, ${model.dtype}): ${out}`);
}

async function modelCardOf(
  model: Model,
  about: {
    out: string;
    kind: 'model' | 'adapter';
    run: RunFacts | undefined;
    source: string;
    givenBase: string | undefined;
    license: string | undefined;
  },
): Promise<string> {
  const { out, kind, run, source, givenBase, license } = about;
  const matter = model.folder === undefined ? {} : await frontMatter(model.folder);
  const manifest = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  // What was trained, by its hub id; else what the folder's own card says it comes from.
  const named = givenBase ?? [configuredModel(run), model.parts.base, source, model.folder].map(hubIdOf).find(Boolean);
  const earlier = typeof matter['base_model'] === 'string' ? matter['base_model'] : undefined;
  const licence = license === undefined ? licenceFields(matter) : { license };
  const tensors = model.tensors().filter(({ adapter }) => adapter === (kind === 'adapter'));
  return modelCard({
    name: basename(resolve(out)),
    kind,
    vision: 'vision_config' in model.config,
    base: named ?? earlier,
    licence,
    dtype: model.dtype,
    numParameters: tensors.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0),
    run,
    version: manifest.version,
  });
}

/** The model that a run's configuration names: a hub id, or a path where the configuration was. */
function configuredModel(run: { config: Record<string, unknown>; path: string } | undefined): string | undefined {
  const path = (run?.config['model'] as { path?: unknown } | undefined)?.path;
  if (run === undefined || typeof path !== 'string') return undefined;
  const depth = normalize(String(run.config['run']))
    .split(sep)
    .filter((part) => part !== '').length;
  const beside = resolve(run.path, ...Array.from({ length: depth }, () => '..'), path);
  return existsSync(beside) ? beside : path;
}

/** The hub id in a name or in a folder of the hub's cache. */
function hubIdOf(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const cached = /(?:^|\/)models--([^/]+)--([^/]+)\/snapshots\//.exec(name);
  if (cached !== null) return `${cached[1]}/${cached[2]}`;
  return existsSync(name) ? undefined : parseHubId(name)?.repo;
}

const licenceFields = (matter: Readonly<Record<string, unknown>>): Record<string, string> =>
  Object.fromEntries(
    ['license', 'license_name', 'license_link'].flatMap((key) => {
      const value = matter[key];
      return typeof value === 'string' ? [[key, value]] : [];
    }),
  );

/** The YAML between the first two lines of dashes of a model's card; nothing when there is none or it is broken. */
async function frontMatter(folder: string): Promise<Record<string, unknown>> {
  const text = /^---\r?\n([\s\S]*?)\r?\n---/.exec((await readOptionalText(folder, 'README.md')) ?? '')?.[1];
  if (text === undefined) return {};
  try {
    const value: unknown = parse(text);
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
