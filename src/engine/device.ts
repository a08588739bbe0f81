/** Which device a name means. */
import type { NativeModule } from '../binding/contract.js';
import { GavelError } from '../errors.js';

/** Where the models of an engine live. */
export type EngineDevice = 'cpu' | `cuda:${number}`;

/**
 * The number of a CUDA device, or undefined for the CPU, which 'auto' is too: CUDA has to be asked for.
 * Errors: 'device_unavailable' with the reason. A named device is a demand, never replaced by another.
 */
export function deviceIndex(native: NativeModule, device: string): number | undefined {
  if (!device.startsWith('cuda')) return undefined;
  const { cuda } = native.info();
  const index = Number(device.split(':')[1] ?? 0);
  if (cuda.available && index < cuda.devices.length) return index;
  const reason = cuda.available ? `This machine has ${cuda.devices.length} CUDA devices.` : cuda.reason;
  throw new GavelError(
    'device_unavailable',
    `Expected a usable device for \`device\` but received "${device}". ${reason} Use 'auto' or 'cpu'.`,
    { fields: { device, reason } },
  );
}
