/**
 * A GGUF file as a Hugging Face folder: configuration, tokenizer and chat template are written out, the weights stay in the
 * file, which the folder links to as model.gguf. Everything downstream reads folders alone.
 */
import { createHash } from 'node:crypto';
import { realpath, stat, symlink } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { fileError } from './checkpoint-files.js';
import { writeFolder, writeSynced } from './folder.js';
import { readGgufHeader, type GgufHeader } from './gguf.js';
import { ggufConfig, ggufGenerationConfig, ggufTensorIndex, ggufWeights, readRopeTables } from './gguf-config.js';
import { ggufText } from './gguf-metadata.js';
import { ggufTokenizer, ggufTokenizerConfig } from './gguf-tokenizer.js';

const exists = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

/** The text files of the folder, by name. */
async function companionsOf(header: GgufHeader): Promise<Map<string, string>> {
  const config = ggufConfig(header, await readRopeTables(header));
  // Names are checked here, so that a folder never holds what cannot be loaded.
  ggufTensorIndex(header);
  const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;
  const files = new Map([
    ['config.json', json(config)],
    ['generation_config.json', json(ggufGenerationConfig(header))],
    ['tokenizer.json', `${JSON.stringify(ggufTokenizer(header))}\n`],
    ['tokenizer_config.json', json(ggufTokenizerConfig(header, config['max_position_embeddings'] as number))],
  ]);
  const template = ggufText(header, 'tokenizer.chat_template');
  if (template !== undefined) files.set('chat_template.jinja', template);
  return files;
}

/**
 * Writes `folder` from the GGUF file `file`, whole or not at all: config.json, generation_config.json, tokenizer.json,
 * tokenizer_config.json, chat_template.jinja where the file has one, and model.gguf, a link to the file.
 * Errors: 'corrupt_checkpoint' and 'unsupported' naming the file and its key or tensor, 'io', 'permission_denied',
 * 'disk_full', 'invalid_argument' (a folder of something else).
 */
export async function importGguf(file: string, folder: string): Promise<void> {
  const target = await wholePath(file);
  await writeImported(await readGgufHeader(target), target, folder);
}

async function wholePath(file: string): Promise<string> {
  try {
    return await realpath(file);
  } catch (cause) {
    throw fileError(cause, file, 'a GGUF file');
  }
}

async function writeImported(header: GgufHeader, target: string, folder: string): Promise<void> {
  const files = await companionsOf(header);
  await writeFolder(folder, 'config.json', async (temporary) => {
    for (const [name, text] of files) await writeSynced(join(temporary, name), text);
    await symlink(target, ggufWeights(temporary));
  });
}

/** Below XDG_CACHE_HOME, by default ~/.cache. */
const cacheRoot = (): string => join(process.env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'gavel', 'gguf');

/**
 * The folder of a GGUF file in this user's cache, made when it is not there: one a path, size and time of change,
 * so a file that was replaced gets another. Errors: those of importGguf().
 */
export async function ggufFolder(file: string): Promise<string> {
  const target = await wholePath(file);
  const { size, mtimeMs } = await stat(target);
  const key = createHash('sha256')
    .update(JSON.stringify([layout, target, size, mtimeMs]))
    .digest('hex')
    .slice(0, 20);
  const folder = join(cacheRoot(), key);
  if (await exists(join(folder, 'config.json'))) return folder;
  try {
    await writeImported(await readGgufHeader(target), target, folder);
  } catch (error) {
    // Another process may have been first.
    if (GavelError.is(error) && error.code === 'io' && (await exists(join(folder, 'config.json')))) return folder;
    throw error;
  }
  return folder;
}

/** Changes when what is written changes, so that no older folder is taken for it. */
const layout = 2;
