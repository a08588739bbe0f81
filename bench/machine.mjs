// What a row must say of where it was measured: hardware, commit, and how busy others kept the machine meanwhile.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

export const projectRoot = dirname(dirname(fileURLToPath(import.meta.url)));

/** Share of the machine that others may use while a wall-clock figure still counts. */
export const quietShare = 0.06;

/** Processor, cores, widest instructions and memory, in one line. */
export function hardware() {
  const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1]?.split(' '));
  const widest = ['amx_bf16', 'avx512_bf16', 'avx512f', 'avx2'].filter((flag) => flags.has(flag)).slice(0, 2);
  const model = cpus()[0]?.model.replace(/\s+/g, ' ').trim() ?? 'unknown CPU';
  const gibibytes = Math.round(totalmem() / 2 ** 30);
  return `${model}, ${availableParallelism()} cores, ${widest.join(' + ') || 'no wide vectors'}, ${gibibytes} GiB`;
}

/** Short commit of the tree, with `-dirty` when a tracked file outside bench/results and docs differs from it. */
export function commit() {
  const git = (...args) => execFileSync('git', args, { cwd: projectRoot, encoding: 'utf8' }).trim();
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no', '--', 'native', 'src', 'package.json');
    return git('rev-parse', '--short=10', 'HEAD') + (changed === '' ? '' : '-dirty');
  } catch {
    return 'unknown';
  }
}

/** Seconds that all processors together were busy since boot, steal included. */
export function busySeconds() {
  const fields = /^cpu\s+(.*)$/m.exec(readFileSync('/proc/stat', 'utf8'))[1].split(/\s+/).map(Number).slice(0, 8);
  const idle = fields[3] + fields[4];
  return (fields.reduce((sum, value) => sum + value, 0) - idle) / 100;
}

/** 0 none of the machine .. 1 all of it, used by others during `wall` seconds in which we used `own` CPU seconds. */
export const otherShare = (busy, own, wall) =>
  Math.max(0, (busy - own) / (Math.max(wall, 1e-9) * availableParallelism()));

/** `load` of the last minute, to print beside every table. */
export const load = () => Number(loadavg()[0].toFixed(2));
