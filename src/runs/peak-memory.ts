/** The memory a process took at its peak. */
import { readFileSync } from 'node:fs';

/**
 * Highest resident set of this process so far, in bytes. Linux says it of the program itself; `maxRSS`, which serves where
 * there is no /proc, starts at what the parent held when it forked.
 */
export function peakMemoryBytes(): number {
  try {
    const kibibytes = /^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
    if (kibibytes !== undefined) return Number(kibibytes) * 1024;
  } catch {
    // No /proc: asked below.
  }
  return process.resourceUsage().maxRSS * 1024;
}
