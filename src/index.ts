/** `gavel-rl`: train and sample reward models that reason. Importing the package loads no binary. */
export { errorCodes, GavelError, type ErrorCode, type ErrorFields } from './errors.js';
export * from './engine/index.js';
