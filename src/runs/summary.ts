/** summary.json of a run: one entry a stage, and what the whole run took. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { writeJsonAtomically } from './atomic-file.js';

/** Rates lie in [0, 1]; null where a stage has no such number. */
export interface StageSummary {
  name: string;
  /** Test accuracy on pictures of artists seen with rationales, with its 95 % interval. */
  accuracy: number | null;
  accuracyLow: number | null;
  accuracyHigh: number | null;
  unseenArtistAccuracy: number | null;
  /** Asked without chain of thought. */
  directAccuracy: number | null;
  formatRate: number | null;
  orderConsistency: number | null;
  /** Training time of the stage, evaluation of its result not included. */
  seconds: number;
  tokensPerSecond: number | null;
  [extra: string]: unknown;
}

export interface RunSummary {
  stages: StageSummary[];
  peakMemoryBytes: number;
  wallSeconds: number;
  /** Commit of the source tree; null outside a git checkout. */
  commit: string | null;
  [extra: string]: unknown;
}

export async function writeSummary(path: string, summary: RunSummary): Promise<void> {
  await writeJsonAtomically(path, summary);
}

/** The commit `folder` stands at, or null without git or outside a checkout. */
export async function commitOf(folder: string): Promise<string | null> {
  try {
    const { stdout } = await promisify(execFile)('git', ['-C', folder, 'rev-parse', 'HEAD'], { timeout: 5000 });
    return stdout.trim() || null;
  } catch {
    return null;
  }
}
