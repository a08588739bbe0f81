/**
 * `checkpoints/step-N` of a run: model files, `state.json` (where the recipe stands) and `manifest.json` with a checksum a
 * file. Written to a temporary name, fsynced, renamed: a folder with the final name is a whole checkpoint.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { z } from 'zod';
import { GavelError } from '../errors.js';
import { syncFile, syncFolder, writeJsonAtomically } from './atomic-file.js';
import { guarded } from './file-errors.js';

const manifestSchema = z.object({
  step: z.number().int().min(0),
  /** Lengths of the run's logs at this moment; a resumed run cuts them there. */
  logs: z.record(z.string(), z.number().int().min(0)),
  files: z.array(z.object({ path: z.string(), sizeBytes: z.number().int().min(0), sha256: z.string() })),
});

export type CheckpointManifest = z.infer<typeof manifestSchema>;

export interface Checkpoint {
  step: number;
  folder: string;
  /** Folder of the model files alone. */
  modelFolder: string;
  manifest: CheckpointManifest;
  state: unknown;
}

const folderName = (step: number): string => `step-${String(step).padStart(6, '0')}`;

export class CheckpointStore {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** Steps of every whole checkpoint, ascending. */
  async steps(): Promise<number[]> {
    const names = await readdir(this.folder).catch(() => [] as string[]);
    const steps = names.map((name) => /^step-(\d+)$/.exec(name)?.[1]).filter((digits) => digits !== undefined);
    return steps.map(Number).sort((a, b) => a - b);
  }

  /** Where the checkpoint of a step is, whether or not it exists. */
  folderOf(step: number): string {
    return join(this.folder, folderName(step));
  }

  /** Where the model files of a step are, whether or not they exist. */
  modelFolder(step: number): string {
    return join(this.folderOf(step), 'model');
  }

  /**
   * Writes the checkpoint of `step`; `saveModel` puts the model's files into the folder it is given. A failure leaves older
   * checkpoints and no partial one. Returns its folder. Errors: 'disk_full', 'permission_denied', 'io'.
   */
  async save(
    step: number,
    state: unknown,
    logs: CheckpointManifest['logs'],
    saveModel: (folder: string) => Promise<void>,
  ): Promise<string> {
    const folder = join(this.folder, folderName(step));
    const temporary = `${folder}.tmp`;
    await guarded('write the checkpoint', folder, async () => {
      try {
        await rm(temporary, { recursive: true, force: true });
        await mkdir(join(temporary, 'model'), { recursive: true });
        await saveModel(join(temporary, 'model'));
        await writeJsonAtomically(join(temporary, 'state.json'), state);
        const files = await describeFiles(temporary);
        await writeJsonAtomically(join(temporary, 'manifest.json'), { step, logs, files });
        await syncFolder(temporary);
        // A step that is reached again after a resume writes the same checkpoint again.
        await rm(folder, { recursive: true, force: true });
        await rename(temporary, folder);
        await syncFolder(this.folder);
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        throw error;
      }
    });
    return folder;
  }

  /** The last whole checkpoint, its checksums compared, or nothing. Errors: 'corrupt_checkpoint'. */
  async last(): Promise<Checkpoint | undefined> {
    const step = (await this.steps()).at(-1);
    return step === undefined ? undefined : this.open(step);
  }

  /** One checkpoint, its checksums compared. Errors: 'corrupt_checkpoint', 'io'. */
  async open(step: number): Promise<Checkpoint> {
    const folder = join(this.folder, folderName(step));
    const manifest = await guarded('read', folder, async () => {
      try {
        return manifestSchema.parse(JSON.parse(await readFile(join(folder, 'manifest.json'), 'utf8')));
      } catch (cause) {
        if ((cause as NodeJS.ErrnoException).code !== undefined) throw cause;
        throw corrupt(folder, 'manifest.json', cause);
      }
    });
    for (const { path, sizeBytes, sha256 } of manifest.files) {
      const found = await describeFile(folder, path).catch((cause: unknown) => {
        throw corrupt(folder, path, cause);
      });
      if (found.sizeBytes !== sizeBytes || found.sha256 !== sha256) throw corrupt(folder, path);
    }
    const state: unknown = JSON.parse(await readFile(join(folder, 'state.json'), 'utf8'));
    return { step, folder, modelFolder: join(folder, 'model'), manifest, state };
  }

  /** Removes all but the newest `keepLast` checkpoints and those of `pinned` steps. */
  async prune(keepLast: number, pinned: readonly number[] = []): Promise<void> {
    const steps = await this.steps();
    for (const step of steps.slice(0, Math.max(0, steps.length - keepLast))) {
      if (!pinned.includes(step)) await rm(join(this.folder, folderName(step)), { recursive: true, force: true });
    }
  }

  /** Removes what came after `step` and what a killed process left half written. */
  async removeAfter(step: number): Promise<void> {
    for (const name of await readdir(this.folder)) {
      const found = /^step-(\d+)(\.tmp)?$/.exec(name);
      if (found === null) continue;
      if (found[2] !== undefined || Number(found[1]) > step) {
        await rm(join(this.folder, name), { recursive: true, force: true });
      }
    }
  }
}

async function describeFiles(folder: string): Promise<CheckpointManifest['files']> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();
  const files: CheckpointManifest['files'] = [];
  for (const path of paths) {
    await syncFile(join(folder, path));
    files.push(await describeFile(folder, path));
  }
  for (const entry of entries) if (entry.isDirectory()) await syncFolder(join(entry.parentPath, entry.name));
  return files;
}

async function describeFile(folder: string, path: string): Promise<CheckpointManifest['files'][number]> {
  const full = join(folder, path);
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(full) as AsyncIterable<Buffer>) hash.update(chunk);
  return { path, sizeBytes: (await stat(full)).size, sha256: hash.digest('hex') };
}

function corrupt(folder: string, path: string, cause?: unknown): GavelError {
  return new GavelError(
    'corrupt_checkpoint',
    `Expected the file that the manifest describes for \`${path}\` in \`${folder}\` but received another or none. ` +
      'Remove that checkpoint folder to resume from the one before.',
    { fields: { folder, path }, cause },
  );
}
