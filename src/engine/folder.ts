/** Folders that are either whole or absent: written under a temporary name, flushed, renamed. */
import { randomUUID } from 'node:crypto';
import { copyFile, mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { GavelError } from '../errors.js';

const causes: Readonly<Record<string, readonly ['disk_full' | 'permission_denied', string]>> = {
  ENOSPC: ['disk_full', 'Free space or choose another folder; what was saved before is untouched.'],
  EDQUOT: ['disk_full', 'Free some of your quota or choose another folder; what was saved before is untouched.'],
  EACCES: ['permission_denied', 'Change its permissions or choose another folder.'],
  EPERM: ['permission_denied', 'Change its permissions or choose another folder.'],
  EROFS: ['permission_denied', 'Choose a folder on a writable file system.'],
};

/** Errors of the system as typed ones; others pass unchanged. */
function writeError(error: unknown, folder: string): unknown {
  const errno = (error as NodeJS.ErrnoException | undefined)?.code;
  if (GavelError.is(error) || errno === undefined) return error;
  const [code, advice] = causes[errno] ?? (['io', 'Check the path and the device.'] as const);
  return new GavelError(code, `Expected to write the folder "${folder}" but received ${errno}. ${advice}`, {
    fields: { path: folder, errno },
    cause: error,
  });
}

async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Writes a small file and flushes it. */
export async function writeSynced(path: string, data: string): Promise<void> {
  await writeFile(path, data);
  await sync(path);
}

/** Copies `names` that exist from one folder into another and flushes them. */
export async function copyPresent(from: string, into: string, names: readonly string[]): Promise<void> {
  const present = new Set(await readdir(from));
  for (const name of names.filter((one) => present.has(one))) {
    await copyFile(join(from, name), join(into, name));
    await sync(join(into, name));
  }
}

// A folder of somebody's own files must not vanish because it was named as a target.
async function refuseForeign(folder: string, mark: string): Promise<'absent' | 'replace'> {
  const info = await stat(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (info === undefined) return 'absent';
  const names = info.isDirectory() ? await readdir(folder) : ['a file'];
  if (names.length === 0 || names.includes(mark)) return 'replace';
  throw new GavelError(
    'invalid_argument',
    `Expected a new folder or one with ${mark} for \`folder\` but received "${folder}", which holds other things. ` +
      'Name another one, or remove it.',
    { fields: { path: folder } },
  );
}

/**
 * Calls `fill` with a temporary folder beside `folder` and gives it the name when everything is on disk. A folder that
 * stands there is replaced when it is empty or holds `mark`. A failure leaves what was there before.
 * Errors: 'disk_full', 'permission_denied', 'io', 'invalid_argument' (a folder of something else).
 */
export async function writeFolder(
  folder: string,
  mark: string,
  fill: (temporary: string) => Promise<void>,
): Promise<void> {
  const target = resolve(folder);
  const parent = dirname(target);
  const unique = randomUUID().slice(0, 8);
  const temporary = join(parent, `.${basename(target)}.saving-${unique}`);
  const aside = join(parent, `.${basename(target)}.old-${unique}`);
  try {
    const state = await refuseForeign(target, mark);
    await mkdir(parent, { recursive: true });
    await mkdir(temporary);
    await fill(temporary);
    await sync(temporary);
    if (state === 'replace') await rename(target, aside);
    try {
      await rename(temporary, target);
    } catch (error) {
      if (state === 'replace') await rename(aside, target);
      throw error;
    }
    await sync(parent);
    await rm(aside, { recursive: true, force: true });
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => undefined);
    throw writeError(error, folder);
  }
}
