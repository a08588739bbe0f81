// What a machine with a device must show through the addon; without one the tier is skipped with the plugin's reason.
import { describe, expect, it } from 'vitest';
import { loadNative } from '../../src/binding/load.js';

const { cuda } = loadNative().info();

describe.skipIf(!cuda.available)(`cuda${cuda.available ? '' : `, skipped: no device (${cuda.reason})`}`, () => {
  it('lists every device with its memory', () => {
    expect(cuda.devices.length).toBeGreaterThan(0);
    for (const device of cuda.devices) {
      expect(device.name).not.toBe('');
      expect(device.memoryBytes).toBeGreaterThan(1e9);
    }
    expect(cuda.reason).toBe('');
  });
});
