/** Reads the committed goldens: tensors of a .safetensors file as plain arrays beside the JSON that describes them. */
import { readFileSync } from 'node:fs';
import { readSafetensorsHeader, readTensor } from '../../src/data/safetensors.js';

export const goldenFolder = new URL('../goldens/', import.meta.url).pathname;

export interface GoldenTensor {
  shape: number[];
  data: Float64Array;
}

export class Golden {
  private constructor(
    // The files differ in shape; each test reads what it knows to be there.
    readonly json: any,
    private readonly entries: Awaited<ReturnType<typeof readSafetensorsHeader>>['tensors'],
  ) {}

  static async open(name: string): Promise<Golden> {
    const json: unknown = JSON.parse(readFileSync(`${goldenFolder}${name}.json`, 'utf8'));
    const { tensors } = await readSafetensorsHeader(`${goldenFolder}${name}.safetensors`);
    return new Golden(json, tensors);
  }

  names(prefix = ''): string[] {
    return [...this.entries.keys()].filter((name) => name.startsWith(prefix));
  }

  async tensor(name: string): Promise<GoldenTensor> {
    const entry = this.entries.get(name);
    if (entry === undefined) throw new Error(`no golden tensor ${name}`);
    const raw = await readTensor(entry);
    return { shape: entry.shape, data: Float64Array.from(raw as ArrayLike<number | bigint>, Number) };
  }
}

export function relativeL2(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < want.length; i++) {
    difference += (got[i]! - want[i]!) ** 2;
    norm += want[i]! ** 2;
  }
  return Math.sqrt(difference / Math.max(norm, 1e-300));
}

export function maxAbsolute(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    const gap = Math.abs(got[i]! - want[i]!);
    if (!(gap <= worst)) worst = gap;
  }
  return worst;
}
