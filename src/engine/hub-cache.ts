/**
 * The hub's cache folder as Python's client lays it out, so that both share one copy: models--ORG--NAME with blobs/DIGEST,
 * refs/REVISION (a commit) and snapshots/COMMIT/FILE (a link to its blob). A blob gets its name only when its digest agrees;
 * what an interrupted process leaves behind is continued by the next one.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, mkdir, open, readdir, readFile, rename, rm, stat, statfs, symlink, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { threadId } from 'node:worker_threads';
import { GavelError } from '../errors.js';
import { corruptFile } from './checkpoint-files.js';

/** A file of a repository. `digest` is its SHA-256, or, for small files, git's SHA-1 of it: the length tells. */
export interface HubFile {
  name: string;
  sizeBytes: number;
  digest: string;
}

/** Bytes of a file from `start` on. */
export type ByteSource = (start: number) => AsyncIterable<Uint8Array>;

const owner = `${hostname().replaceAll('.', '-')}.${process.pid}.${threadId}`;
const active = new Set<string>();
let nextPart = 0;

const isMissing = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '');

async function sizeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw error;
  }
}

export class HubCache {
  /** Of this repository. */
  readonly folder: string;

  constructor(cacheFolder: string, repo: string) {
    this.folder = join(cacheFolder, `models--${repo.replaceAll('/', '--')}`);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  /** The commit a branch or tag stood at when it was last asked for. */
  async commitOf(revision: string): Promise<string | undefined> {
    try {
      const commit = (await readFile(join(this.folder, 'refs', revision), 'utf8')).trim();
      return /^[0-9a-f]{40}$/.test(commit) ? commit : undefined;
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  async remember(revision: string, commit: string): Promise<void> {
    if (revision === commit) return;
    const path = join(this.folder, 'refs', revision);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(`${path}.${owner}`, commit);
    await rename(`${path}.${owner}`, path);
  }

  async has(commit: string, name: string): Promise<boolean> {
    return (await sizeOf(join(this.snapshot(commit), name))) !== undefined;
  }

  /** Whether `file` must still be fetched, and how much of it. */
  async missingBytes(commit: string, file: HubFile): Promise<number> {
    if (await this.has(commit, file.name)) return 0;
    return (await sizeOf(this.#blob(file))) === file.sizeBytes ? 0 : file.sizeBytes;
  }

  /** Throws 'disk_full' when the cache's file system has less than `sizeBytes` left. */
  async checkSpace(sizeBytes: number): Promise<void> {
    await mkdir(this.folder, { recursive: true });
    const { bavail, bsize } = await statfs(this.folder);
    if (sizeBytes <= bavail * bsize) return;
    throw new GavelError(
      'disk_full',
      `Expected ${sizeBytes} free bytes to fetch a checkpoint into "${this.folder}" but received ${bavail * bsize}. ` +
        'Free some space, or set HF_HUB_CACHE to a folder on a larger disk.',
      { fields: { path: this.folder, needed: sizeBytes, free: bavail * bsize } },
    );
  }

  /** Puts a file into a snapshot, fetching what no blob holds. `onBytes` gets how many bytes it has so far. */
  async store(commit: string, file: HubFile, source: ByteSource, onBytes: (bytes: number) => void): Promise<void> {
    if (await this.has(commit, file.name)) return;
    if ((await sizeOf(this.#blob(file))) !== file.sizeBytes) await this.#fetch(file, source, onBytes);
    await this.#link(commit, file);
  }

  #blob({ digest }: HubFile): string {
    return join(this.folder, 'blobs', digest);
  }

  async #link(commit: string, file: HubFile): Promise<void> {
    const path = join(this.snapshot(commit), file.name);
    await mkdir(dirname(path), { recursive: true });
    // A link whose blob was deleted is replaced.
    if (
      await lstat(path).then(
        () => true,
        () => false,
      )
    )
      await rm(path);
    await symlink(relative(dirname(path), this.#blob(file)), path);
  }

  async #fetch(file: HubFile, source: ByteSource, onBytes: (bytes: number) => void): Promise<void> {
    await mkdir(join(this.folder, 'blobs'), { recursive: true });
    const part = `${this.#blob(file)}.${owner}.${nextPart++}.incomplete`;
    active.add(part);
    try {
      const continued = await this.#claim(file, part);
      if (!(await this.#complete(file, part, source, onBytes))) {
        await rm(part, { force: true });
        // What was continued may have been damaged: once more from the beginning.
        if (!continued || !(await this.#complete(file, part, source, onBytes))) {
          await rm(part, { force: true });
          throw corruptFile(file.name, 'what the hub sent has another checksum than it announced');
        }
      }
      await rename(part, this.#blob(file));
    } finally {
      active.delete(part);
    }
  }

  /** Takes over what a process that has ended, or an earlier call, left of this file. */
  async #claim({ digest }: HubFile, part: string): Promise<boolean> {
    const [host, ownPid, ownThread] = owner.split('.');
    for (const name of await readdir(join(this.folder, 'blobs'))) {
      const found = /^([0-9a-f]+)\.([^.]+)\.(\d+)\.(\d+)\.\d+\.incomplete$/.exec(name);
      if (found === null || found[1] !== digest || found[2] !== host) continue;
      const path = join(this.folder, 'blobs', name);
      const mine = found[3] === ownPid && found[4] === ownThread && !active.has(path);
      if (!mine && isRunning(Number(found[3]))) continue;
      // Whoever renames first has it.
      if (
        await rename(path, part).then(
          () => true,
          () => false,
        )
      )
        return true;
    }
    return false;
  }

  /** Appends what is missing; whether size and checksum then agree. */
  async #complete(
    { sizeBytes, digest }: HubFile,
    part: string,
    source: ByteSource,
    onBytes: (bytes: number) => void,
  ): Promise<boolean> {
    const hash = digest.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${sizeBytes}\0`);
    let received = (await sizeOf(part)) === undefined ? 0 : await hashFile(part, hash);
    if (received > sizeBytes) return false;
    const handle = await open(part, 'a');
    try {
      onBytes(received);
      // A connection that broke is opened again as long as it brings anything.
      for (let before = -1; received < sizeBytes && received > before;) {
        before = received;
        try {
          for await (const bytes of source(received)) {
            received += bytes.length;
            if (received > sizeBytes) return false;
            hash.update(bytes);
            await handle.writeFile(bytes);
            onBytes(received);
          }
        } catch (error) {
          if (!GavelError.is(error) || error.fields['reason'] !== 'unreachable' || received === before) throw error;
        }
      }
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (received < sizeBytes) {
      throw new GavelError(
        'io',
        `Expected ${sizeBytes} bytes of a file from the hub but the connection ended after ${received}. ` +
          'Run it again: it goes on where it stopped.',
        { fields: { received, sizeBytes, reason: 'interrupted' } },
      );
    }
    return hash.digest('hex') === digest;
  }
}

async function hashFile(path: string, hash: Hash): Promise<number> {
  let size = 0;
  for await (const bytes of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(bytes);
    size += bytes.length;
  }
  return size;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}
