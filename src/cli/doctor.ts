/** `gavel doctor`: what this machine offers, what is missing, and what to type about it. */
import { readFile } from 'node:fs/promises';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import type { NativeInfo } from '../binding/contract.js';
import { packageRoot } from '../binding/load.js';
import { nativeModule } from '../engine/native-module.js';
import { GavelError } from '../errors.js';
import { exitCodes } from './exit-codes.js';
import { print, printJson } from './terminal.js';

interface Finding {
  name: string;
  ok: boolean;
  text: string;
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;

function versionsText(versions: NativeInfo['cuda']['versions']): string {
  if (versions === undefined) return '';
  const { driver, runtime, cublasLt } = versions;
  return ` (driver ${driver || 'none'}, runtime ${runtime || 'none'}, cuBLASLt ${cublasLt})`;
}

async function addonFindings(): Promise<Finding[]> {
  const findings: Finding[] = [];
  try {
    const native = nativeModule();
    findings.push({ name: 'addon', ok: true, text: `loads, version ${native.version}, build ${native.buildId}` });
    const { isa, isas, hardwareThreads, cuda } = native.info();
    const devices = cuda.devices
      .map(
        ({ name, memoryBytes, computeCapability }) =>
          `${name}, ${gib(memoryBytes)}, compute capability ${computeCapability}`,
      )
      .join('; ');
    return [
      ...findings,
      {
        name: 'cpu',
        ok: true,
        text: `${isa} of ${isas.join(', ')}; ${hardwareThreads} hardware threads, ${availableParallelism()} usable`,
      },
      {
        name: 'cuda',
        ok: true,
        text: (cuda.available ? devices : `not used: ${cuda.reason}`) + versionsText(cuda.versions),
      },
    ];
  } catch (error) {
    if (!GavelError.is(error)) throw error;
    return [...findings, { name: findings.length === 0 ? 'addon' : 'cpu', ok: false, text: error.message }];
  }
}

async function sharpFinding(): Promise<Finding> {
  try {
    const { default: sharp } = await import('sharp');
    return { name: 'images', ok: true, text: `sharp with libvips ${sharp.versions.vips}` };
  } catch (error) {
    return {
      name: 'images',
      ok: false,
      text: `sharp does not load: ${(error as Error).message}. Run npm install again.`,
    };
  }
}

async function memoryFinding(): Promise<Finding> {
  const limit = await readFile('/sys/fs/cgroup/memory.max', 'utf8').catch(() => 'max');
  const bytes = Number(limit);
  const bound = Number.isFinite(bytes) && bytes < totalmem() ? `, limited to ${gib(bytes)} by its control group` : '';
  return { name: 'memory', ok: true, text: `${gib(freemem())} free of ${gib(totalmem())}${bound}` };
}

/** Returns the exit status: failure when something that training needs is missing. */
export async function doctorCommand(json: boolean): Promise<number> {
  const manifest = JSON.parse(await readFile(join(packageRoot, 'package.json'), 'utf8')) as { version: string };
  const findings: Finding[] = [
    { name: 'gavel', ok: true, text: `${manifest.version} in ${packageRoot}` },
    { name: 'node', ok: true, text: `${process.version} on ${process.platform}-${process.arch}` },
    ...(await addonFindings()),
    await sharpFinding(),
    await memoryFinding(),
  ];
  if (json) printJson({ ok: findings.every(({ ok }) => ok), findings });
  else for (const { name, ok, text } of findings) print(`${ok ? 'ok     ' : 'MISSING'} ${name.padEnd(7)} ${text}`);
  return findings.every(({ ok }) => ok) ? exitCodes.ok : exitCodes.failure;
}
