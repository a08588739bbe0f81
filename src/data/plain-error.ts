/** Errors between threads: a GavelError travels as code, message and fields. */
import { GavelError, type ErrorCode, type ErrorFields } from '../errors.js';

export interface PlainError {
  code: ErrorCode;
  message: string;
  fields: ErrorFields;
}

/** Any error as plain data; what is none of ours is 'internal', with its stack. */
export function plainError(cause: unknown, doing: string): PlainError {
  if (GavelError.is(cause)) return { code: cause.code, message: cause.message, fields: cause.fields };
  const reason = cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
  return { code: 'internal', message: `A data thread failed ${doing}: ${reason}`, fields: {} };
}

export const reviveError = ({ code, message, fields }: PlainError): GavelError =>
  new GavelError(code, message, { fields });
