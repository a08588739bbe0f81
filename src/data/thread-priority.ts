/** Worker threads that compute: below the thread that runs the event loop, so that a full machine never delays it. */
import { constants, getPriority, setPriority } from 'node:os';

const stepsBelow = 5;

/**
 * Makes the calling worker thread nicer than the main thread. Linux only, where a priority belongs to one thread; elsewhere
 * it would be the process's, and nothing is changed.
 */
export function yieldToMainThread(): void {
  if (process.platform !== 'linux') return;
  try {
    setPriority(0, Math.min(constants.priority.PRIORITY_LOW, getPriority(process.pid) + stepsBelow));
  } catch {
    // A sandbox may forbid it; the thread then works at the priority it has.
  }
}
