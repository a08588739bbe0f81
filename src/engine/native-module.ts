/** The native module with this package's error class; loaded on first use, once per JavaScript environment. */
import type { NativeModule } from '../binding/contract.js';
import { loadNative } from '../binding/load.js';
import { GavelError } from '../errors.js';

let loaded: NativeModule | undefined;

/** Errors: 'binary_missing' and 'unsupported', as loadNative says them. */
export function nativeModule(): NativeModule {
  if (loaded === undefined) {
    const found = loadNative();
    found.setErrorClass(GavelError);
    loaded = found;
  }
  return loaded;
}
