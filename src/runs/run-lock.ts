/** One process a run folder: a lock file holding the owner's process id, taken over when that process is gone. */
import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError } from '../errors.js';
import { guarded } from './file-errors.js';

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** The living process that writes to `folder`, if there is one. */
export async function lockOwner(folder: string): Promise<number | undefined> {
  const owner = Number(await readFile(join(folder, 'run.lock'), 'utf8').catch(() => ''));
  return Number.isSafeInteger(owner) && owner > 0 && isAlive(owner) ? owner : undefined;
}

/** Takes the lock of `folder`; the returned function gives it back. Errors: 'io' naming the owner, 'permission_denied'. */
export async function lockRun(folder: string): Promise<() => Promise<void>> {
  const path = join(folder, 'run.lock');
  const take = async (): Promise<boolean> => {
    try {
      const handle = await open(path, 'wx');
      await handle.writeFile(`${process.pid}\n`);
      await handle.close();
      return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
      throw error;
    }
  };
  await guarded('lock', path, async () => {
    if (await take()) return;
    const owner = Number(await readFile(path, 'utf8').catch(() => ''));
    if (owner > 0 && owner !== process.pid && isAlive(owner)) {
      throw new GavelError(
        'io',
        `Expected a run folder that nothing writes to but \`${folder}\` belongs to process ${owner}. ` +
          `Wait for it or stop it; if it is no run, remove ${path}.`,
        { fields: { folder, owner } },
      );
    }
    await rm(path, { force: true });
    if (!(await take()))
      throw new GavelError('io', `Expected to take the lock \`${path}\` but another process was faster.`);
  });
  return () => rm(path, { force: true });
}
