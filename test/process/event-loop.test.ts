// Training must not block the event loop: a whole small quickstart (composing, tokenizing, training, sampling, checkpoints,
// report) is run in a process of its own, and the delays of its loop are judged. See event-loop-child.mjs.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { root } from './child.js';

interface Delays {
  /** Milliseconds. */
  max: number;
  p999: number;
  ticks: number;
}

interface Report {
  seconds: number;
  others: number;
  measured: Delays;
  own: Delays;
  steps: number;
  stages: number;
}

const mostMs = 100;
const mostP999Ms = 20;
/** Above this many processors kept busy by others, the machine and not the run decides when the loop gets its turn. */
const disturbed = 0.3;

const isResponsive = ({ max, p999 }: Delays): boolean => max < mostMs && p999 < mostP999Ms;

async function runChild(...options: string[]): Promise<Report> {
  const folder = await mkdtemp(join(tmpdir(), 'gavel-loop-'));
  try {
    const script = join(root, 'test/process/event-loop-child.mjs');
    const { stdout } = await promisify(execFile)(process.execPath, [script, join(folder, 'run'), ...options], {
      timeout: 110_000,
      killSignal: 'SIGKILL',
    });
    const report = JSON.parse(stdout) as Report;
    console.log(
      `loop delay: max ${report.measured.max.toFixed(1)} ms, p99.9 ${report.measured.p999.toFixed(1)} ms ` +
        `(own: ${report.own.max.toFixed(1)}, ${report.own.p999.toFixed(1)}), ${report.measured.ticks} ticks, ` +
        `${report.others.toFixed(2)} processors busy with others`,
    );
    return report;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * What a run's delays are judged by: all of them, unless others kept the processors busy; then what is left of them when the
 * kernel's account of the time the thread was ready but had no processor is taken off.
 */
const judged = ({ measured, own, others }: Report): Delays =>
  !isResponsive(measured) && others > disturbed ? own : measured;

describe('the event loop of a training process', () => {
  it('is never more than 100 ms late, and 20 ms in one of a thousand turns', { timeout: 340_000 }, async () => {
    let report = await runChild();
    // A stall of the code is there in every run; one that others caused is not.
    for (let again = 0; again < 2 && report.others > disturbed && !isResponsive(judged(report)); again++) {
      report = await runChild();
    }
    expect(report).toMatchObject({ stages: 4 });
    expect(report.steps).toBeGreaterThan(30);
    expect(report.measured.ticks).toBeGreaterThan(1000);
    expect(judged(report).max).toBeLessThan(mostMs);
    expect(judged(report).p999).toBeLessThan(mostP999Ms);
  });

  it('would fail by a single planted stall of 150 ms, on a busy machine too', async () => {
    const report = await runChild('--plant', '150');
    expect(isResponsive(report.measured)).toBe(false);
    expect(isResponsive(report.own)).toBe(false);
    expect(isResponsive(judged(report))).toBe(false);
  });
});
