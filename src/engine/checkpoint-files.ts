/**
 * Small text files of a checkpoint folder, read whole, with typed errors that name the file.
 */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GavelError, type ErrorCode } from '../errors.js';

/** Turns an error of node:fs into a typed one: 'permission_denied', 'disk_full' or `code`. */
export function fileError(cause: unknown, path: string, what: string, code: ErrorCode = 'io'): GavelError {
  const errno = (cause as NodeJS.ErrnoException | undefined)?.code ?? 'unknown';
  const denied = errno === 'EACCES' || errno === 'EPERM';
  const full = errno === 'ENOSPC' || errno === 'EDQUOT';
  const advice = denied
    ? 'Give this user access to it.'
    : full
      ? 'Free some space and try again.'
      : 'Check that the path exists and is a readable file.';
  return new GavelError(
    denied ? 'permission_denied' : full ? 'disk_full' : code,
    `Expected to read ${what} at "${path}" but received ${errno}. ${advice}`,
    { fields: { path, errno }, cause },
  );
}

/** The text of `folder`/`name`, or undefined when there is no such file; every other failure throws. */
export async function readOptionalText(folder: string, name: string): Promise<string | undefined> {
  const path = join(folder, name);
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw fileError(cause, path, name);
  }
}

/** The JSON object in `folder`/`name`, or undefined when there is no such file. Malformed JSON is 'corrupt_checkpoint'. */
export async function readOptionalJson(folder: string, name: string): Promise<Record<string, unknown> | undefined> {
  const text = await readOptionalText(folder, name);
  if (text === undefined) return undefined;
  const path = join(folder, name);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw corruptFile(path, `not JSON: ${(cause as Error).message}`, cause);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw corruptFile(path, 'not a JSON object');
  return value as Record<string, unknown>;
}

/** As readOptionalJson, but a missing file throws 'io'. */
export async function readJson(folder: string, name: string): Promise<Record<string, unknown>> {
  const value = await readOptionalJson(folder, name);
  if (value !== undefined) return value;
  const path = join(folder, name);
  throw new GavelError('io', `Expected ${name} in "${folder}" but found none. Name the folder of a whole checkpoint.`, {
    fields: { path },
  });
}

/** `size` bytes of a file. Errors: those of the system, typed; 'corrupt_checkpoint' when it ends before. */
export async function readBytes(path: string, offset: number, size: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(size);
  try {
    const file = await open(path, 'r');
    try {
      for (let done = 0; done < size;) {
        const { bytesRead } = await file.read(bytes, done, size - done, offset + done);
        if (bytesRead === 0) throw corruptFile(path, `ends at byte ${offset + done}, before byte ${offset + size}`);
        done += bytesRead;
      }
    } finally {
      await file.close();
    }
  } catch (cause) {
    throw GavelError.is(cause) ? cause : fileError(cause, path, 'a checkpoint file');
  }
  return bytes;
}

/** 'corrupt_checkpoint' with file and reason. */
export function corruptFile(path: string, reason: string, cause?: unknown): GavelError {
  return new GavelError(
    'corrupt_checkpoint',
    `Expected a well-formed checkpoint file but received "${path}": ${reason}. Fetch or write the checkpoint again.`,
    { fields: { path, reason }, ...(cause === undefined ? {} : { cause }) },
  );
}
