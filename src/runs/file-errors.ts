/** Turns the system's file errors into the package's own, saying what to do; other errors pass unchanged. */
import { GavelError, type ErrorCode } from '../errors.js';

const causes: Readonly<Record<string, { code: ErrorCode; what: string; advice: string }>> = {
  ENOSPC: {
    code: 'disk_full',
    what: 'free space',
    advice: 'Free some space and resume: what was complete before this write is untouched.',
  },
  EDQUOT: {
    code: 'disk_full',
    what: 'free quota',
    advice: 'Free some of your quota and resume: nothing written before is lost.',
  },
  EACCES: {
    code: 'permission_denied',
    what: 'permission',
    advice: 'Choose another folder or change its owner or mode.',
  },
  EPERM: {
    code: 'permission_denied',
    what: 'permission',
    advice: 'Choose another folder or change its owner or mode.',
  },
  EROFS: {
    code: 'permission_denied',
    what: 'a writable file system',
    advice: 'Choose a folder on another file system.',
  },
  ENOENT: { code: 'io', what: 'an existing path', advice: 'Check the path.' },
  ENOTDIR: { code: 'io', what: 'a folder', advice: 'Check the path: a part of it is a file.' },
  EISDIR: { code: 'io', what: 'a file', advice: 'Check the path: it is a folder.' },
};

/** The typed form of a failed file operation on `path`. */
export function fileError(error: unknown, action: string, path: string): unknown {
  if (GavelError.is(error)) return error;
  const errno = (error as NodeJS.ErrnoException | undefined)?.code;
  if (typeof errno !== 'string' || !/^E[A-Z0-9]+$/.test(errno)) return error;
  const { code, what, advice } = causes[errno] ?? {
    code: 'io' as const,
    what: 'success',
    advice: 'Check the disk and resume.',
  };
  return new GavelError(code, `Expected ${what} to ${action} \`${path}\` but received ${errno}. ${advice}`, {
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
