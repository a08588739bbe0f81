/** Turns the system's file errors into the package's own, saying what to do; other errors pass unchanged. */
import { GavelError, type ErrorCode } from '../errors.js';

const advice: Readonly<Record<string, { code: ErrorCode; what: string; todo: string }>> = {
  ENOSPC: {
    code: 'disk_full',
    what: 'free space',
    todo: 'Free some space and resume: what was complete before this write is untouched.',
  },
  EDQUOT: {
    code: 'disk_full',
    what: 'free quota',
    todo: 'Free some of your quota and resume: nothing written before is lost.',
  },
  EACCES: { code: 'permission_denied', what: 'permission', todo: 'Choose another folder or change its owner or mode.' },
  EPERM: { code: 'permission_denied', what: 'permission', todo: 'Choose another folder or change its owner or mode.' },
  EROFS: { code: 'permission_denied', what: 'a writable file system', todo: 'Choose a folder on another file system.' },
  ENOENT: { code: 'io', what: 'an existing path', todo: 'Check the path.' },
  ENOTDIR: { code: 'io', what: 'a folder', todo: 'Check the path: a part of it is a file.' },
  EISDIR: { code: 'io', what: 'a file', todo: 'Check the path: it is a folder.' },
};

/** The typed form of a failed file operation on `path`. */
export function fileError(error: unknown, action: string, path: string): unknown {
  if (GavelError.is(error)) return error;
  const errno = (error as NodeJS.ErrnoException | undefined)?.code;
  if (typeof errno !== 'string' || !/^E[A-Z0-9]+$/.test(errno)) return error;
  const { code, what, todo } = advice[errno] ?? {
    code: 'io' as const,
    what: 'success',
    todo: 'Check the disk and resume.',
  };
  return new GavelError(code, `Expected ${what} to ${action} \`${path}\` but received ${errno}. ${todo}`, {
    fields: { path, action, errno },
    cause: error,
  });
}

/** Runs one file operation; its failure is the typed error. */
export async function guarded<T>(action: string, path: string, operation: () => Promise<T>): Promise<T> {
  try {
    return await operation();
  } catch (error) {
    throw fileError(error, action, path);
  }
}
